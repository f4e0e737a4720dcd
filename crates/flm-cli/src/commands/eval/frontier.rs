//! Quality against entropy, over settings, and models compared where their entropies agree.

use super::ScoreArgs;
use super::score::Judges;
use super::{self as eval, Figures, Samples};
use crate::args::{GuidesArgs, SamplerName};
use crate::args::{check_gammas, check_scales};
use crate::commands::{data::prepare, sample};
use crate::error::{CliError, Result};
use crate::{files, plot, table};
use clap::Args;
use flm::{Guidance, ModelFolder, Provenance, SampleOptions};
use flm_data::{Dataset, DatasetMeta};
use flm_denoiser::Family;
use flm_eval::frontier::{Comparison, Curve, Front, Point};
use flm_eval::{GenPpl, Grammar, Variety, mean_unigram_entropy};
use flm_study::TextSet;
use serde::Serialize;
use std::path::Path;
use std::path::PathBuf;

/// Sweep steps, gamma, temperature and guidance, and compare models at equal entropy
///
/// A model that repeats itself has a good perplexity, so quality is compared at equal entropy. Every model is sampled at every
/// setting; the settings that no other beats in both quality and entropy are its frontier; frontiers are interpolated where
/// their entropies overlap. Quality is the grammar's nats per token, or a scorer's. The folder holds `samples/`,
/// `frontier.json` and `frontier.svg`; existing samples are reused.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: flm eval frontier runs/a runs/b --data data --steps 1,4 --temperature 0.6,0.8,1 --out frontier"
)]
pub(crate) struct FrontierArgs {
    /// Model folders or finished runs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<PathBuf>,
    /// Data folder of the models; without a scorer its grammar scores the samples
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) score: ScoreArgs,
    /// Numbers of steps; models are compared at each
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 4])]
    pub(crate) steps: Vec<usize>,
    /// Sampler of flows; flow maps jump
    #[arg(long, value_enum, default_value = "ode", value_name = "NAME")]
    pub(crate) sampler: SamplerName,
    /// Values of gamma, for flow maps
    #[arg(long, value_name = "G,G", value_delimiter = ',', default_values_t = [0.0])]
    pub(crate) gamma: Vec<f64>,
    /// Temperatures
    #[arg(long, value_name = "T,T", value_delimiter = ',', default_values_t = [0.5, 0.7, 0.85, 1.0])]
    pub(crate) temperature: Vec<f64>,
    /// Scales of the initial noise of flows and flow maps
    #[arg(long, value_name = "S,S", value_delimiter = ',', default_values_t = [1.0])]
    pub(crate) noise_scale: Vec<f64>,
    /// Autoguidance scales (1 = off), for flows and flow maps
    #[arg(long, value_name = "ETA,ETA", value_delimiter = ',')]
    pub(crate) guidance: Vec<f64>,
    #[command(flatten)]
    pub(crate) guides: GuidesArgs,
    /// Step sizes along the reward's gradient (0 = off) [default: 0.3]
    #[arg(
        long,
        value_name = "LAMBDA,LAMBDA",
        value_delimiter = ',',
        requires = "reward"
    )]
    pub(crate) reward_scale: Vec<f64>,
    /// Nucleus sampling: keep the smallest set of tokens with total probability ≥ P
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f64,
    /// Samples per setting
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Batch size; affects speed only
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) batch: usize,
    /// Output folder; an existing one is continued
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

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
    curves: Vec<Swept>,
    /// Nothing for one model, or where no entropy is in reach of all.
    comparison: Option<Comparison>,
}

/// A model at every setting.
#[derive(Serialize)]
struct Swept {
    label: String,
    points: Vec<Measured>,
}

/// The figures at one setting. How alike samples are is no part of the comparison, but belongs beside it.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    point: Point,
    /// What guided the samples.
    #[serde(skip_serializing_if = "Guidance::is_none")]
    guidance: Guidance,
    /// Of the noise at the start.
    #[serde(skip_serializing_if = "is_one")]
    noise_scale: f64,
    /// Evaluations of the network for each sample.
    evaluations: usize,
    /// Share of samples that the grammar knows, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<f64>,
    /// Different samples among all.
    distinct: f64,
    #[serde(flatten)]
    variety: Variety,
}

impl Swept {
    fn curve(&self) -> Curve {
        Curve {
            label: self.label.clone(),
            points: self.points.iter().map(|measured| measured.point).collect(),
        }
    }
}

/// What a model wrote at a number of steps: samples of each setting.
struct Drawn<'a> {
    steps: usize,
    model: &'a Model,
    settings: Vec<SampleOptions>,
    samples: Vec<Samples>,
}

/// A model and its name in the picture.
struct Model {
    folder: ModelFolder,
    weights: String,
    /// Every η with every λ.
    guidances: Vec<Guidance>,
}

/// Sweeps, compares, draws, and says what came out.
pub(crate) fn frontier(args: &FrontierArgs) -> Result<String> {
    let grammar = match &args.data {
        Some(data) => prepare::grammar_of(data)?,
        None => None,
    };
    if args.score.scorers.len() > 1 || (args.score.scorers.is_empty() && grammar.is_none()) {
        return Err(CliError::input(
            "a frontier has one scorer: name it by --scorer, or name the data folder of a grammar by --data",
        ));
    }
    let (mut models, tokenizer) = models(args)?;
    guide(args, &mut models)?;
    if let Some(data) = &args.data
        && DatasetMeta::read(data)?.tokenizer_hash != tokenizer
    {
        return Err(CliError::input(format!(
            "{} has another tokenizer than the models: entropies of different tokens do not compare",
            data.display()
        )));
    }
    // A scorer that is not there is said before anything is drawn.
    let judges = Judges::open(&args.score)?;
    let mut drawn = Vec::new();
    for steps in &args.steps {
        for model in &models {
            let settings = settings(args, *steps, model);
            let samples = draw(args, model, &settings)?;
            drawn.push(Drawn {
                steps: *steps,
                model,
                settings,
                samples,
            });
        }
    }
    // All at once, so that a scorer is read once and cuts all samples alike.
    let sets: Vec<TextSet<'_>> = (drawn.iter().flat_map(|drawn| &drawn.samples))
        .map(Samples::set)
        .collect();
    let scores = judges.score(&sets)?;
    let judge = (scores.iter().flatten().next())
        .map_or_else(|| "grammar".to_owned(), |score| score.scorer.clone());
    let data_entropy = match &args.data {
        Some(data) => entropy_of(data, grammar.is_some(), args.count)?,
        None => None,
    };
    let mut scores = scores.iter();
    let mut swept = drawn
        .iter()
        .map(|drawn| swept(grammar.as_ref(), drawn, scores.by_ref()))
        .collect::<Result<Vec<_>>>()?
        .into_iter();
    let at = drawn
        .chunks(models.len())
        .map(|drawn| {
            let curves: Vec<Swept> = swept.by_ref().take(drawn.len()).collect();
            at(drawn[0].steps, curves, data_entropy)
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
    Ok(render(&report, &args.out))
}

/// Compares models at a number of steps.
fn at(steps: usize, curves: Vec<Swept>, data_entropy: Option<f64>) -> Result<At> {
    let fronts = curves
        .iter()
        .map(|swept| Front::of(&swept.curve()))
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
}

/// The models, and the hash of their tokenizer.
fn models(args: &FrontierArgs) -> Result<(Vec<Model>, String)> {
    let mut models: Vec<Model> = Vec::new();
    let mut hash = None;
    for path in &args.models {
        let folder = ModelFolder::open(path)?;
        let tokenizer = folder.tokenizer()?;
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
        let name = folder.name();
        if models.iter().any(|model| model.folder.name() == name) {
            return Err(CliError::input(format!("{name} is named twice")));
        }
        models.push(Model {
            weights: folder.weights()?,
            guidances: Vec::new(),
            folder,
        });
    }
    Ok((models, hash.unwrap_or_default()))
}

/// Every setting at a number of steps. Only a flow map has a gamma, and only flows are guided; an autoregressive model takes a step for each
/// token, so that its samples are the same ones at every number.
fn settings(args: &FrontierArgs, steps: usize, model: &Model) -> Vec<SampleOptions> {
    let network = model.folder.config();
    let gammas: &[f64] = if network.two_time {
        &args.gamma
    } else {
        &[0.0]
    };
    let steps = match network.family {
        Family::Autoregressive => None,
        _ => Some(steps),
    };
    let mut requests = Vec::new();
    let guided = Guidance::is_supported(network);
    let scales: &[f64] = match network.family {
        Family::Flow => &args.noise_scale,
        _ => &[1.0],
    };
    for guidance in &model.guidances {
        for &gamma in gammas {
            for (&temperature, &noise_scale) in product(&args.temperature, scales) {
                requests.push(SampleOptions {
                    count: args.count,
                    steps,
                    gamma,
                    temperature,
                    noise_scale,
                    sampler: if guided && !network.two_time {
                        args.sampler.into()
                    } else {
                        Default::default()
                    },
                    seed: args.seed,
                    batch: args.batch,
                    top_p: args.top_p,
                    guidance: guidance.clone(),
                    ..SampleOptions::default()
                });
            }
        }
    }
    requests
}

/// Every one of the first with every one of the second.
fn product<'a, T>(first: &'a [T], second: &'a [T]) -> impl Iterator<Item = (&'a T, &'a T)> {
    first
        .iter()
        .flat_map(move |a| second.iter().map(move |b| (a, b)))
}

/// Finds what guides each model, and refuses options that are of no model at all.
fn guide(args: &FrontierArgs, models: &mut [Model]) -> Result<()> {
    let (etas, scales) = (&args.guidance, &args.reward_scale);
    check_scales(etas, scales)?;
    let folders: Vec<_> = models.iter().map(|model| model.folder.clone()).collect();
    let guided = |folder: &ModelFolder| Guidance::is_supported(folder.config());
    let option = args.guides.option(etas);
    if let Some(option) = option.filter(|_| !folders.iter().any(guided)) {
        return Err(CliError::input(format!(
            "{option} needs a flow or a flow map of one network, and no model here is one"
        )));
    }
    for &scale in &args.noise_scale {
        SampleOptions::default().noise_scale(scale).validate()?;
        let is_flow = |folder: &ModelFolder| folder.config().family == Family::Flow;
        if scale != 1.0 && !folders.iter().any(is_flow) {
            return Err(CliError::input(format!(
                "--noise-scale {scale} needs a flow or a flow map, and no model here is one"
            )));
        }
    }
    check_gammas(&args.gamma, &folders)?;
    for model in models {
        model.guidances = match guided(&model.folder) {
            true => args.guides.guidances(&model.folder, etas, scales)?,
            false => vec![Guidance::default()],
        };
    }
    Ok(())
}

/// A setting that changes nothing.
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

/// η and λ; 1 and 0 where they guide nothing.
fn strengths(guidance: &Guidance) -> [f64; 2] {
    let eta = guidance.auto.as_ref().map_or(1.0, |auto| auto.eta);
    let scale = guidance.reward.as_ref().map_or(0.0, |reward| reward.scale);
    [eta, scale]
}

/// The samples of each request: those that are there already, and the others drawn.
fn draw(args: &FrontierArgs, model: &Model, requests: &[SampleOptions]) -> Result<Vec<Samples>> {
    let (network, name) = (model.folder.config(), model.folder.name());
    let place = |request: &SampleOptions| {
        let name: String = (name.chars())
            .map(|c| {
                if c.is_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        let mut setting = format!(
            "steps-{}_gamma-{}_temperature-{}",
            request.steps.unwrap_or(network.length),
            request.gamma,
            request.temperature
        );
        if !request.sampler.is_default() {
            setting += &format!("_{:?}", request.sampler).to_lowercase();
        }
        if request.noise_scale != 1.0 {
            setting += &format!("_noise-scale-{}", request.noise_scale);
        }
        if request.top_p < 1.0 {
            setting += &format!("_top-p-{}", request.top_p);
        }
        if !request.guidance.is_none() {
            let [eta, scale] = strengths(&request.guidance);
            setting += &format!("_eta-{eta}_lambda-{scale}");
        }
        (args.out.join("samples")).join(format!("{name}_{setting}.jsonl"))
    };
    let mut missing = Vec::new();
    for request in requests {
        let path = place(request);
        if !path.is_file() {
            missing.push(request.clone());
            continue;
        }
        let found = eval::read(&path)?;
        let named = (name, model.weights.as_str());
        let expected = Provenance::new(request, network, named, args.score.device.dtype)?;
        if found.drawn.as_ref() != Some(&expected) || found.texts.len() != request.count {
            return Err(CliError::input(format!(
                "{} holds samples of other settings: choose another --out, or remove it",
                path.display()
            )));
        }
    }
    if !missing.is_empty() {
        sample::sample(
            &model.folder,
            args.score.device.into(),
            "samples",
            &missing,
            None,
            &mut |request, records| {
                files::write(&place(request), flm::json_lines(&records).as_bytes())
            },
        )?;
    }
    requests
        .iter()
        .map(|request| eval::read(&place(request)))
        .collect()
}

/// The figures at each setting; `scores` has those of a scorer, in the same order.
fn swept<'a>(
    grammar: Option<&Grammar>,
    drawn: &Drawn<'_>,
    scores: impl Iterator<Item = &'a Vec<GenPpl>>,
) -> Result<Swept> {
    let mut points = Vec::new();
    for ((request, samples), scores) in drawn.settings.iter().zip(&drawn.samples).zip(scores) {
        let figures = eval::judge(grammar, &samples.texts)?;
        let (entropy, nats) = match (&figures, scores.first()) {
            (Figures::Grammar(q), None) => (q.entropy, q.oracle_nats_per_token),
            (Figures::Grammar(q), Some(score)) => (q.entropy, score.nats_per_token),
            (Figures::Open(d), Some(score)) => (
                samples.token_entropy().unwrap_or(d.entropy),
                score.nats_per_token,
            ),
            (Figures::Open(_), None) => unreachable!("there is a scorer or a grammar"),
        };
        let open = figures.open();
        let steps = request.steps_of(drawn.model.folder.config(), drawn.model.folder.name())?;
        points.push(Measured {
            point: Point {
                steps,
                gamma: Some(request.gamma),
                temperature: Some(request.temperature),
                entropy,
                nats,
            },
            guidance: request.guidance.clone(),
            noise_scale: request.noise_scale,
            evaluations: request.guidance.evaluations(steps),
            valid: match &figures {
                Figures::Grammar(quality) => Some(quality.valid),
                Figures::Open(_) => None,
            },
            distinct: open.distinct,
            variety: open.variety,
        });
    }
    Ok(Swept {
        label: drawn.model.folder.name().to_owned(),
        points,
    })
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
fn render(report: &Report, out: &Path) -> String {
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

/// Every setting that was measured; columns of what nothing was asked of are left out.
fn points_of(report: &Report) -> Vec<Vec<String>> {
    let measured =
        || (report.at.iter()).flat_map(|at| at.curves.iter().flat_map(|curve| &curve.points));
    let guided = measured().any(|measured| !measured.guidance.is_none());
    let judged = measured().any(|measured| measured.valid.is_some());
    let scaled = measured().any(|measured| measured.noise_scale != 1.0);
    let shown = |column: &str| match column {
        "noise" => scaled,
        "eta" | "lambda" | "evaluations" => guided,
        "valid" => judged,
        _ => true,
    };
    let header = [
        "model",
        "steps",
        "gamma",
        "temperature",
        "noise",
        "eta",
        "lambda",
        "evaluations",
        "valid",
        "entropy",
        "nats/tok",
        "distinct",
        "pairs",
        "self-BLEU",
    ];
    let line = |cells: [String; 14]| -> Vec<String> {
        let cells = header.iter().zip(cells).filter(|(column, _)| shown(column));
        cells.map(|(_, cell)| cell).collect()
    };
    let mut lines = vec![line(header.map(str::to_owned))];
    for at in &report.at {
        for (model, curve) in at.curves.iter().enumerate() {
            for measured in &curve.points {
                let Measured { point, variety, .. } = measured;
                let [eta, scale] = strengths(&measured.guidance);
                lines.push(line([
                    format!("{}", model + 1),
                    at.steps.to_string(),
                    point.gamma.unwrap_or(0.0).to_string(),
                    point.temperature.unwrap_or(1.0).to_string(),
                    measured.noise_scale.to_string(),
                    eta.to_string(),
                    scale.to_string(),
                    measured.evaluations.to_string(),
                    table::optional(measured.valid, 3),
                    format!("{:.3}", point.entropy),
                    format!("{:.3}", point.nats),
                    format!("{:.3}", measured.distinct),
                    table::optional(variety.distinct_2, 3),
                    table::optional(variety.self_bleu, 3),
                ]));
            }
        }
    }
    lines
}

/// Entropy to the right, nats upwards, a colour for each model and a line for each number of steps.
fn picture(report: &Report) -> std::result::Result<String, plot::Failure> {
    let fronts = report.at.iter().flat_map(|at| {
        at.curves.iter().enumerate().map(|(model, swept)| {
            let curve = swept.curve();
            let all = curve.points.iter().map(|point| (point.entropy, point.nats));
            let front = Front::of(&curve).map(|front| {
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
