//! The files that CUDA needs at run time, and their locations.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Library folders in addition to those of the loader.
const LIBRARIES: [&str; 7] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
    "/opt/cuda/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
];
/// Folders of a CUDA toolkit, in addition to `$CUDA_PATH`.
const TOOLKITS: [&str; 3] = ["/usr/local/cuda", "/opt/cuda", "/usr"];

/// Returns the driver, runtime compiler, headers and GPUs: the location of each, or why it is
/// missing.
pub(super) fn parts() -> Vec<(&'static str, String)> {
    let folders = folders();
    let library = |names: &[&str]| {
        let found = cached(names).or_else(|| first(&folders, names));
        found.map_or_else(
            || {
                format!(
                    "{} is missing: it is neither in the loader's cache nor in {}",
                    names[0],
                    listed(&folders)
                )
            },
            |path| path.display().to_string(),
        )
    };
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_PATH")
        .map(PathBuf::from)
        .into_iter()
        .chain(TOOLKITS.map(PathBuf::from))
        .map(|toolkit| toolkit.join("include"))
        .collect();
    let headers = first(&toolkits, &["cuda_fp16.h"]).map_or_else(
        || {
            format!(
                "cuda_fp16.h is missing: it is not in {} (set $CUDA_PATH for another toolkit)",
                listed(&toolkits)
            )
        },
        |path| path.display().to_string(),
    );
    vec![
        ("driver", library(&["libcuda.so.1"])),
        (
            "NVRTC",
            library(&["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"]),
        ),
        ("headers", headers),
        (
            "GPUs",
            query("index,name,driver_version")
                .unwrap_or_else(|| "nvidia-smi is missing or finds no GPU".to_owned()),
        ),
    ]
}

/// Returns the total and free memory of a GPU in bytes, as reported by its driver.
pub(super) fn memory(number: usize) -> Option<[f64; 2]> {
    let text = query("memory.total,memory.free")?;
    let line = text.split("; ").nth(number)?;
    let mut mib = line
        .split(',')
        .map(|number| number.trim().parse::<f64>().ok());
    Some([mib.next()??, mib.next()??].map(|mib| mib * f64::from(1 << 20)))
}

/// Queries `nvidia-smi`; the GPUs are separated by semicolons.
fn query(what: &str) -> Option<String> {
    let output = Command::new("nvidia-smi")
        .args([
            &format!("--query-gpu={what}"),
            "--format=csv,noheader,nounits",
        ])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn folders() -> Vec<PathBuf> {
    let own = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&own)
        .filter(|path| !path.as_os_str().is_empty())
        .chain(LIBRARIES.map(PathBuf::from))
        .collect()
}

/// Returns the path of the first of these libraries in the loader's cache.
fn cached(names: &[&str]) -> Option<PathBuf> {
    let output = Command::new("ldconfig").arg("-p").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    in_cache(&text, names)
}

/// Finds a library in the output of `ldconfig -p`, whose lines are `name (kind) => path`.
fn in_cache(text: &str, names: &[&str]) -> Option<PathBuf> {
    names.iter().find_map(|name| {
        let entry = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))?;
        Some(PathBuf::from(entry.split(" => ").nth(1)?.trim()))
    })
}

fn first(folders: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let places = folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| Path::join(folder, name)));
    places.into_iter().find(|path| path.exists())
}

fn listed(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_cache_is_read_by_whole_names() {
        let text = "2 libs found\n\tlibnvrtc.so.12 (libc6,x86-64) => /usr/lib/libnvrtc.so.12\n\tlibcuda.so.1 (libc6) => /lib/libcuda.so.1\n";
        let found = in_cache(text, &["libnvrtc.so", "libnvrtc.so.12"]);
        assert_eq!(found, Some(PathBuf::from("/usr/lib/libnvrtc.so.12")));
        assert_eq!(in_cache(text, &["libcuda.so"]), None);
    }

    #[test]
    fn files_are_found_in_the_first_folder_that_has_one() {
        let home = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| home.path().join(name));
        std::fs::create_dir_all(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        std::fs::write(b.join("libx.so.1"), "").unwrap();
        let folders = [a, b.clone()];
        assert_eq!(first(&folders, &["libx.so.1"]), Some(b.join("libx.so.1")));
        assert_eq!(first(&folders, &["liby.so"]), None);
    }
}
