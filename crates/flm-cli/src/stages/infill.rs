//! Filling holes in validation rows.

mod holes;
mod report;

use super::sample::{self, Given, Guidance, Request, Sample, Sampler};
use super::train::check_fits;
use super::{inspect, prepare};
use crate::args::InfillArgs;
use crate::error::{CliError, Result};
use crate::files;
use flm_data::{Dataset, Layout};
use flm_denoiser::{DitConfig, Family, folder};
use holes::{Holes, Law};
use report::{Measured, Report};
use std::path::{Path, PathBuf};

/// Has every model fill the same holes.
pub(crate) fn infill(args: &InfillArgs) -> Result<String> {
    check(args)?;
    let dataset = Dataset::open(&args.data)?;
    let grammar = prepare::grammar_of(&args.data)?;
    // Of a block the law knows whole sentences only.
    let grammar = grammar.filter(|_| dataset.meta().layout == Layout::Rows);
    let law = Law {
        grammar: grammar.as_ref(),
        tokenizer: dataset.tokenizer(),
    };
    let holes = (args.span.iter())
        .map(|&span| Holes::dig(&dataset, span, args))
        .collect::<Result<Vec<_>>>()?;
    // What cannot be measured is said before anything is.
    let models = (args.models.iter())
        .map(|path| model(path, &dataset, &args.data))
        .collect::<Result<Vec<_>>>()?;
    let networks = models.iter().map(|(_, network)| network);
    sample::check_gammas(&[args.gamma], networks)?;
    let mut measured = Vec::new();
    for (path, (folder, network)) in args.models.iter().zip(models) {
        let steps = match network.family {
            Family::Autoregressive => vec![network.length],
            _ => args.steps.clone(),
        };
        for steps in steps {
            let drawn = draw(args, path, &network, steps, &holes)?;
            let free = drawn.last().filter(|_| args.free > 0);
            for (holes, fills) in holes.iter().zip(&drawn) {
                measured.push(Measured {
                    model: path.display().to_string(),
                    kind: inspect::kind(&network),
                    conditioning: network.conditioning,
                    weights: sample::weights(&folder)?,
                    span: holes.span,
                    steps,
                    fills: holes.judge(fills, &law),
                    rejection: free.map_or_else(Vec::new, |free| holes.reject(free, &law)),
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
        rows: holes.iter().map(|holes| holes.themselves(&law)).collect(),
        models: measured,
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(report.told())
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

/// The folder and the network of a model that can be given a text.
fn model(path: &Path, dataset: &Dataset, data: &Path) -> Result<(PathBuf, DitConfig)> {
    let folder = files::model_folder(path)?;
    let network = folder::read_config(&folder)?;
    check_fits(&folder, &network, dataset, data)?;
    if network.residual {
        return Err(CliError::input(format!(
            "{} is a residual flow map, which fills no holes",
            path.display()
        )));
    }
    Ok((folder, network))
}

/// The fills of the holes of each span and then, if there are to be any, samples with nothing given.
fn draw(
    args: &InfillArgs,
    model: &Path,
    network: &DitConfig,
    steps: usize,
    holes: &[Holes],
) -> Result<Vec<Vec<Sample>>> {
    let request = |count, given| Request {
        count,
        steps,
        gamma: if network.two_time { args.gamma } else { 0.0 },
        temperature: args.temperature,
        sampler: Sampler::default(),
        noise_scale: 1.0,
        seed: args.seed,
        batch: args.batch,
        trace: false,
        top_p: 1.0,
        greedy_tail: false,
        guidance: Guidance::default(),
        given,
    };
    let fills = holes.iter().map(|holes| request(1, holes.given()));
    let free = (args.free > 0).then(|| request(args.free, Given::Nothing));
    let requests: Vec<Request> = fills.chain(free).collect();
    let mut all = Vec::new();
    let label = model.display().to_string();
    sample::sample(
        model,
        args.device.into(),
        &label,
        &requests,
        &mut |_, drawn| {
            all.push(drawn.samples);
            Ok(())
        },
    )?;
    Ok(all)
}
