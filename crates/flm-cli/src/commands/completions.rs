//! The `flm completions` command.

use super::{Cli, print};
use crate::error::Result;
use clap::{Args, CommandFactory};

/// Print shell completions
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "flm", &mut script);
    print(&String::from_utf8_lossy(&script))
}
