//! Development pipelines: `cargo xtask ci`, `cargo xtask bench`, `cargo xtask pipeline`.
#![allow(clippy::print_stdout, reason = "a command line tool")]

mod architecture;
mod backend_tests;
mod bench;
mod bench_data;
mod book;
mod ci;
mod denoising;
mod parity;
mod pipeline;
mod words;

use clap::Parser;

/// Development pipelines of flm.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Run every check that must hold before a change lands.
    Ci(ci::Arguments),
    /// Check that crates depend on each other only in the direction of docs/internals/architecture.md.
    Architecture,
    /// Time our work, and PyTorch's beside it.
    Bench(bench::Arguments),
    /// Time how text becomes token rows, and Python's way beside it.
    BenchData(bench_data::Arguments),
    /// Check that a backend computes what it should.
    BackendTests(backend_tests::Arguments),
    /// Compare everything with the published implementation's own numbers.
    Parity(parity::Arguments),
    /// Draw an animated picture of denoising from traces.
    Denoising(denoising::Arguments),
    /// Build the book: generate its reference pages, check it, and write HTML.
    Book(book::Arguments),
    /// Check spelling and wording.
    Words,
    /// Run an experiment and write its page.
    #[command(subcommand)]
    Pipeline(pipeline::Command),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Architecture => architecture::check(),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::BenchData(arguments) => bench_data::run(&arguments),
        Command::BackendTests(arguments) => backend_tests::run(&arguments),
        Command::Parity(arguments) => parity::run(&arguments),
        Command::Denoising(arguments) => denoising::run(&arguments),
        Command::Book(arguments) => book::run(&arguments),
        Command::Words => words::check(),
        Command::Pipeline(command) => pipeline::run(&command),
    }
}
