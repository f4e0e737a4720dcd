//! Our work and PyTorch's side by side: in turn, each repetition of a round in a process of its own.

mod gpu;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Time our work, and PyTorch's beside it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A Python with PyTorch, to run xtask/bench/torch_bench.py
    #[arg(long, value_name = "PYTHON")]
    against_torch: Option<PathBuf>,
    /// First make a virtual environment with PyTorch from PyPI in this folder, by the given Python
    #[arg(long, value_name = "DIR", requires = "against_torch")]
    install: Option<PathBuf>,
    /// Only works whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Rounds: in each, every contestant runs once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Repetitions of the works that take seconds, in a round
    #[arg(long, default_value_t = 2)]
    repeat: usize,
    /// Also PyTorch compiled by `torch.compile`, where it works
    #[arg(long)]
    compile: bool,
    /// Where to compute: cpu, or a GPU by wgpu or cuda, with works of its size
    #[arg(long, default_value = "cpu")]
    device: String,
    /// A flm-bench that is built already, on a machine without cargo
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The torch_bench.py to run, on a machine without this checkout
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// On a GPU: also write a line of JSON for each result
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    fn script(&self) -> PathBuf {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/torch_bench.py");
        self.script.clone().unwrap_or(ours)
    }
}

/// Sizes of a network and a batch.
#[derive(Clone, Copy)]
struct Sizes {
    vocab: usize,
    length: usize,
    width: usize,
    blocks: usize,
    heads: usize,
    batch: usize,
    /// Parts of the batch that a step trains on one after the other.
    parts: usize,
}

const COND: usize = 128;
/// Blocks and flow steps only.
const COMPILED: &str = "torch, lean, compiled";

const BLOCK: Sizes = Sizes {
    vocab: 61,
    length: 128,
    width: 256,
    blocks: 1,
    heads: 4,
    batch: 16,
    parts: 1,
};
const SMALL: Sizes = Sizes {
    vocab: 30_522,
    length: 128,
    width: 768,
    blocks: 12,
    heads: 12,
    batch: 4,
    parts: 1,
};
const LONG: Sizes = Sizes {
    vocab: 50_258,
    length: 1024,
    batch: 1,
    ..SMALL
};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Block { backward: bool },
    Head { backward: bool },
    Flow,
    Semigroup,
    Sample { jumps: usize },
}

struct Work {
    name: String,
    kind: Kind,
    sizes: Sizes,
    /// How much faster than PyTorch as released we mean to be.
    goal: Option<f64>,
}

fn works() -> Vec<Work> {
    let work = |name: &str, kind, sizes, goal| Work {
        name: name.to_owned(),
        kind,
        sizes,
        goal,
    };
    let mut works = vec![
        work(
            "block, forward",
            Kind::Block { backward: false },
            BLOCK,
            Some(1.0),
        ),
        work(
            "block, forward and backward",
            Kind::Block { backward: true },
            BLOCK,
            Some(1.0),
        ),
    ];
    for vocab in [8_192, 30_522, 50_258] {
        let sizes = Sizes { vocab, ..SMALL };
        let name = format!("head of {vocab}, forward and backward");
        works.push(work(&name, Kind::Head { backward: true }, sizes, None));
    }
    let one = Kind::Sample { jumps: 1 };
    works.extend([
        work(
            "flow step, V 30,522, L 128, batch 4",
            Kind::Flow,
            SMALL,
            Some(1.25),
        ),
        work(
            "flow step, V 50,258, L 1,024, batch 1",
            Kind::Flow,
            LONG,
            Some(1.25),
        ),
        work(
            "semigroup step, V 30,522, L 128, batch 4",
            Kind::Semigroup,
            SMALL,
            Some(1.3),
        ),
        work(
            "sample in 1 step, batch 1",
            one,
            Sizes { batch: 1, ..SMALL },
            Some(1.4),
        ),
        work(
            "sample in 1 step, batch 8",
            one,
            Sizes { batch: 8, ..SMALL },
            Some(1.4),
        ),
        work(
            "sample in 8 steps, batch 1",
            Kind::Sample { jumps: 8 },
            Sizes { batch: 1, ..SMALL },
            None,
        ),
    ]);
    for vocab in [1_000, 3_000, 10_000, 30_000, 100_000] {
        let sizes = Sizes {
            vocab,
            width: 256,
            blocks: 4,
            heads: 4,
            ..SMALL
        };
        let name = format!("sweep: flow step, width 256, V {vocab}");
        works.push(work(&name, Kind::Flow, sizes, None));
        let name = format!("sweep: head alone, width 256, V {vocab}");
        works.push(work(&name, Kind::Head { backward: true }, sizes, None));
    }
    works
}

impl Work {
    fn is_training(&self) -> bool {
        matches!(self.kind, Kind::Flow | Kind::Semigroup)
    }

    /// The command's name, its options, and how often to warm up and repeat.
    fn arguments(&self, repeat: usize) -> Vec<String> {
        let (name, extra): (_, Vec<String>) = match self.kind {
            Kind::Block { backward } => ("block", flag(backward)),
            Kind::Head { backward } => ("head", flag(backward)),
            Kind::Flow => ("flow", Vec::new()),
            Kind::Semigroup => ("semigroup", Vec::new()),
            Kind::Sample { jumps } => ("sample", vec!["--jumps".to_owned(), jumps.to_string()]),
        };
        let sizes = &self.sizes;
        let repeat = if matches!(self.kind, Kind::Block { .. }) {
            20
        } else {
            repeat
        };
        let dropout = if self.is_training() { 0.1 } else { 0.0 };
        let mut arguments = vec![name.to_owned()];
        for (option, value) in [
            ("--vocab", sizes.vocab),
            ("--length", sizes.length),
            ("--width", sizes.width),
            ("--blocks", sizes.blocks),
            ("--heads", sizes.heads),
            ("--cond", COND),
            ("--batch", sizes.batch),
            ("--parts", sizes.parts),
            // Two: the second step still meets memory for the first time.
            ("--warmup", 2),
            ("--repeat", repeat),
        ] {
            arguments.extend([option.to_owned(), value.to_string()]);
        }
        arguments.extend(["--dropout".to_owned(), dropout.to_string()]);
        arguments.extend(extra);
        arguments
    }

    /// Floating-point operations of the matrix products that any implementation must do: of blocks and head, and of D·E.
    fn operations(&self) -> f64 {
        let Sizes {
            vocab,
            length,
            width,
            blocks,
            batch,
            ..
        } = self.sizes;
        let [v, l, d, n] = [vocab, length, width, batch * length].map(|x| x as f64);
        let network = blocks as f64 * n * (24.0 * d * d + 4.0 * l * d);
        let head = 2.0 * n * d * v;
        match self.kind {
            Kind::Block { backward } => network * if backward { 3.0 } else { 1.0 },
            Kind::Head { backward } => head * if backward { 3.0 } else { 1.0 },
            Kind::Flow => 3.0 * (network + head),
            // Half of the rows are on the diagonal, where the teacher answers, and half off it, where the student does twice.
            Kind::Semigroup => 4.5 * (network + head) + 0.5 * head,
            Kind::Sample { jumps } => jumps as f64 * (network + head) + (jumps - 1) as f64 * head,
        }
    }

    /// MiB of weights, average, gradients and moments, and of a teacher, as far as the work has them.
    fn state(&self) -> f64 {
        let Sizes {
            vocab,
            width,
            blocks,
            ..
        } = self.sizes;
        let block = blocks * (12 * width * width + 7 * width + 6 * width * (COND + 1));
        let head = width * vocab + vocab;
        let network = block + head + vocab * width;
        let numbers = match self.kind {
            Kind::Block { backward } => block * if backward { 2 } else { 1 },
            Kind::Head { backward } => head * if backward { 2 } else { 1 },
            Kind::Flow => 5 * network,
            Kind::Semigroup => 6 * network,
            Kind::Sample { .. } => network,
        };
        (numbers * 4) as f64 / f64::from(1 << 20)
    }
}

fn flag(backward: bool) -> Vec<String> {
    backward
        .then(|| "--backward".to_owned())
        .into_iter()
        .collect()
}

/// What a process says of its repetitions.
#[derive(Deserialize)]
struct Answer {
    seconds: Vec<f64>,
    peak_mib: Option<f64>,
    warmup: Option<f64>,
    gpu_mib: Option<f64>,
    error: Option<String>,
}

impl Answer {
    fn failed(reason: &str) -> Self {
        Self {
            seconds: Vec::new(),
            peak_mib: None,
            warmup: None,
            gpu_mib: None,
            error: Some(reason.to_owned()),
        }
    }
}

/// Somebody who can do a work.
struct Contestant {
    name: &'static str,
    program: PathBuf,
    before: Vec<String>,
    after: Vec<String>,
}

impl Contestant {
    fn run(&self, arguments: &[String]) -> anyhow::Result<Answer> {
        let output = Command::new(&self.program)
            .args(&self.before)
            .args(arguments)
            .args(&self.after)
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: {}",
                self.name,
                error.lines().last().unwrap_or("no reason")
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("{} did not answer in JSON: {text}", self.name))
    }
}

/// The repetitions of one contestant, all rounds together.
#[derive(Default)]
struct Timing {
    seconds: Vec<f64>,
    peak: f64,
    failed: Option<String>,
}

impl Timing {
    fn of(answer: &Answer) -> Self {
        Self {
            seconds: answer.seconds.clone(),
            peak: answer.peak_mib.unwrap_or_default(),
            failed: answer.error.clone(),
        }
    }

    fn median(&self) -> f64 {
        if self.seconds.is_empty() {
            return f64::NAN;
        }
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        }
    }

    fn spread(&self) -> (f64, f64) {
        let fold = |f: fn(f64, f64) -> f64, start| self.seconds.iter().copied().fold(start, f);
        (fold(f64::min, f64::INFINITY), fold(f64::max, 0.0))
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

/// A line of the table. `idle` is what the contestant's process takes to do next to nothing.
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

/// Every contestant in turn, once a round; one that fails is left out of the rounds after.
fn time(contestants: &[Contestant], arguments: &[String], rounds: usize) -> Vec<Timing> {
    let mut timings: Vec<Timing> = contestants.iter().map(|_| Timing::default()).collect();
    for _ in 0..rounds {
        for (contestant, timing) in contestants.iter().zip(&mut timings) {
            let compiles = matches!(arguments[0].as_str(), "peak" | "block" | "flow");
            if timing.failed.is_some() || contestant.name == COMPILED && !compiles {
                timing
                    .failed
                    .get_or_insert_with(|| "not compiled".to_owned());
                continue;
            }
            match contestant.run(arguments) {
                Ok(answer) => {
                    timing.seconds.extend(answer.seconds);
                    timing.peak = timing.peak.max(answer.peak_mib.unwrap_or(f64::NAN));
                }
                Err(error) => timing.failed = Some(format!("{error:#}")),
            }
        }
    }
    timings
}

/// Builds the binary of our works, with what a device needs, and says where it is.
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

/// Makes a virtual environment with PyTorch and says where its Python is.
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
