//! The checks of [`flm_tests::backend`] on a device, `cargo xtask backend-tests --device D`, or with `--soak N` a training whose memory is watched.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, Part, soak};
use flm_tests::parity::Source;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is asked for behind the device.
enum Task {
    /// Every check, so many parts at a time.
    All(usize),
    /// The checks of one part.
    Part(Part),
    /// A training of so many steps.
    Soak(u64),
}

impl Task {
    fn read(arguments: &[String]) -> Option<Self> {
        match arguments {
            [] => Some(Self::All(1)),
            [name, value] => match name.as_str() {
                "--jobs" => value.parse().ok().filter(|&n| n > 0).map(Self::All),
                "--part" => Part::named(value).map(Self::Part),
                "--soak" => value.parse().ok().map(Self::Soak),
                _ => None,
            },
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        arguments.push("cpu".to_owned());
    }
    let device = arguments.remove(0);
    let Some(task) = Task::read(&arguments) else {
        let names = Part::ALL.map(|(_, name)| name).join(", ");
        println!(
            "behind the device --jobs N, --soak STEPS or --part P is expected, where P is one of {names}: found {arguments:?}"
        );
        return ExitCode::from(2);
    };
    match device.as_str() {
        "cpu" => run::<Autodiff<Flex>>(&device, task, &Bounds::SINGLE, resident),
        #[cfg(feature = "wgpu")]
        "wgpu" => run::<Autodiff<burn::backend::Wgpu>>(&device, task, &Bounds::WGPU, resident),
        #[cfg(feature = "cuda")]
        "cuda" | "cuda:0" => {
            run::<Autodiff<burn::backend::Cuda>>(&device, task, &Bounds::CUDA, with_card)
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
        Task::All(1) => checks::<B>(&Part::ALL.map(|(part, _)| part), bounds),
        Task::All(jobs) => side_by_side(device, jobs),
        Task::Part(part) => checks::<B>(&[part], bounds),
        Task::Soak(steps) => watched::<B>(steps, memory),
    }
}

/// All parts, each by a process of its own: what takes long on a GPU is to compile kernels, which a process does one after the other.
fn side_by_side(device: &str, jobs: usize) -> ExitCode {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some((_, name)) = Part::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = std::env::current_exe().and_then(|program| {
                Command::new(program)
                    .args([device, "--part", name])
                    .output()
            });
            let (found, holds) = match answer {
                Ok(answer) => (
                    String::from_utf8_lossy(&answer.stdout).into_owned()
                        + &String::from_utf8_lossy(&answer.stderr),
                    answer.status.success(),
                ),
                Err(error) => (format!("cannot be started: {error}"), false),
            };
            println!("{name}:\n{}", found.trim_end());
            failed.fetch_add(usize::from(!holds), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    println!("{} parts, {failed} that fail", Part::ALL.len());
    ExitCode::from(u8::from(failed > 0))
}

/// A training whose memory is watched.
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

/// Memory of this process in MiB; nothing where there is no `/proc`.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Memory of this process in MiB, here and on NVIDIA GPUs; of the first of them whoever uses it, where its driver does not tell processes apart.
#[cfg(feature = "cuda")]
fn with_card() -> Option<f64> {
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
    let of_process: f64 = ask("--query-compute-apps=pid,used_memory")?
        .lines()
        .filter_map(own)
        .sum();
    let taken = if of_process > 0.0 {
        of_process
    } else {
        let of_all = ask("--query-gpu=memory.used")?;
        of_all.lines().next()?.trim().parse().ok()?
    };
    Some(taken + resident()?)
}

/// The checks of some parts, each printed when its part is done.
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
    println!("{all} checks, {failed} that fail");
    ExitCode::from(u8::from(failed > 0))
}
