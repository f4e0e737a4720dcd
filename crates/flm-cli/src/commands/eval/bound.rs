//! How likely models find validation rows.

use crate::args::DeviceArgs;
use crate::commands::data::prepare;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::progress::Progress;
use crate::{stop, table};
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use flm::{LikelihoodOptions, ModelFolder, Observer};
use flm_data::{Dataset, Layout};
use flm_denoiser::Family;
use flm_discrete::Bound;
use flm_eval::Grammar;
use serde::Serialize;
use std::path::Path;
use std::path::PathBuf;

/// Measure the likelihood of validation rows: exact for autoregressive models, a bound for diffusions
///
/// The likelihood of a masked (mdlm) or uniform-state (duo) diffusion has a bound, which is estimated at random times. Figures are
/// nats per token of the text and its end token; a grammar's own figure is the best possible.
#[derive(Debug, Args)]
#[command(after_help = "Example: flm eval bound runs/mdlm runs/duo runs/ar --data data")]
pub(crate) struct BoundArgs {
    /// Model folders or finished runs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<PathBuf>,
    /// Data folder of the models
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Number of validation rows [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<usize>,
    /// Random times per row for a bound
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) draws: usize,
    /// Seed of times and noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report {
    data: String,
    rows: usize,
    /// Tokens of text in these rows, each with its end.
    tokens: usize,
    /// Times at which each row of a diffusion was asked for.
    draws: usize,
    seed: u64,
    dtype: String,
    /// What the distribution of the text says of the same rows, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar_nats_per_token: Option<f64>,
    models: Vec<Likelihood>,
}

/// What one model says.
#[derive(Serialize)]
struct Likelihood {
    model: String,
    family: Family,
    weights: String,
    /// Whether the nats are a bound from above, and not the number itself.
    bound: bool,
    nats_per_token: f64,
    /// Of the choice of rows and, of a bound, of what was drawn; none of a single row.
    std_err: Option<f64>,
    nats_per_text: f64,
}

/// Has every model read the same rows.
pub(crate) fn bound(args: &BoundArgs) -> Result<String> {
    for (option, found) in [("--draws", Some(args.draws)), ("--rows", args.rows)] {
        if found == Some(0) {
            return Err(CliError::input(format!(
                "{option} must be at least 1, found 0"
            )));
        }
    }
    let dataset = Dataset::open(&args.data)?;
    let grammar = prepare::grammar_of(&args.data)?;
    let rows = Rows::read(&dataset, args)?;
    // What cannot be measured is said before anything is.
    let models = (args.models.iter())
        .map(|path| model(path, &dataset, &args.data))
        .collect::<Result<Vec<_>>>()?;
    let mut measured = Vec::new();
    for folder in models {
        let job = BoundJob {
            folder: &folder,
            rows: &rows,
            args,
        };
        let found = device::run(args.device, job)?;
        let texts = Bound::of(&found.nats, 1);
        let per_text = rows.tokens as f64 / rows.rows.len() as f64;
        measured.push(Likelihood {
            model: folder.name().to_owned(),
            family: folder.config().family,
            weights: folder.weights()?,
            bound: found.is_bound,
            nats_per_token: texts.nats / per_text,
            std_err: (texts.texts > 1).then_some(texts.error / per_text),
            nats_per_text: texts.nats,
        });
    }
    let report = Report {
        data: args.data.display().to_string(),
        rows: rows.rows.len(),
        tokens: rows.tokens,
        draws: args.draws,
        seed: args.seed,
        dtype: args.device.dtype.to_string(),
        grammar_nats_per_token: match &grammar {
            // Of a block the distribution knows whole sentences only.
            Some(grammar) if dataset.meta().layout == Layout::Rows => {
                Some(rows.nats_of(grammar, &dataset)? / rows.tokens as f64)
            }
            _ => None,
        },
        models: measured,
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(render(&report))
}

/// A model whose likelihood is known.
fn model(path: &Path, dataset: &Dataset, data: &Path) -> Result<ModelFolder> {
    let folder = ModelFolder::open(path)?;
    if folder.config().family == Family::Flow {
        return Err(CliError::input(format!(
            "{} must be of family mdlm, duo or autoregressive to have a likelihood, found flow",
            path.display()
        )));
    }
    folder.check_fits(dataset.tokenizer(), dataset.meta().length, data)?;
    Ok(folder)
}

/// Rows to be read.
struct Rows {
    rows: Vec<Vec<u32>>,
    /// Tokens that count: of a row of one document those up to its end, of a packed one all.
    tokens: usize,
}

impl Rows {
    fn read(dataset: &Dataset, args: &BoundArgs) -> Result<Self> {
        let split = dataset.validation();
        let count = args.rows.unwrap_or(usize::MAX).min(split.rows());
        if count == 0 {
            return Err(CliError::input(format!(
                "{} has no validation rows",
                args.data.display()
            )));
        }
        let rows = (0..count)
            .map(|row| split.row(row))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let eos = dataset.tokenizer().eos_id();
        let counted = |row: &Vec<u32>| match dataset.meta().layout {
            Layout::Rows => {
                let end = row.iter().position(|&token| token == eos);
                end.map_or(row.len(), |end| end + 1)
            }
            Layout::Packed => row.len(),
        };
        Ok(Self {
            tokens: rows.iter().map(counted).sum(),
            rows,
        })
    }

    /// What the distribution of the text says of all of them together, in nats.
    fn nats_of(&self, grammar: &Grammar, dataset: &Dataset) -> Result<f64> {
        let mut nats = 0.0;
        for row in &self.rows {
            let text = dataset.tokenizer().decode(row)?;
            let words: Vec<&str> = text.split_whitespace().collect();
            nats -= grammar.floored_log_prob(&words);
        }
        Ok(nats)
    }
}

/// Answers for each row with its nats.
struct BoundJob<'a> {
    folder: &'a ModelFolder,
    rows: &'a Rows,
    args: &'a BoundArgs,
}

impl Job for BoundJob<'_> {
    type Output = flm::Likelihood;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<flm::Likelihood> {
        let model = self.folder.clone().load::<B::InnerBackend>(&place.device)?;
        let model = model.with_execution(place.execution);
        let watch = Watch {
            progress: Progress::new("reading", self.rows.rows.len() as u64),
            family: self.folder.config().family,
        };
        let options = LikelihoodOptions {
            draws: self.args.draws,
            seed: self.args.seed,
        };
        Ok(model.likelihood(&self.rows.rows, options, &watch)?)
    }
}

struct Watch {
    progress: Progress,
    family: Family,
}

impl<B: Backend> Observer<B> for Watch {
    fn progress(&self, done: usize, _total: usize) {
        self.progress.update(done as u64, self.family.name());
    }

    fn is_cancelled(&self) -> bool {
        stop::asked()
    }
}

/// The report in text.
fn render(report: &Report) -> String {
    let header = ["model", "family", "nats/tok", "±", "nats/text"];
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    for found in &report.models {
        let most = if found.bound { "≤ " } else { "" };
        lines.push(vec![
            found.model.clone(),
            found.family.to_string(),
            format!("{most}{:.3}", found.nats_per_token),
            table::optional(found.std_err, 3),
            format!("{most}{:.2}", found.nats_per_text),
        ]);
    }
    if let Some(nats) = report.grammar_nats_per_token {
        let of_text = nats * report.tokens as f64 / report.rows as f64;
        lines.push(vec![
            "the grammar".to_owned(),
            "-".to_owned(),
            format!("{nats:.3}"),
            "-".to_owned(),
            format!("{of_text:.2}"),
        ]);
    }
    format!(
        "{}{} validation rows of {}, {} tokens\n",
        table::aligned(&lines),
        report.rows,
        report.data,
        report.tokens
    )
}
