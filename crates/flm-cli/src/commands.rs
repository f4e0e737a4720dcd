//! The subcommands, one file each.

pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod distill;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod presets;
pub(crate) mod quickstart;
pub(crate) mod sample;
pub(crate) mod serve;
pub(crate) mod trace;
pub(crate) mod train;
pub(crate) mod train_reward;
pub(crate) mod watch;

use crate::command_line::CommandLine;
use crate::error::{CliError, Result};
use clap::{Parser, Subcommand};
use std::io::Write;

/// Trains, distills and samples continuous flow language models.
#[derive(Debug, Parser)]
#[command(
    name = "flm",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quickstart(quickstart::QuickstartArgs),
    /// Prepare and inspect data: text becomes rows of tokens
    #[command(subcommand)]
    Data(data::DataCommand),
    Train(train::TrainArgs),
    Distill(distill::DistillArgs),
    TrainReward(train_reward::TrainRewardArgs),
    Sample(Box<sample::SampleArgs>),
    Serve(serve::ServeArgs),
    Watch(watch::WatchArgs),
    /// Render traces of denoising
    #[command(subcommand)]
    Trace(trace::TraceCommand),
    Eval(eval::EvalArgs),
    Convert(convert::ConvertArgs),
    Inspect(inspect::InspectArgs),
    Presets(presets::PresetsArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
}

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Result<()> {
    let resumable = |error: CliError| error.or_resume(&CommandLine::current());
    match command {
        Command::Quickstart(args) => quickstart::run(&args).map_err(resumable),
        Command::Data(command) => data::run(command),
        Command::Train(args) => train::run(args).map_err(resumable),
        Command::Distill(args) => distill::run(args).map_err(resumable),
        Command::TrainReward(args) => print(&train_reward::train(&args)?),
        Command::Sample(args) => sample::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Trace(command) => trace::run(&command),
        Command::Eval(args) => eval::run(&args),
        Command::Convert(args) => print(&convert::convert(&args)?),
        Command::Inspect(args) => print(&inspect::inspect(&args.path, args.tensors)?),
        Command::Presets(args) => presets::run(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Writes to standard output. A closed pipe is not an error.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::input(
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}
