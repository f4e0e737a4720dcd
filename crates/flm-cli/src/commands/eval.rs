//! The `flm eval` commands.

mod bound;
mod controls;
mod figures;
mod frontier;
mod infill;
mod perfect;
mod score;

use super::print;
use crate::error::{CliError, Result};
use clap::{Args, Subcommand};
use flm_data::{Dataset, DatasetMeta, Layout, META_FILE};
use flm_denoiser::Precision;
use flm_study::{Evaluation, Samples, TextSet, is_json_lines};
use score::Judges;
use score::ScoreArgs;
use std::path::{Path, PathBuf};

/// Evaluate samples: grammar validity, perplexity, entropy and diversity
///
/// A scorer is a model that reads the samples: GPT-2 or a Llama model (a folder with
/// tokenizer.json, or a GGUF file), an autoregressive model of flm, or an n-gram model of a data
/// folder's training rows, `ngram:DATA` or `ngram:DATA:ORDER`. For a data folder its validation
/// rows are evaluated, as a reference for samples.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_long_help = "Examples:
  flm eval quickstart/samples --data quickstart/data
  flm eval quickstart/data
  flm eval samples.jsonl --scorer gpt2-large --scorer runs/ar --scorer ngram:data:4
  flm eval samples.jsonl --data data --scorer SmolLM2-135M-Instruct.Q4_1.gguf --mauve"
)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// A file of samples, a folder of them, or a data folder
    ///
    /// A .jsonl file of `flm sample`, or a text file with one sample per line.
    #[arg(value_name = "SAMPLES", required = true)]
    pub(crate) samples: Option<PathBuf>,
    /// Data folder of the model
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Report the longest run of tokens shared with a training row
    ///
    /// Compare with `flm eval DATA --copying`.
    #[arg(long, hide_short_help = true)]
    pub(crate) copying: bool,
    /// Report MAUVE: similarity to the validation rows of --data
    ///
    /// In the features of the pretrained scorers.
    #[arg(long)]
    pub(crate) mauve: bool,
    #[command(flatten)]
    pub(crate) score: ScoreArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    Frontier(Box<frontier::FrontierArgs>),
    Bound(bound::BoundArgs),
    Infill(infill::InfillArgs),
    Perfect(perfect::PerfectArgs),
    Controls(controls::ControlsArgs),
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.command {
        Some(EvalCommand::Frontier(args)) => return print(&frontier::frontier(args)?),
        Some(EvalCommand::Bound(args)) => return print(&bound::bound(args)?),
        Some(EvalCommand::Infill(args)) => return print(&infill::infill(args)?),
        Some(EvalCommand::Perfect(args)) => return print(&perfect::perfect(args)?),
        Some(EvalCommand::Controls(args)) => {
            let written = controls::controls(args)?;
            let line = |path: PathBuf| format!("{}\n", path.display());
            return print(&written.into_iter().map(line).collect::<String>());
        }
        None => {}
    }
    if args.score.device.dtype != Precision::F32 {
        return Err(CliError::input(format!(
            "--dtype {} is unsupported for evaluation: scorers compute in f32",
            args.score.device.dtype
        )));
    }
    let samples = args.samples.as_ref().expect("clap requires it");
    let asked = Asked {
        copying: args.copying,
        mauve: args.mauve,
    };
    let judged = eval(samples, args.data.as_deref(), asked, &args.score)?;
    if args.json {
        return print(&(serde_json::to_string_pretty(&judged)? + "\n"));
    }
    print(&figures::figures(&judged))
}

/// The metrics to compute in addition to scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The longest run that each sample shares with a training row.
    pub(crate) copying: bool,
    /// MAUVE of the samples and validation rows.
    pub(crate) mauve: bool,
}

/// Evaluates the sample files at `path`, or the validation rows if it is a data folder.
pub(crate) fn eval(
    path: &Path,
    data: Option<&Path>,
    asked: Asked,
    score: &ScoreArgs,
) -> Result<Vec<Evaluation>> {
    // An invalid data folder is an error even if its grammar is not needed.
    let layout = match data {
        Some(data) => Some(DatasetMeta::read(data)?.layout),
        None => None,
    };
    let own = path.join(META_FILE).is_file();
    let grammar = match data.or(own.then_some(path)) {
        Some(data) => flm_study::grammar_of(data)?,
        None => None,
    };
    let (mut judged, mut all) = (Vec::new(), Vec::new());
    let mut take = |name: String, samples: Samples| {
        judged.push(Evaluation::of(name, &samples, grammar.as_ref())?);
        all.push(samples);
        Ok::<_, CliError>(())
    };
    if own {
        take("validation rows".to_owned(), Samples::validation(path)?)?;
    } else {
        for path in Samples::files(path)? {
            if layout == Some(Layout::Packed) && !is_json_lines(&path) {
                return Err(CliError::input(format!(
                    "{} must be a .jsonl file: texts of packed blocks may have several lines",
                    path.display()
                )));
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            take(name.into_owned(), Samples::read(&path)?)?;
        }
    }
    if asked.mauve && own {
        return Err(CliError::input(
            "--mauve compares samples with validation rows: pass samples, and the data folder with --data",
        ));
    }
    let compared = match (asked.mauve, data) {
        (true, None) => {
            return Err(CliError::input(
                "--mauve compares samples with validation rows: pass the data folder with --data",
            ));
        }
        (true, data) => data,
        (false, _) => None,
    };
    let sets: Vec<TextSet<'_>> = all.iter().map(Samples::set).collect();
    let judges = Judges::open(score)?;
    if asked.mauve && !judges.have_features() {
        return Err(CliError::input(
            "--mauve needs the features of a pretrained network: pass a folder of GPT-2 or Llama, or a GGUF file, with --scorer",
        ));
    }
    for (judged, scores) in judged.iter_mut().zip(judges.score(&sets)?) {
        judged.scores = scores;
    }
    if let Some(data) = compared {
        let text = Samples::validation(data)?;
        let found = flm_study::mauve(&all, text, |lists| judges.features(lists))?;
        for (judged, found) in judged.iter_mut().zip(found) {
            judged.mauve = found;
        }
    }
    if asked.copying {
        let data = data.or(own.then_some(path)).ok_or_else(|| {
            CliError::input(
                "--copying compares with training rows: pass the data folder with --data",
            )
        })?;
        let dataset = Dataset::open(data)?;
        for (judged, samples) in judged.iter_mut().zip(&all) {
            judged.measure_copying(samples, &dataset)?;
        }
    }
    Ok(judged)
}
