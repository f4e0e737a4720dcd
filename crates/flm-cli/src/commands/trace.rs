//! The `flm trace` command.

mod picture;

use crate::error::{CliError, Result};
use crate::files;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Render traces of `flm sample --trace`
#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    Render(RenderArgs),
}

/// Draw traces as a page (.html) or an animated picture (.svg)
///
/// The page has a slider over steps and the likeliest tokens of each position. The picture shows one
/// panel per trace.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm sample --model quickstart/flm --steps 8 --trace flow.json
  flm trace render flow.json --out flow.html
  flm trace render flow.json map.json --samples 6 --out denoising.svg")]
pub(crate) struct RenderArgs {
    /// Trace files
    #[arg(required = true, value_name = "TRACE.json")]
    traces: Vec<PathBuf>,
    /// Samples per trace
    #[arg(long, value_name = "N", default_value_t = 4)]
    samples: usize,
    /// Output file, .html or .svg
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

/// The part of a trace that a picture shows.
#[derive(Deserialize)]
struct Sample {
    text: String,
    model: String,
    steps: usize,
    trace: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    positions: Vec<Vec<Token>>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    probability: f64,
}

pub(crate) fn run(command: &TraceCommand) -> Result<()> {
    let TraceCommand::Render(args) = command;
    files::free(&args.out, args.force)?;
    let traces = args.traces.iter().map(|path| read(path, args.samples));
    let traces: Vec<Vec<Value>> = traces.collect::<Result<_>>()?;
    let content = match args
        .out
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("html") => flm_server::trace_page(&Value::Array(traces.concat())),
        Some("svg") => {
            let panels = traces.iter().zip(&args.traces).map(|(samples, path)| {
                let samples = samples.iter().map(Sample::deserialize);
                samples
                    .collect::<std::result::Result<Vec<_>, _>>()
                    .map_err(not_a_trace(path))
            });
            picture::draw(&panels.collect::<Result<Vec<_>>>()?)
        }
        _ => {
            return Err(CliError::input(format!(
                "{} must end in .html or .svg",
                args.out.display()
            )));
        }
    };
    files::write(&args.out, content.as_bytes())
}

/// Reads the first samples of a trace.
fn read(path: &Path, count: usize) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).map_err(CliError::io("read", path))?;
    let mut trace: Value = serde_json::from_str(&text).map_err(not_a_trace(path))?;
    let Some(Value::Array(samples)) = trace.get_mut("samples").map(Value::take) else {
        return Err(CliError::input(format!(
            "{} is not a trace: it has no list `samples`",
            path.display()
        )));
    };
    if count == 0 || samples.len() < count {
        return Err(CliError::input(format!(
            "{} has {} samples, --samples is {count}",
            path.display(),
            samples.len()
        )));
    }
    Ok(samples.into_iter().take(count).collect())
}

fn not_a_trace(path: &Path) -> impl Fn(serde_json::Error) -> CliError + '_ {
    move |error| CliError::input(format!("{} is not a trace: {error}", path.display()))
}
