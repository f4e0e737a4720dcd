//! Likelihoods of validation rows under models.

use crate::args::DeviceArgs;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::progress::Progress;
use crate::{stop, table};
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use flm::{LikelihoodOptions, ModelFolder, Observer};
use flm_data::Dataset;
use flm_denoiser::Family;
use flm_study::{RowLikelihood, ValidationRows};
use serde::Serialize;
use std::path::PathBuf;

/// Measure the likelihood of validation rows: exact for autoregressive models, a bound for
/// diffusions
///
/// The likelihood of a masked (mdlm) or uniform-state (duo) diffusion has a bound, which is
/// estimated at random times. Figures are nats per token of the text and its end token; a grammar's
/// own figure is the best possible.
#[derive(Debug, Args)]
#[command(after_long_help = "Example: flm eval bound runs/mdlm runs/duo runs/ar --data data")]
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

/// The report, printed as JSON or as a table.
#[derive(Serialize)]
struct Report {
    data: String,
    rows: usize,
    /// Number of counted tokens: text and end tokens.
    tokens: usize,
    /// Random times per row for a bound.
    draws: usize,
    seed: u64,
    dtype: String,
    /// Nats per token of the same rows under the grammar, if the data has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar_nats_per_token: Option<f64>,
    models: Vec<RowLikelihood>,
}

/// Measures the likelihood of the same rows under every model.
pub(crate) fn bound(args: &BoundArgs) -> Result<String> {
    for (option, found) in [("--draws", Some(args.draws)), ("--rows", args.rows)] {
        if found == Some(0) {
            return Err(CliError::input(format!(
                "{option} must be at least 1, found 0"
            )));
        }
    }
    let dataset = Dataset::open(&args.data)?;
    let grammar = flm_study::grammar_of(&args.data)?;
    let rows = ValidationRows::read(&dataset, args.rows, &args.data)?;
    // All models are checked before the first is measured.
    let models = (args.models.iter())
        .map(|path| RowLikelihood::open(path, &dataset, &args.data))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let measured = models.into_iter().map(|folder| {
        let rows = &rows;
        device::run(args.device, BoundJob { folder, rows, args })
    });
    let report = Report {
        data: args.data.display().to_string(),
        rows: rows.rows().len(),
        tokens: rows.tokens(),
        draws: args.draws,
        seed: args.seed,
        dtype: args.device.dtype.to_string(),
        models: measured.collect::<Result<_>>()?,
        grammar_nats_per_token: match &grammar {
            Some(grammar) => rows.grammar_nats(grammar, &dataset)?,
            None => None,
        },
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(render(&report))
}

/// Measures the rows under a model.
struct BoundJob<'a> {
    folder: ModelFolder,
    rows: &'a ValidationRows,
    args: &'a BoundArgs,
}

impl Job for BoundJob<'_> {
    type Output = RowLikelihood;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<RowLikelihood> {
        let watch = Watch {
            progress: Progress::new("reading", self.rows.rows().len() as u64),
            family: self.folder.config().family,
        };
        let model = self.folder.load::<B::InnerBackend>(&place.device)?;
        let model = model.with_execution(place.execution);
        let options = LikelihoodOptions {
            draws: self.args.draws,
            seed: self.args.seed,
        };
        Ok(RowLikelihood::measure(&model, self.rows, options, &watch)?)
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

/// Formats the report as text.
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
