//! Backend checks on a device: `cargo xtask backend-tests --device D`.

use anyhow::{Context, ensure};
use std::num::NonZeroUsize;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Device: cpu, wgpu or cuda:0
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Train for this many steps instead, and fail if memory grows in the second half
    #[arg(long, value_name = "STEPS")]
    soak: Option<u64>,
    /// Parts of the checks at a time, of seven, each in its own process
    #[arg(long, default_value = "1", conflicts_with = "soak")]
    jobs: NonZeroUsize,
}

/// Work on a device.
pub(crate) enum Task {
    /// Every check, in this many processes.
    Checks(NonZeroUsize),
    /// A training of this many steps that watches memory.
    Soak(u64),
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let task = match arguments.soak {
        None => Task::Checks(arguments.jobs),
        Some(steps) => Task::Soak(steps),
    };
    on(&arguments.device, &task)
}

/// Builds the checks for a device and runs the task.
pub(crate) fn on(device: &str, task: &Task) -> anyhow::Result<()> {
    let feature = device.split(':').next().unwrap_or_default();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let (option, number, what) = match task {
        Task::Checks(jobs) => ("--jobs", jobs.to_string(), "not every check holds"),
        Task::Soak(steps) => ("--soak", steps.to_string(), "the training did not pass"),
    };
    let status = Command::new(cargo)
        .args(["run", "--release", "--locked", "--quiet"])
        .args(["--package", "flm-tests", "--example", "backend"])
        .args((feature != "cpu").then(|| format!("--features={feature}")))
        .args(["--", device, option, &number])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "{what} on {device}: see above");
    Ok(())
}
