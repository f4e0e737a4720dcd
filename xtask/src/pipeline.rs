//! Experiments that write a page of the book: `cargo xtask pipeline distillations`, `… headline`, `… lm1b`, `… openwebtext`.
//!
//! A pipeline drives the program `flm` and nothing else, so whatever it does can be typed. It goes on where it was stopped: what
//! is finished is not done again.

mod distillations;
pub(crate) mod flm;
mod headline;
mod picture;
mod published;
mod report;
mod runs;

use anyhow::{Context, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

/// An experiment.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Every way to distill a flow map, from one teacher and at equal evaluations of the network.
    Distillations(Arguments),
    /// Flows and flow maps beside discrete diffusion and autoregression, at equal evaluations of the network.
    Headline(Box<headline::Arguments>),
    /// LM1B as published: fetch, prepare, train, distill, sample, score.
    Lm1b(published::Arguments),
    /// OpenWebText as published: fetch, prepare, train, distill, sample, score.
    Openwebtext(published::Arguments),
}

/// What every pipeline is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where runs and samples go; an earlier pipeline there is gone on with
    #[arg(long, value_name = "DIR", default_value = "runs/distillations")]
    pub(crate) out: PathBuf,
    /// Where the page, its picture and its numbers go
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    pub(crate) results: PathBuf,
    /// Evaluations of the network that each distillation may spend, a pass back counting as two
    #[arg(long, value_name = "N", default_value_t = 194_400)]
    pub(crate) evaluations: u64,
    /// Seeds of the distillations
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [0, 1, 2])]
    pub(crate) seeds: Vec<u64>,
    /// Only runs whose name contains this; the page is written of what is finished
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) flm: Option<PathBuf>,
    /// Everything at the smallest size and in a temporary folder, to see that it runs
    #[arg(long)]
    pub(crate) smoke: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Distillations(arguments) if arguments.smoke => {
            smallest_distillations(match &arguments.flm {
                Some(program) => program.clone(),
                None => build()?,
            })
        }
        Command::Distillations(arguments) => distillations::run(arguments),
        Command::Headline(arguments) => headline::run(arguments),
        Command::Lm1b(arguments) => published::run(&published::LM1B, arguments),
        Command::Openwebtext(arguments) => published::run(&published::OPENWEBTEXT, arguments),
    }
}

/// The smallest pipelines with a program that is there, results beside their runs, in folders that are removed.
pub(crate) fn smoke(flm: PathBuf) -> anyhow::Result<()> {
    published::smoke(&published::LM1B, flm.clone())?;
    headline::smoke(flm.clone())?;
    smallest_distillations(flm)
}

fn smallest_distillations(flm: PathBuf) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("flm-smoke-{}", std::process::id()));
    let done = distillations::run(&Arguments {
        out: folder.join("runs"),
        results: folder.join("results"),
        evaluations: 0,
        seeds: vec![0],
        only: String::new(),
        flm: Some(flm),
        smoke: true,
    });
    // Whatever happened: it is of no use to anyone.
    let _ = fs::remove_dir_all(&folder);
    done
}

/// Builds `flm` as it is released and says where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Process::new(cargo)
        .args(["build", "--release", "--locked", "--bin", "flm"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "flm did not build");
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    Ok(metadata.target_directory.join("release/flm").into())
}

/// Writes a file beside its place and moves it there.
fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    let say = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(say)?;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    fs::write(&aside, content).with_context(say)?;
    fs::rename(&aside, path).with_context(say)
}
