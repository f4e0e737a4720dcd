//! Every golden check: `cargo xtask parity DIR`.

use crate::pipeline;
use anyhow::{Context, ensure};
use std::path::PathBuf;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A folder laid out like the published fixtures: `model/` with checkpoints and pinned tensors
    #[arg(value_name = "DIR", default_value = "../shared/parity")]
    folder: PathBuf,
    /// An `flm` to convert with, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let flm = match &arguments.flm {
        Some(program) => program.clone(),
        None => pipeline::build()?,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--locked", "--quiet"])
        .args(["--package", "flm-tests", "--example", "parity", "--"])
        .args([&arguments.folder, &flm])
        .status()
        .context("cannot start cargo")?;
    ensure!(
        status.success(),
        "not everything in {} agrees",
        arguments.folder.display()
    );
    Ok(())
}
