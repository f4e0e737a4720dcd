//! Quality against entropy, over settings, and models compared where their entropies agree.

use super::eval::{self, Figures, Samples, Setting};
use super::sample::{self, Request};
use super::score::{self, Set};
use super::{origin::Origin, prepare};
use crate::args::FrontierArgs;
use crate::error::{CliError, Result};
use crate::{files, plot, table};
use flm_data::{Dataset, DatasetMeta};
use flm_denoiser::folder;
use flm_eval::frontier::{Comparison, Curve, Front, Point};
use flm_eval::{Grammar, mean_unigram_entropy};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Entropies at which models are compared, spread over what they have in common.
const GRID: usize = 5;

/// `frontier.json`.
#[derive(Serialize)]
struct Report {
    /// What the nats are of: the grammar, or a scorer's identity.
    judge: String,
    count: usize,
    seed: u64,
    /// Unigram entropy of validation rows, in nats.
    data_entropy: Option<f64>,
    /// At each number of steps.
    at: Vec<At>,
}

/// The models at one number of steps.
#[derive(Serialize)]
struct At {
    steps: usize,
    curves: Vec<Curve>,
    /// Nothing for one model, or where no entropy is in reach of all.
    comparison: Option<Comparison>,
}

/// A model and its name in the picture.
struct Model {
    label: String,
    path: PathBuf,
    weights: String,
    two_time: bool,
}

/// Sweeps, compares, draws, and says what came out.
pub(crate) fn frontier(args: &FrontierArgs) -> Result<String> {
    let grammar = match &args.data {
        Some(data) => prepare::grammar_of(data)?,
        None => None,
    };
    if args.score.scorers.len() > 1 || (args.score.scorers.is_empty() && grammar.is_none()) {
        return Err(CliError::input(
            "a frontier is of one judge: name one by --scorer, or by --data the data folder of a grammar",
        ));
    }
    let (models, tokenizer) = models(args)?;
    if let Some(data) = &args.data
        && DatasetMeta::read(data)?.tokenizer_hash != tokenizer
    {
        return Err(CliError::input(format!(
            "{} has another tokenizer than the models: entropies of different tokens do not compare",
            data.display()
        )));
    }
    let mut curves: Vec<(usize, Vec<Curve>)> = Vec::new();
    let mut judge = "grammar".to_owned();
    for steps in &args.steps {
        let mut at = Vec::new();
        for model in &models {
            let settings = settings(args, *steps, model.two_time);
            let drawn = draw(args, model, &settings)?;
            let (points, identity) = points(args, grammar.as_ref(), &settings, &drawn)?;
            judge = identity.unwrap_or(judge);
            at.push(Curve {
                label: model.label.clone(),
                points,
            });
        }
        curves.push((*steps, at));
    }
    let data_entropy = match &args.data {
        Some(data) => entropy_of(data, grammar.is_some(), args.count)?,
        None => None,
    };
    let at = curves
        .into_iter()
        .map(|(steps, curves)| {
            let fronts = curves
                .iter()
                .map(Front::of)
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let comparison = if fronts.len() > 1 {
                Comparison::of(&fronts, data_entropy, GRID)?
            } else {
                None
            };
            Ok(At {
                steps,
                curves,
                comparison,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let report = Report {
        judge,
        count: args.count,
        seed: args.seed,
        data_entropy,
        at,
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    files::write(&args.out.join("frontier.json"), json.as_bytes())?;
    let picture = picture(&report)
        .map_err(|error| CliError::input(format!("cannot draw the frontier: {error}")))?;
    let svg = plot::standalone(&picture);
    files::write(&args.out.join("frontier.svg"), svg.as_bytes())?;
    Ok(told(&report, &args.out))
}

/// The models, and the hash of their tokenizer.
fn models(args: &FrontierArgs) -> Result<(Vec<Model>, String)> {
    let mut models: Vec<Model> = Vec::new();
    let mut hash = None;
    for path in &args.models {
        let folder = files::model_folder(path)?;
        let tokenizer = Origin::read(&folder)?.tokenizer(&folder)?;
        let (first, other) = (
            hash.get_or_insert(tokenizer.hash().to_owned()),
            tokenizer.hash(),
        );
        if first.as_str() != other {
            return Err(CliError::input(format!(
                "{} has another tokenizer than {}: entropies of different tokens do not compare",
                path.display(),
                args.models[0].display()
            )));
        }
        let label = path.display().to_string();
        if models.iter().any(|model| model.label == label) {
            return Err(CliError::input(format!("{label} is named twice")));
        }
        models.push(Model {
            label,
            path: path.clone(),
            weights: sample::weights(&folder)?,
            two_time: folder::read_config(&folder)?.two_time,
        });
    }
    Ok((models, hash.unwrap_or_default()))
}

/// Every setting at a number of steps. A flow has no gamma.
fn settings(args: &FrontierArgs, steps: usize, two_time: bool) -> Vec<Request> {
    let gammas: &[f64] = if two_time { &args.gamma } else { &[0.0] };
    let mut requests = Vec::new();
    for &gamma in gammas {
        for &temperature in &args.temperature {
            requests.push(Request {
                count: args.count,
                steps,
                gamma,
                temperature,
                seed: args.seed,
                batch: args.batch,
                trace: false,
            });
        }
    }
    requests
}

/// The samples of each request: those that are there already, and the others drawn.
fn draw(args: &FrontierArgs, model: &Model, requests: &[Request]) -> Result<Vec<Samples>> {
    let place = |request: &Request| {
        let name: String = (model.label.chars())
            .map(|c| {
                if c.is_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        args.out.join("samples").join(format!(
            "{name}_steps-{}_gamma-{}_temperature-{}.jsonl",
            request.steps, request.gamma, request.temperature
        ))
    };
    let mut missing = Vec::new();
    for request in requests {
        let path = place(request);
        if !path.is_file() {
            missing.push(request.clone());
            continue;
        }
        let found = eval::read(&path)?;
        let expected = Setting {
            model: model.path.display().to_string(),
            steps: request.steps,
            seed: request.seed,
            gamma: request.gamma,
            temperature: request.temperature,
            weights: model.weights.clone(),
            dtype: args.score.device.dtype.to_string(),
        };
        if found.drawn.as_ref() != Some(&expected) || found.texts.len() != request.count {
            return Err(CliError::input(format!(
                "{} holds other samples than are asked for: choose another --out, or remove it",
                path.display()
            )));
        }
    }
    if !missing.is_empty() {
        sample::sample(
            &model.path,
            args.score.device.into(),
            "samples",
            &missing,
            &mut |request, drawn| {
                files::write(
                    &place(request),
                    sample::lines(&drawn.samples, true)?.as_bytes(),
                )
            },
        )?;
    }
    requests
        .iter()
        .map(|request| eval::read(&place(request)))
        .collect()
}

/// The figures at each setting, and who judged if it is a scorer.
fn points(
    args: &FrontierArgs,
    grammar: Option<&Grammar>,
    requests: &[Request],
    drawn: &[Samples],
) -> Result<(Vec<Point>, Option<String>)> {
    let sets: Vec<Set<'_>> = drawn.iter().map(Set::of).collect();
    let scores = score::score(&args.score, &sets)?;
    let identity = (scores.iter().flatten())
        .map(|score| score.scorer.clone())
        .next();
    let mut points = Vec::new();
    for ((request, samples), scores) in requests.iter().zip(drawn).zip(&scores) {
        let (entropy, nats) = match (eval::judge(grammar, &samples.texts)?, scores.first()) {
            (Figures::Grammar(q), None) => (q.entropy, q.oracle_nats_per_token),
            (Figures::Grammar(q), Some(score)) => (q.entropy, score.nats_per_token),
            (Figures::Open(d), Some(score)) => (
                samples.token_entropy().unwrap_or(d.entropy),
                score.nats_per_token,
            ),
            (Figures::Open(_), None) => unreachable!("there is a scorer or a grammar"),
        };
        points.push(Point {
            steps: request.steps,
            gamma: Some(request.gamma),
            temperature: Some(request.temperature),
            entropy,
            nats,
        });
    }
    Ok((points, identity))
}

/// Entropy of validation rows as that of samples is taken: of a grammar's words, or of tokens.
fn entropy_of(data: &Path, words: bool, count: usize) -> Result<Option<f64>> {
    let dataset = Dataset::open(data)?;
    let rows = 0..dataset.validation().rows().min(count);
    let rows = rows.map(|row| dataset.validation().row(row));
    let rows = rows.collect::<std::result::Result<Vec<_>, _>>()?;
    if !words {
        return Ok(mean_unigram_entropy(&rows));
    }
    let texts = rows.iter().map(|row| dataset.tokenizer().decode(row));
    let texts = texts.collect::<std::result::Result<Vec<_>, _>>()?;
    let words: Vec<Vec<&str>> = (texts.iter())
        .map(|text| text.split_whitespace().collect())
        .collect();
    Ok(mean_unigram_entropy(&words))
}

/// The comparison in text.
fn told(report: &Report, out: &Path) -> String {
    let mut lines = vec![
        [
            "steps",
            "entropy",
            "nats/tok of each model",
            "gap to the first",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut notes = String::new();
    for at in &report.at {
        let Some(comparison) = &at.comparison else {
            if at.curves.len() > 1 {
                notes += &format!(
                    "no entropy is in reach of every model in {} steps\n",
                    at.steps
                );
            }
            continue;
        };
        let mut rows: Vec<(&flm_eval::frontier::Row, &str)> =
            comparison.grid.iter().map(|row| (row, "")).collect();
        rows.extend(comparison.data.iter().map(|row| (row, " (data)")));
        for (row, mark) in rows {
            let nats: Vec<String> = (row.nats.iter())
                .map(|nats| nats.map_or_else(|| "-".to_owned(), |nats| format!("{nats:.3}")))
                .collect();
            let gaps: Vec<String> = (row.nats.iter().skip(1))
                .map(|nats| match (nats, row.nats[0]) {
                    (Some(nats), Some(first)) => format!("{:+.3}", nats - first),
                    _ => "-".to_owned(),
                })
                .collect();
            lines.push(vec![
                at.steps.to_string(),
                format!("{:.3}{mark}", row.entropy),
                nats.join("  "),
                gaps.join("  "),
            ]);
        }
    }
    let mut told = format!("judge      {}\n", report.judge);
    for (number, curve) in (report.at.first().iter().flat_map(|at| &at.curves)).enumerate() {
        told += &format!("model {:<4} {}\n", number + 1, curve.label);
    }
    told += &table::aligned(&points_of(report));
    if lines.len() > 1 {
        told += &table::aligned(&lines);
    }
    told + &notes
        + &format!(
            "written    {} and frontier.json\n",
            out.join("frontier.svg").display()
        )
}

/// Every setting that was measured.
fn points_of(report: &Report) -> Vec<Vec<String>> {
    let header = [
        "model",
        "steps",
        "gamma",
        "temperature",
        "entropy",
        "nats/tok",
    ];
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    for at in &report.at {
        for (model, curve) in at.curves.iter().enumerate() {
            for point in &curve.points {
                lines.push(vec![
                    format!("{}", model + 1),
                    at.steps.to_string(),
                    point.gamma.unwrap_or(0.0).to_string(),
                    point.temperature.unwrap_or(1.0).to_string(),
                    format!("{:.3}", point.entropy),
                    format!("{:.3}", point.nats),
                ]);
            }
        }
    }
    lines
}

/// Entropy to the right, nats upwards, a colour for each model and a line for each number of steps.
fn picture(report: &Report) -> std::result::Result<String, plot::Failure> {
    let fronts = report.at.iter().flat_map(|at| {
        at.curves.iter().enumerate().map(|(model, curve)| {
            let all = curve.points.iter().map(|point| (point.entropy, point.nats));
            let front = Front::of(curve).map(|front| {
                let points = front.points().iter();
                points.map(|point| (point.entropy, point.nats)).collect()
            });
            plot::FrontierLine {
                model,
                label: format!("{} in {}", curve.label, at.steps),
                points: all.collect(),
                front: front.unwrap_or_default(),
            }
        })
    });
    plot::frontier(&fronts.collect::<Vec<_>>(), report.data_entropy)
}
