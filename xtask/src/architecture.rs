//! Dependencies between crates, cycles between modules, and places that may name a backend.

mod modules;

use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::fs;
use std::path::{Path, PathBuf};

/// The workspace crates that each crate may depend on. Dev-dependencies are free.
const ARROWS: &[(&str, &[&str])] = &[
    ("flm-simplex", &[]),
    ("flm-alloc", &[]),
    ("flm-ops", &[]),
    ("flm-files", &[]),
    ("flm-data", &["flm-files"]),
    ("flm-eval", &[]),
    ("flm-denoiser", &["flm-simplex", "flm-ops", "flm-files"]),
    ("flm-objective", &["flm-simplex", "flm-denoiser"]),
    (
        "flm-distill",
        &["flm-simplex", "flm-denoiser", "flm-objective"],
    ),
    (
        "flm-discrete",
        &["flm-simplex", "flm-denoiser", "flm-objective"],
    ),
    ("flm-reward", &["flm-simplex", "flm-ops", "flm-denoiser"]),
    (
        "flm-train",
        &[
            "flm-simplex",
            "flm-ops",
            "flm-denoiser",
            "flm-objective",
            "flm-data",
            "flm-files",
        ],
    ),
    (
        "flm",
        &[
            "flm-simplex",
            "flm-ops",
            "flm-denoiser",
            "flm-objective",
            "flm-distill",
            "flm-discrete",
            "flm-reward",
            "flm-train",
            "flm-data",
            "flm-files",
        ],
    ),
    (
        "flm-study",
        &[
            "flm",
            "flm-simplex",
            "flm-denoiser",
            "flm-discrete",
            "flm-train",
            "flm-data",
            "flm-eval",
        ],
    ),
    ("flm-server", &["flm"]),
    (
        "flm-cli",
        &[
            "flm",
            "flm-server",
            "flm-study",
            "flm-files",
            "flm-alloc",
            "flm-simplex",
            "flm-denoiser",
            "flm-objective",
            "flm-distill",
            "flm-discrete",
            "flm-reward",
            "flm-train",
            "flm-data",
            "flm-eval",
        ],
    ),
];

/// Crates without limits: benches, tests and pipelines.
const OUTSIDE: &[&str] = &["flm-bench", "flm-tests", "xtask"];

/// Places that may name a backend: a crate or a file.
const NAME_A_BACKEND: &[(&str, Option<&str>)] = &[
    ("flm-ops", None),
    ("flm", Some("src/backend.rs")),
    ("flm-cli", Some("src/device.rs")),
];

/// The crate whose modules may use each other: operations choose kernels or compositions, which call operations.
const OPERATIONS: &str = "flm-ops";

/// The library of GPU kernels, and the only module that may use it.
const KERNEL_LANGUAGE: &[&str] = &["burn-cubecl", "cubecl", "cubek"];
const KERNELS: (&str, &str) = ("flm-ops", "cube");

pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        if OUTSIDE.contains(&package.name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS
            .iter()
            .find(|(name, _)| package.name.as_str() == *name)
        else {
            faults.push(format!("{} has no place in the architecture", package.name));
            continue;
        };
        faults.extend(arrow_faults(package, allowed));
        faults.extend(backend_faults(package)?);
        faults.extend(kernel_faults(package)?);
        if package.name.as_str() != OPERATIONS {
            let cycles = modules::cycles(&source(package)?)?;
            let cycle = |cycle| format!("modules of {} use each other: {cycle}", package.name);
            faults.extend(cycles.into_iter().map(cycle));
        }
    }
    if !faults.is_empty() {
        bail!("the architecture is broken:\n  {}", faults.join("\n  "));
    }
    println!("{} crates keep to their arrows", ARROWS.len());
    Ok(())
}

fn arrow_faults(package: &Package, allowed: &[&str]) -> Vec<String> {
    let own = |name: &str| name == "flm" || name.starts_with("flm-");
    package
        .dependencies
        .iter()
        .filter(|dependency| {
            dependency.kind != DependencyKind::Development && own(&dependency.name)
        })
        .filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .map(|dependency| format!("{} must not depend on {}", package.name, dependency.name))
        .collect()
}

/// Finds a backend that is named or depended on in the wrong place.
fn backend_faults(package: &Package) -> anyhow::Result<Vec<String>> {
    let allowed = NAME_A_BACKEND
        .iter()
        .find(|(name, _)| *name == package.name.as_str());
    let file = match allowed {
        Some((_, None)) => return Ok(Vec::new()),
        Some((_, file)) => *file,
        None => None,
    };
    let mut faults: Vec<String> = package
        .dependencies
        .iter()
        .filter(|dependency| {
            dependency.kind != DependencyKind::Development && dependency.name == "burn-flex"
        })
        .map(|_| format!("{} must not depend on a backend", package.name))
        .collect();
    visit(&source(package)?, &mut |path, text| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let named = |line: &&str| {
            let line = line.trim_start();
            !line.starts_with("//")
                && [
                    "burn_flex::",
                    "flm::backend::",
                    "flm_ops::Flex",
                    "burn::backend::Flex",
                    "burn::backend::Wgpu",
                    "burn::backend::Cuda",
                ]
                .iter()
                .any(|name| line.contains(name))
        };
        let allowed = file.is_some_and(|file| path.ends_with(file));
        let tests = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        if !tests && !allowed && code.lines().any(|line| named(&line)) {
            faults.push(format!("{} names a backend", path.display()));
        }
    })?;
    Ok(faults)
}

/// Finds the GPU library in the wrong place.
fn kernel_faults(package: &Package) -> anyhow::Result<Vec<String>> {
    let (owner, module) = KERNELS;
    if package.name.as_str() != owner {
        let known = package
            .dependencies
            .iter()
            .filter(|dependency| KERNEL_LANGUAGE.contains(&dependency.name.as_str()));
        return Ok(known
            .map(|dependency| format!("{} must not depend on {}", package.name, dependency.name))
            .collect());
    }
    let mut faults = Vec::new();
    visit(&source(package)?, &mut |path, text| {
        let inside = path
            .iter()
            .any(|part| part == module || part == format!("{module}.rs").as_str());
        let named = |name: &&str| text.contains(&format!("{}::", name.replace('-', "_")));
        if !inside && KERNEL_LANGUAGE.iter().any(named) {
            faults.push(format!("{} writes kernels for GPUs", path.display()));
        }
    })?;
    Ok(faults)
}

fn source(package: &Package) -> anyhow::Result<PathBuf> {
    let folder = package.manifest_path.parent();
    let folder = folder.context("a manifest has a folder")?;
    Ok(folder.join("src").into())
}

fn visit(folder: &Path, look: &mut dyn FnMut(&Path, &str)) -> anyhow::Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, look)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            look(&path, &text);
        }
    }
    Ok(())
}
