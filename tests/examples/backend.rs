//! The checks of [`flm_tests::backend`] on a device, `cargo xtask backend-tests --device D`, or with a number of steps behind it a
//! training whose memory is watched, `cargo xtask backend-tests --device D --soak N`.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, lines, soak};
use flm_tests::parity::Source;
use std::process::ExitCode;

fn main() -> ExitCode {
    let device = std::env::args().nth(1).unwrap_or_else(|| "cpu".to_owned());
    match device.as_str() {
        "cpu" => run::<Autodiff<Flex>>(&Bounds::SINGLE, resident),
        #[cfg(feature = "wgpu")]
        "wgpu" => run::<Autodiff<burn::backend::Wgpu>>(&Bounds::WGPU, resident),
        #[cfg(feature = "cuda")]
        "cuda" | "cuda:0" => run::<Autodiff<burn::backend::Cuda>>(&Bounds::CUDA, with_card),
        other => {
            println!("built without the device `{other}`: build with --features wgpu,cuda");
            ExitCode::from(2)
        }
    }
}

fn run<B: AutodiffBackend>(bounds: &Bounds, memory: fn() -> Option<f64>) -> ExitCode {
    let steps = std::env::args().nth(2).map(|steps| steps.parse());
    match steps {
        None => checks::<B>(bounds),
        Some(Ok(steps)) => watched::<B>(steps, memory),
        Some(Err(error)) => {
            println!("a number of steps is expected behind the device: {error}");
            ExitCode::from(2)
        }
    }
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

/// Memory of this process and of the first NVIDIA GPU in MiB.
#[cfg(feature = "cuda")]
fn with_card() -> Option<f64> {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    let answer = std::process::Command::new("nvidia-smi")
        .args(query)
        .output()
        .ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let taken: f64 = text.lines().next()?.trim().parse().ok()?;
    Some(taken + resident()?)
}

/// All checks.
fn checks<B: AutodiffBackend>(bounds: &Bounds) -> ExitCode {
    match lines::<B>(&Source::golden(), bounds) {
        Ok(lines) => {
            for line in &lines {
                println!("{line}");
            }
            let failed = lines.iter().filter(|line| !line.holds()).count();
            println!("{} checks, {failed} that fail", lines.len());
            ExitCode::from(u8::from(failed > 0))
        }
        Err(message) => {
            println!("{message}");
            ExitCode::from(2)
        }
    }
}
