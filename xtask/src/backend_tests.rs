//! The checks of any backend, on one: `cargo xtask backend-tests --device D`.

use anyhow::{Context, ensure};
use std::num::NonZeroUsize;
use std::process::Command;

/// Where to check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// cpu, wgpu or cuda:0
    #[arg(long, default_value = "cpu")]
    device: String,
    /// In place of the checks train for so many steps, and fail if memory still grows in the second half
    #[arg(long, value_name = "STEPS")]
    soak: Option<u64>,
    /// So many parts of the checks at a time, each by a process of its own: on a GPU most of the time goes into compiling kernels
    #[arg(long, default_value = "1", conflicts_with = "soak")]
    jobs: NonZeroUsize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    on(&arguments.device, arguments.soak, arguments.jobs.get())
}

/// Builds the checks for a device and runs them there, so many at a time, or a training of so many steps.
pub(crate) fn on(device: &str, soak: Option<u64>, jobs: usize) -> anyhow::Result<()> {
    let feature = device.split(':').next().unwrap_or_default();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--locked", "--quiet"])
        .args(["--package", "flm-tests", "--example", "backend"])
        .args((feature != "cpu").then(|| format!("--features={feature}")))
        .args(["--", device])
        .args(match soak {
            None => ["--jobs".to_owned(), jobs.to_string()],
            Some(steps) => ["--soak".to_owned(), steps.to_string()],
        })
        .status()
        .context("cannot start cargo")?;
    let what = match soak {
        None => "not every check holds",
        Some(_) => "the training did not pass",
    };
    ensure!(status.success(), "{what} on {device}: see above");
    Ok(())
}
