//! Benchmarks next to PyTorch: contestants take turns, each repetition in its own process.

mod contestants;
mod gpu;
mod works;

use anyhow::{Context, bail, ensure};
use contestants::{COMPILED, Contestant, Timing, time};
use std::path::{Path, PathBuf};
use std::process::Command;
use works::{Work, works};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A Python with PyTorch, to run xtask/bench/torch_bench.py
    #[arg(long, value_name = "PYTHON")]
    against_torch: Option<PathBuf>,
    /// First create a virtual environment with PyTorch from PyPI in this folder
    #[arg(long, value_name = "DIR", requires = "against_torch")]
    install: Option<PathBuf>,
    /// Only benchmarks whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Rounds; every contestant runs once in each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Repetitions per round of benchmarks that take seconds
    #[arg(long, default_value_t = 2)]
    repeat: usize,
    /// Also run PyTorch with `torch.compile`, where it works
    #[arg(long)]
    compile: bool,
    /// Device: cpu, wgpu or cuda; a GPU has larger benchmarks
    #[arg(long, default_value = "cpu")]
    device: String,
    /// A prebuilt flm-bench, for a machine without cargo
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The torch_bench.py to run, for a machine without this checkout
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// On a GPU: also write each result as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    fn script(&self) -> PathBuf {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/torch_bench.py");
        self.script.clone().unwrap_or(ours)
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.rounds > 0 && arguments.repeat > 0,
        "a bench needs at least one repetition"
    );
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build(&arguments.device)?,
    };
    if arguments.device != "cpu" {
        return gpu::run(arguments, binary);
    }
    let ours = Contestant {
        name: "flm",
        program: binary,
        before: Vec::new(),
        after: Vec::new(),
    };
    let mut contestants = vec![ours];
    if let Some(python) = &arguments.against_torch {
        let python = match &arguments.install {
            Some(folder) => install(python, folder)?,
            None => python.clone(),
        };
        let script = arguments.script();
        let torch = |name, options: &[&str]| Contestant {
            name,
            program: python.clone(),
            before: vec![script.display().to_string()],
            after: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        contestants.push(torch("torch as released", &["--variant", "released"]));
        contestants.push(torch("torch, lean", &["--variant", "lean", "--fused"]));
        if arguments.compile {
            let options = &["--variant", "lean", "--fused", "--compile"];
            contestants.push(torch(COMPILED, options));
        }
    }
    let peak = time(
        &contestants,
        &["peak".to_owned(), "--repeat".to_owned(), "20".to_owned()],
        1,
    );
    if let Some(reason) = peak.iter().find_map(|timing| timing.failed.as_ref()) {
        bail!("{reason}");
    }
    let idle: Vec<f64> = peak.iter().map(|timing| timing.peak).collect();
    let peak: Vec<f64> = peak
        .iter()
        .map(|timing| 2.0 * 1024_f64.powi(3) / timing.median())
        .collect();
    for (contestant, peak) in contestants.iter().zip(&peak) {
        println!(
            "{}: {:.0} GFLOP/s in products of 1,024³",
            contestant.name,
            peak / 1e9
        );
    }
    let best = peak.iter().copied().fold(0.0, f64::max);
    println!(
        "\n| work | by | median | from–to | flm is faster | share of the best peak | peak memory | beyond the state |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for work in works()
        .iter()
        .filter(|work| work.name.contains(&arguments.only))
    {
        let timings = time(
            &contestants,
            &work.arguments(arguments.repeat),
            arguments.rounds,
        );
        if let Some(reason) = &timings[0].failed {
            bail!("{}: {reason}", work.name);
        }
        let ours = timings[0].median();
        for ((contestant, timing), idle) in contestants.iter().zip(&timings).zip(&idle) {
            println!("{}", row(work, contestant, timing, ours, best, *idle));
        }
    }
    Ok(())
}

/// A row of the table. `idle` is the memory of an idle process.
fn row(
    work: &Work,
    contestant: &Contestant,
    timing: &Timing,
    ours: f64,
    peak: f64,
    idle: f64,
) -> String {
    let start = format!("| {} | {} |", work.name, contestant.name);
    if let Some(reason) = &timing.failed {
        return format!("{start} failed: {reason} | | | | | |");
    }
    let (median, (from, to)) = (timing.median(), timing.spread());
    let ratio = match (contestant.name, work.goal) {
        ("flm", Some(goal)) => format!("goal {goal}"),
        ("flm", None) => String::new(),
        _ => format!("{:.2}×", median / ours),
    };
    format!(
        "{start} {median:.3} s | {from:.3}–{to:.3} | {ratio} | {:.0} % | {:.0} MiB | {:.0} MiB |",
        100.0 * work.operations() / median / peak,
        timing.peak,
        timing.peak - idle - work.state()
    )
}

/// Builds flm-bench for a device and returns its path.
fn build(device: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--package",
            "flm-bench",
            "--example",
            "flm-bench",
            "--locked",
        ])
        .args((device != "cpu").then(|| {
            let feature = device.split(':').next().unwrap_or_default();
            format!("--features={feature}")
        }))
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "flm-bench did not build");
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    Ok(metadata
        .target_directory
        .join("release/examples/flm-bench")
        .into())
}

/// Creates a virtual environment with PyTorch and returns its Python.
fn install(python: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let inside = folder.join("bin/python");
    let step = |program: &Path, arguments: &[&str]| -> anyhow::Result<()> {
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| format!("cannot start {}", program.display()))?;
        ensure!(
            status.success(),
            "{} {} failed",
            program.display(),
            arguments.join(" ")
        );
        Ok(())
    };
    if !inside.is_file() {
        step(python, &["-m", "venv", &folder.display().to_string()])?;
    }
    step(
        &inside,
        &["-m", "pip", "install", "--quiet", "torch", "numpy"],
    )?;
    Ok(inside)
}
