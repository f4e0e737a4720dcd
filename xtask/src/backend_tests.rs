//! The checks of any backend, on one: `cargo xtask backend-tests --device D`.

use anyhow::{Context, ensure};
use std::process::Command;

/// Where to check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// cpu, wgpu or cuda:0
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    on(&arguments.device)
}

/// Builds the checks for a device and runs them there.
pub(crate) fn on(device: &str) -> anyhow::Result<()> {
    let feature = device.split(':').next().unwrap_or_default();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--locked", "--quiet"])
        .args(["--package", "flm-tests", "--example", "backend"])
        .args((feature != "cpu").then(|| format!("--features={feature}")))
        .args(["--", device])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "not every check holds on {device}");
    Ok(())
}
