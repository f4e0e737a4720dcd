//! Speed of data preparation, next to Python: `cargo xtask bench-data`.

use crate::pipeline;
use crate::pipeline::runner::{Runner, words};
use anyhow::{Context, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A text with one document per line; it is repeated
    #[arg(value_name = "TEXT")]
    text: PathBuf,
    /// A tokenizer.json
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Sizes of text to prepare, in MB
    #[arg(long, value_name = "MB,MB", value_delimiter = ',', default_values_t = [1, 50, 500])]
    sizes: Vec<u64>,
    /// A Python with `datasets` and `tokenizers`, to compare with
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Largest text for Python, in MB
    #[arg(long, value_name = "MB", default_value_t = 50)]
    python_most: u64,
    /// Tokens per block
    #[arg(long, value_name = "L", default_value_t = 1024)]
    length: usize,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let runner = Runner {
        program: arguments.flm.clone().map_or_else(pipeline::build, Ok)?,
        out: home.path().to_path_buf(),
        jobs: 1,
    };
    println!(
        "| text, MB | | seconds | MB/s | peak memory, MiB |\n| ---: | --- | ---: | ---: | ---: |"
    );
    for size in &arguments.sizes {
        let text = home.path().join(format!("{size}.txt"));
        let bytes = repeat(&arguments.text, *size * 1_000_000, &text)?;
        let line = |way: &str, seconds: f64, peak: Option<f64>| {
            let peak = peak.map_or_else(|| "?".to_owned(), |peak| format!("{peak:.0}"));
            println!(
                "| {size} | {way} | {seconds:.1} | {:.1} | {peak} |",
                bytes as f64 / 1e6 / seconds
            );
        };
        let out = home.path().join("flm");
        let started = Instant::now();
        let paths = [
            ("--input", text.display().to_string()),
            ("--tokenizer", arguments.tokenizer.display().to_string()),
            ("--length", arguments.length.to_string()),
            ("--out", out.display().to_string()),
        ];
        let mut command = words("data prepare --pack");
        command.extend(
            paths
                .into_iter()
                .flat_map(|(option, value)| [option.to_owned(), value]),
        );
        let used = runner.watch(&command)?;
        line("flm", started.elapsed().as_secs_f64(), used.peak_mib);
        fs::remove_dir_all(&out).context("cannot remove what was prepared")?;
        if let Some(python) = &arguments.python
            && *size <= arguments.python_most
        {
            for threads in [1, 2] {
                let seconds = by_python(arguments, python, &text, threads, home.path())?;
                line(&format!("Python, {threads} processes"), seconds, None);
            }
        }
        fs::remove_file(&text).context("cannot remove a text")?;
    }
    Ok(())
}

/// Repeats `from` up to a number of bytes; returns the number written.
fn repeat(from: &Path, bytes: u64, to: &Path) -> anyhow::Result<u64> {
    let text = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    ensure!(!text.is_empty(), "{} is empty", from.display());
    let mut file =
        fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut written = 0;
    while written < bytes {
        let left = usize::try_from(bytes - written).unwrap_or(usize::MAX);
        // To the end of a line, so that no document is cut in the middle of a character.
        let part = if left >= text.len() {
            &text[..]
        } else {
            let end = text[..left].iter().rposition(|byte| *byte == b'\n');
            &text[..end.map_or(text.len(), |end| end + 1)]
        };
        file.write_all(part)
            .with_context(|| format!("cannot write {}", to.display()))?;
        written += part.len() as u64;
        if part.len() < text.len() {
            break;
        }
    }
    Ok(written)
}

/// Seconds that Python reports, without its start.
fn by_python(
    arguments: &Arguments,
    python: &Path,
    text: &Path,
    threads: usize,
    home: &Path,
) -> anyhow::Result<f64> {
    let out = home.join("python");
    let output = Command::new(python)
        .arg("xtask/bench/data_bench.py")
        .args([text, &arguments.tokenizer])
        .args([arguments.length.to_string(), threads.to_string()])
        .arg(&out)
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(
        output.status.success(),
        "Python failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::remove_dir_all(&out).context("cannot remove what Python made")?;
    let printed = String::from_utf8(output.stdout)?;
    let seconds = printed
        .split_whitespace()
        .next()
        .context("Python said nothing")?;
    Ok(seconds.parse()?)
}
