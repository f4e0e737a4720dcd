//! Runs the checks of [`flm_tests::backend`] on a device: `cargo xtask backend-tests --device D`.
//!
//! `--jobs N` runs them in N processes, `--part P` runs one part only. `--soak N` instead trains
//! for N steps and measures memory use.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, Part, soak};
use flm_tests::parity::Source;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The task given after the device.
enum Task {
    /// Every check, with this many parts at a time.
    All(usize),
    /// The checks of one part.
    Part(Part),
    /// A training run of this many steps, with memory use measured.
    Soak(u64),
}

impl Task {
    fn read(arguments: &[&str]) -> Option<Self> {
        match arguments {
            [] => Some(Self::All(1)),
            ["--jobs", jobs] => jobs.parse().ok().filter(|&jobs| jobs > 0).map(Self::All),
            ["--part", name] => Part::named(name).map(Self::Part),
            ["--soak", steps] => steps.parse().ok().map(Self::Soak),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (device, task) = match arguments.split_first() {
        Some((device, rest)) => (*device, Task::read(rest)),
        None => ("cpu", Some(Task::All(1))),
    };
    let Some(task) = task else {
        println!(
            "expected a device, then --jobs N (N ≥ 1), --soak STEPS or --part P of {}, found `{}`",
            Part::ALL.map(Part::name).join(", "),
            arguments.join(" ")
        );
        return ExitCode::from(2);
    };
    match device {
        "cpu" => run::<Autodiff<Flex>>(device, task, &Bounds::SINGLE, resident),
        #[cfg(feature = "wgpu")]
        "wgpu" => run::<Autodiff<burn::backend::Wgpu>>(device, task, &Bounds::WGPU, resident),
        #[cfg(feature = "cuda")]
        "cuda" | "cuda:0" => {
            run::<Autodiff<burn::backend::Cuda>>(device, task, &Bounds::CUDA, with_card)
        }
        other => {
            println!("built without the device `{other}`: build with --features wgpu,cuda");
            ExitCode::from(2)
        }
    }
}

fn run<B: AutodiffBackend>(
    device: &str,
    task: Task,
    bounds: &Bounds,
    memory: fn() -> Option<f64>,
) -> ExitCode {
    match task {
        Task::All(1) => checks::<B>(&Part::ALL, bounds),
        Task::All(jobs) => side_by_side(device, jobs),
        Task::Part(part) => checks::<B>(&[part], bounds),
        Task::Soak(steps) => watched::<B>(steps, memory),
    }
}

/// Runs all parts, each in its own process.
///
/// Much of the time on a GPU is kernel compilation, which was observed to be serial in a process.
fn side_by_side(device: &str, jobs: usize) -> ExitCode {
    let [next, checks, failed] = [const { AtomicUsize::new(0) }; 3];
    let work = || {
        while let Some(part) = Part::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = part.name();
            let answer = std::env::current_exe().and_then(|program| {
                Command::new(program)
                    .args([device, "--part", name])
                    .output()
            });
            let (found, holds) = match answer {
                Ok(answer) => {
                    let said = [answer.stdout, answer.stderr].concat();
                    (
                        String::from_utf8_lossy(&said).into_owned(),
                        answer.status.success(),
                    )
                }
                Err(error) => (format!("cannot be started: {error}"), false),
            };
            println!("{name}:\n{}", found.trim_end());
            let lines = found
                .lines()
                .filter(|line| line.starts_with("ok ") || line.starts_with("NO "));
            checks.fetch_add(lines.count(), Ordering::Relaxed);
            failed.fetch_add(usize::from(!holds), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let (checks, failed) = (checks.into_inner(), failed.into_inner());
    println!(
        "{checks} checks in {} parts, {failed} parts failed",
        Part::ALL.len()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Trains and reports memory use.
fn watched<B: AutodiffBackend>(steps: u64, memory: fn() -> Option<f64>) -> ExitCode {
    match soak::<B>(steps, memory) {
        Ok(soak) => {
            for (step, taken) in &soak.samples {
                println!("step {step:6}  {taken:8.1} MiB");
            }
            let growth = soak.growth();
            println!("{growth:+.1} MiB in the second half");
            ExitCode::from(u8::from(!soak.holds()))
        }
        Err(message) => {
            println!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Returns the resident memory of this process in MiB, or `None` without `/proc`.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Returns the memory of this process in MiB: resident, plus on NVIDIA GPUs.
///
/// Where the driver does not report processes, as in some containers, the memory used on the first
/// GPU by all processes is counted instead, and a note is printed.
#[cfg(feature = "cuda")]
fn with_card() -> Option<f64> {
    static KNOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let ask = |query: &str| {
        let answer = Command::new("nvidia-smi")
            .args([query, "--format=csv,noheader,nounits"])
            .output();
        String::from_utf8(answer.ok()?.stdout).ok()
    };
    let own = |line: &str| {
        let (pid, taken) = line.split_once(',')?;
        let is_own = pid.trim().parse() == Ok(std::process::id());
        taken.trim().parse::<f64>().ok().filter(|_| is_own)
    };
    let of_processes = ask("--query-compute-apps=pid,used_memory")?;
    let of_process: Option<f64> = of_processes.lines().filter_map(own).reduce(|a, b| a + b);
    let known = *KNOWN.get_or_init(|| {
        let known = of_process.is_some();
        if !known {
            println!("GPU memory counts all programs on the first GPU");
        }
        known
    });
    let taken = if known {
        of_process?
    } else {
        let of_all = ask("--query-gpu=memory.used")?;
        of_all.lines().next()?.trim().parse().ok()?
    };
    Some(taken + resident()?)
}

/// Runs the checks of some parts and prints the results after each part.
fn checks<B: AutodiffBackend>(parts: &[Part], bounds: &Bounds) -> ExitCode {
    let (mut all, mut failed) = (0, 0);
    for part in parts {
        match part.lines::<B>(&Source::golden(), bounds) {
            Ok(lines) => {
                for line in &lines {
                    println!("{line}");
                }
                all += lines.len();
                failed += lines.iter().filter(|line| !line.holds()).count();
            }
            Err(message) => {
                println!("{message}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{all} checks, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
