//! The `flm man` command.

use super::Cli;
use crate::error::{CliError, Result};
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Write manual pages
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Output folder
    #[arg(value_name = "DIR")]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &ManArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out).map_err(CliError::io("create", &args.out))?;
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(CliError::io("write", &args.out))
}
