//! Experiments that write a page of the book: `cargo xtask pipeline distillations`, `… headline`, `… lm1b`, `… openwebtext`.
//!
//! A pipeline is a table of commands of the program `flm`, so every one of them can be typed. The same command resumes an
//! interrupted pipeline and runs only what is missing or changed.

mod compare;
mod distillations;
mod headline;
mod perfect;
mod picture;
mod published;
mod report;
pub(crate) mod runner;
mod study;

use anyhow::Context;
use runner::Runner;
use std::fs;
use std::path::{Path, PathBuf};

/// An experiment.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Compare every way to distill a flow map, from one teacher and at equal evaluations
    Distillations(Arguments),
    /// Compare flows and flow maps with discrete diffusion and autoregression, at equal evaluations
    Headline(Box<headline::Arguments>),
    /// Reproduce LM1B as published: fetch, prepare, train, distill, sample, score
    Lm1b(published::Arguments),
    /// Reproduce OpenWebText as published: fetch, prepare, train, distill, sample, score
    Openwebtext(published::Arguments),
    /// Render all pages again from their numbers, without running anything
    Pages {
        /// Folder of the pages
        #[arg(long, value_name = "DIR", default_value = "docs/results")]
        results: PathBuf,
    },
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of runs and samples; the same command resumes there
    #[arg(long, value_name = "DIR", default_value = "runs/distillations")]
    out: PathBuf,
    /// Folder of the page, its picture and its numbers
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    results: PathBuf,
    /// Network evaluations of each distillation; a backward pass counts as two
    #[arg(long, value_name = "N", default_value_t = 194_400)]
    evaluations: u64,
    /// Seeds of the distillations
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Run only trainings whose name contains this; the page shows what is finished
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
    /// Run everything at the smallest size in a temporary folder
    #[arg(long)]
    smoke: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    let program = |flm: &Option<PathBuf>| flm.clone().map_or_else(build, Ok);
    match command {
        Command::Distillations(arguments) if arguments.smoke => {
            smoke_distillations(program(&arguments.flm)?)
        }
        Command::Distillations(arguments) => {
            let runner = Runner {
                program: program(&arguments.flm)?,
                out: arguments.out.clone(),
                jobs: 1,
            };
            let seeds = arguments.seeds.clone();
            let study = distillations::study(arguments.evaluations, seeds, false);
            let found = study.run(&runner, &arguments.only)?;
            report::publish(
                &study.table,
                &found,
                &arguments.results,
                study.table.pipeline,
            )
        }
        Command::Headline(arguments) => headline::run(arguments),
        Command::Lm1b(arguments) => published::run(&published::LM1B, arguments),
        Command::Openwebtext(arguments) => published::run(&published::OPENWEBTEXT, arguments),
        Command::Pages { results } => pages(results),
    }
}

/// Runs the smallest pipelines with a program that is there, in temporary folders.
pub(crate) fn smoke(flm: PathBuf) -> anyhow::Result<()> {
    published::smoke(&published::LM1B, flm.clone())?;
    headline::smoke(flm.clone())?;
    smoke_distillations(flm)
}

fn smoke_distillations(program: PathBuf) -> anyhow::Result<()> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let runner = Runner {
        program,
        out: home.path().join("runs"),
        jobs: 1,
    };
    let study = distillations::study(60, vec![0], true);
    let found = study.run(&runner, "")?;
    report::publish(&study.table, &found, home.path(), study.table.pipeline)
}

/// Renders the page of each file of numbers.
fn pages(folder: &Path) -> anyhow::Result<()> {
    let list = || format!("cannot list {}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(list)?
        .map(|entry| Ok(entry.with_context(list)?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    for file in files {
        let distills = file.file_stem().is_some_and(|stem| stem == "distillations");
        let table = match distills {
            true => distillations::study(0, vec![0], false).table,
            false => headline::table(),
        };
        report::again(&table, &file)?;
    }
    Ok(())
}

/// Builds `flm` for release and returns its path.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "--locked", "--bin", "flm"];
    duct::cmd(cargo, build).run().context("flm did not build")?;
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    Ok(metadata.target_directory.join("release/flm").into())
}
