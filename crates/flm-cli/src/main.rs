//! The `flm` command line.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the crate that prints to the terminal"
)]

mod args;
mod command_line;
mod commands;
mod config;
mod curve;
mod device;
mod error;
mod files;
mod plot;
mod presets;
mod progress;
mod purpose;
mod run;
mod stop;
mod table;

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    flm_alloc::keep_memory();
    let cli = commands::Cli::parse();
    // Drivers also log the errors that they return. Only this project's warnings are shown unless
    // `RUST_LOG` is set.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("off,flm_data=warn,flm_files=warn,flm_server=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    // A server handles signals itself.
    if !matches!(cli.command, commands::Command::Serve(_)) {
        stop::listen();
    }
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_interruption() => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
