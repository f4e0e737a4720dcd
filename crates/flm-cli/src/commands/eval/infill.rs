//! Infilling of holes in validation rows.

mod report;

use crate::args::DeviceArgs;
use crate::args::check_gammas;
use crate::commands::sample;
use crate::error::{CliError, Result};
use clap::Args;
use flm::{Conditioning, ModelFolder, Record, SampleOptions};
use flm_data::{Dataset, Layout};
use flm_denoiser::Family;
use flm_study::{Holes, Sentences};
use report::{Measured, Report};
use std::path::Path;
use std::path::PathBuf;

/// Fill holes in validation rows, and compare with the original and with rejection sampling
///
/// A span of tokens is removed from each row; the rest is known. The table has the share of exact
/// fills, of valid sentences and of distinct fills. For comparison, rejection sampling keeps
/// unconditional samples that agree with the known part.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example: flm eval infill runs/flm runs/fmlm runs/mdlm --data data --span 1,3,5 --steps 1,4,16"
)]
pub(crate) struct InfillArgs {
    /// Model folders or finished runs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<PathBuf>,
    /// Data folder of the models
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Tokens per hole
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 3, 5])]
    pub(crate) span: Vec<usize>,
    /// Numbers of steps; an autoregressive model takes one per token
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 4, 16])]
    pub(crate) steps: Vec<usize>,
    /// Validation rows with a hole
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(crate) count: usize,
    /// Unconditional samples for a comparison with rejection sampling
    #[arg(long, default_value_t = 0, value_name = "N", hide_short_help = true)]
    pub(crate) rejection_samples: usize,
    /// Noise added back after each jump of a flow map
    #[arg(long, default_value_t = 0.0, value_name = "G", hide_short_help = true)]
    pub(crate) gamma: f64,
    /// Softmax temperature
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Seed of holes and noise
    #[arg(long, default_value_t = 0, value_name = "N", hide_short_help = true)]
    pub(crate) seed: u64,
    /// Batch size; affects speed only
    #[arg(long, default_value_t = 50, value_name = "N", hide_short_help = true)]
    pub(crate) batch: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Fills the same holes with every model.
pub(crate) fn infill(args: &InfillArgs) -> Result<String> {
    check(args)?;
    let dataset = Dataset::open(&args.data)?;
    let grammar = flm_study::grammar_of(&args.data)?;
    // The grammar scores whole sentences, which packed blocks can cut.
    let grammar = grammar.filter(|_| dataset.meta().layout == Layout::Rows);
    let distribution = Sentences {
        grammar: grammar.as_ref(),
        tokenizer: dataset.tokenizer(),
    };
    let holes = (args.span.iter())
        .map(|&span| {
            let data = args.data.display().to_string();
            Ok(Holes::dig(&dataset, &data, span, (args.count, args.seed))?)
        })
        .collect::<Result<Vec<_>>>()?;
    // All models are checked before the first is measured.
    let models = (args.models.iter())
        .map(|path| model(path, &dataset, &args.data))
        .collect::<Result<Vec<_>>>()?;
    check_gammas(&[args.gamma], &models)?;
    let mut measured = Vec::new();
    for model in &models {
        let network = model.config();
        let steps = match network.family {
            Family::Autoregressive => vec![None],
            _ => args.steps.iter().copied().map(Some).collect(),
        };
        for steps in steps {
            let drawn = draw(args, model, steps, &holes)?;
            let free = drawn.last().filter(|_| args.rejection_samples > 0);
            for (holes, fills) in holes.iter().zip(&drawn) {
                measured.push(Measured {
                    model: model.name().to_owned(),
                    kind: model.kind(),
                    conditioning: network.conditioning,
                    weights: model.weights()?,
                    span: holes.span,
                    steps: steps.unwrap_or(network.length),
                    fills: holes.judge(fills, &distribution),
                    rejection: free.map_or_else(Vec::new, |free| holes.reject(free, &distribution)),
                });
            }
        }
    }
    let report = Report {
        data: args.data.display().to_string(),
        seed: args.seed,
        temperature: args.temperature,
        gamma: args.gamma,
        dtype: args.device.dtype.to_string(),
        rows: holes
            .iter()
            .map(|holes| holes.themselves(&distribution))
            .collect(),
        models: measured,
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(report.render())
}

fn check(args: &InfillArgs) -> Result<()> {
    let spans = args.span.iter().map(|&span| ("--span", span));
    for (option, found) in spans.chain([("--count", args.count)]) {
        if found == 0 {
            return Err(CliError::input(format!(
                "{option} must be at least 1, found 0"
            )));
        }
    }
    Ok(())
}

/// Opens a model that supports known text.
fn model(path: &Path, dataset: &Dataset, data: &Path) -> Result<ModelFolder> {
    let folder = ModelFolder::open(path)?;
    folder.check_fits(dataset.tokenizer(), dataset.meta().length, data)?;
    if folder.config().residual {
        return Err(CliError::input(format!(
            "{} is a residual flow map, which cannot fill holes",
            path.display()
        )));
    }
    Ok(folder)
}

/// Returns the fills of the holes of each span, followed by unconditional samples if requested.
fn draw(
    args: &InfillArgs,
    model: &ModelFolder,
    steps: Option<usize>,
    holes: &[Holes],
) -> Result<Vec<Vec<Record>>> {
    let request = |count, conditioning| SampleOptions {
        steps,
        count,
        gamma: if model.config().two_time {
            args.gamma
        } else {
            0.0
        },
        temperature: args.temperature,
        seed: args.seed,
        batch: args.batch,
        conditioning,
        ..SampleOptions::default()
    };
    let fills = holes.iter().map(|holes| request(1, holes.conditioning()));
    let free =
        (args.rejection_samples > 0).then(|| request(args.rejection_samples, Conditioning::None));
    let requests: Vec<_> = fills.chain(free).collect();
    let mut all = Vec::new();
    sample::sample(
        model,
        args.device.into(),
        model.name(),
        &requests,
        None,
        &mut |_, records| {
            all.push(records);
            Ok(())
        },
    )?;
    Ok(all)
}
