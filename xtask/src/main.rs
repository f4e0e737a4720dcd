//! Development pipelines: `cargo xtask ci`, `cargo xtask bench`, `cargo xtask pipeline`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod architecture;
mod backend_tests;
mod bench;
mod bench_data;
mod book;
mod ci;
mod figures;
mod page;
mod parity;
mod pipeline;
mod words;

use clap::Parser;
use std::process::ExitCode;

/// Development pipelines of flm.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Run every check that must hold before a change lands.
    Ci(ci::Arguments),
    /// Check dependencies between crates and modules.
    Architecture,
    /// Run the benchmarks next to PyTorch.
    Bench(bench::Arguments),
    /// Time data preparation next to Python.
    BenchData(bench_data::Arguments),
    /// Run the backend checks on a device.
    BackendTests(backend_tests::Arguments),
    /// Compare with the published implementation's numbers.
    Parity(parity::Arguments),
    /// Build the book: generate its reference pages, check it, and write HTML.
    Book(book::Arguments),
    /// Check spelling and wording.
    Words,
    /// Build the web page and test it in Chromium (needs npm and /usr/bin/chromium).
    Page(page::Arguments),
    /// Draw the figures of the book and the README.
    Figures,
    /// Run an experiment and write its page.
    #[command(subcommand)]
    Pipeline(pipeline::Command),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Architecture => architecture::check(),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::BenchData(arguments) => bench_data::run(&arguments),
        Command::BackendTests(arguments) => backend_tests::run(&arguments),
        Command::Parity(arguments) => parity::run(&arguments),
        Command::Book(arguments) => book::run(&arguments),
        Command::Words => words::check(),
        Command::Page(arguments) => page::run(&arguments),
        Command::Figures => figures::run(),
        Command::Pipeline(command) => pipeline::run(&command),
    }
}
