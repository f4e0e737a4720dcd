//! Quality against entropy over a sweep of settings, and models compared at equal entropy.

use super::ScoreArgs;
use super::score::Judges;
use crate::args::{GuidesArgs, SamplerName};
use crate::args::{check_gammas, check_scales};
use crate::commands::sample;
use crate::error::{CliError, Result};
use crate::{files, plot, table};
use clap::Args;
use flm::{Guidance, ModelFolder, Provenance, SampleOptions};
use flm_data::{Dataset, DatasetMeta};
use flm_denoiser::Family;
use flm_eval::frontier::Front;
use flm_eval::{GenPpl, Grammar};
use flm_study::sweep::{self, At, Measured, Report, Sweep, Swept, strengths};
use flm_study::{Samples, TextSet};
use std::path::Path;
use std::path::PathBuf;

/// Sweep steps, gamma, temperature and guidance, and compare models at equal entropy
///
/// A model that repeats itself has a good perplexity, so quality is compared at equal entropy.
/// Every model is sampled at every setting; the settings that no other beats in both quality and
/// entropy are its frontier; frontiers are interpolated where their entropies overlap. Quality is
/// the grammar's nats per token, or a scorer's. The folder holds `samples/`, `frontier.json` and
/// `frontier.svg`; existing samples are reused.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example: flm eval frontier runs/a runs/b --data data --steps 1,4 --temperature 0.6,0.8,1 --out frontier"
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
    #[arg(
        long,
        value_enum,
        default_value = "ode",
        value_name = "NAME",
        hide_short_help = true
    )]
    pub(crate) sampler: SamplerName,
    /// Values of gamma, for flow maps
    #[arg(long, value_name = "G,G", value_delimiter = ',', default_values_t = [0.0], hide_short_help = true)]
    pub(crate) gamma: Vec<f64>,
    /// Temperatures
    #[arg(long, value_name = "T,T", value_delimiter = ',', default_values_t = [0.5, 0.7, 0.85, 1.0])]
    pub(crate) temperature: Vec<f64>,
    /// Scales of the initial noise of flows and flow maps
    #[arg(long, value_name = "S,S", value_delimiter = ',', default_values_t = [1.0], hide_short_help = true)]
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
        requires = "reward",
        hide_short_help = true
    )]
    pub(crate) reward_scale: Vec<f64>,
    /// Nucleus sampling: keep the smallest set of tokens with total probability ≥ P
    #[arg(long, default_value_t = 1.0, value_name = "P", hide_short_help = true)]
    pub(crate) top_p: f64,
    /// Samples per setting
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_name = "N", hide_short_help = true)]
    pub(crate) seed: u64,
    /// Batch size; affects speed only
    #[arg(long, default_value_t = 50, value_name = "N", hide_short_help = true)]
    pub(crate) batch: usize,
    /// Output folder; an existing one is continued
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

impl FrontierArgs {
    fn sweep(&self) -> Sweep {
        Sweep {
            gammas: self.gamma.clone(),
            temperatures: self.temperature.clone(),
            noise_scales: self.noise_scale.clone(),
            sampler: self.sampler.into(),
            shared: SampleOptions {
                count: self.count,
                seed: self.seed,
                batch: self.batch,
                top_p: self.top_p,
                ..SampleOptions::default()
            },
        }
    }
}

/// A model's samples at one number of steps, per setting.
struct Drawn<'a> {
    steps: usize,
    model: &'a Model,
    settings: Vec<SampleOptions>,
    samples: Vec<Samples>,
}

/// A model with its weights' identity and its guidance settings.
struct Model {
    folder: ModelFolder,
    weights: String,
    /// Every pair of η and λ.
    guidances: Vec<Guidance>,
}

/// Runs the sweep, compares the models, writes the files and returns the text report.
pub(crate) fn frontier(args: &FrontierArgs) -> Result<String> {
    let grammar = match &args.data {
        Some(data) => flm_study::grammar_of(data)?,
        None => None,
    };
    if args.score.scorers.len() > 1 || (args.score.scorers.is_empty() && grammar.is_none()) {
        return Err(CliError::input(
            "a frontier needs exactly one scorer: pass one --scorer, or --data with the data folder of a grammar",
        ));
    }
    let (mut models, tokenizer) = models(args)?;
    guide(args, &mut models)?;
    if let Some(data) = &args.data
        && DatasetMeta::read(data)?.tokenizer_hash != tokenizer
    {
        return Err(CliError::input(format!(
            "{} and the models have different tokenizers, so their entropies cannot be compared",
            data.display()
        )));
    }
    // Scorers open before sampling, so that a missing one fails early.
    let judges = Judges::open(&args.score)?;
    let sweep = args.sweep();
    let mut drawn = Vec::new();
    for steps in &args.steps {
        for model in &models {
            let settings = sweep.settings(&model.folder, &model.guidances, *steps);
            let samples = draw(args, model, &settings)?;
            drawn.push(Drawn {
                steps: *steps,
                model,
                settings,
                samples,
            });
        }
    }
    // One call scores all samples, so each scorer loads once and truncates all sets alike.
    let sets: Vec<TextSet<'_>> = (drawn.iter().flat_map(|drawn| &drawn.samples))
        .map(Samples::set)
        .collect();
    let scores = judges.score(&sets)?;
    let judge = (scores.iter().flatten().next())
        .map_or_else(|| "grammar".to_owned(), |score| score.scorer.clone());
    let data_entropy = match &args.data {
        Some(data) => sweep::data_entropy(&Dataset::open(data)?, grammar.is_some(), args.count)?,
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
            At::of(drawn[0].steps, curves, data_entropy)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
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

/// Returns the models and the hash of their common tokenizer.
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
                "{} and {} have different tokenizers, so their entropies cannot be compared",
                path.display(),
                args.models[0].display()
            )));
        }
        let name = folder.name();
        if models.iter().any(|model| model.folder.name() == name) {
            return Err(CliError::input(format!(
                "two models are named {name}: model names must differ"
            )));
        }
        models.push(Model {
            weights: folder.weights()?,
            guidances: Vec::new(),
            folder,
        });
    }
    Ok((models, hash.unwrap_or_default()))
}

/// Sets each model's guidance. Returns an error for an option that applies to none of the models.
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

/// Returns the samples of each request: reuses the existing files and draws the missing ones.
fn draw(args: &FrontierArgs, model: &Model, requests: &[SampleOptions]) -> Result<Vec<Samples>> {
    let (network, name) = (model.folder.config(), model.folder.name());
    let place = |request: &SampleOptions| {
        let name = sweep::file_name(&model.folder, request);
        args.out.join("samples").join(name)
    };
    let mut missing = Vec::new();
    for request in requests {
        let path = place(request);
        if !path.is_file() {
            missing.push(request.clone());
            continue;
        }
        let found = Samples::read(&path)?;
        let named = (name, model.weights.as_str());
        let expected = Provenance::new(request, network, named, args.score.device.dtype)?;
        if found.drawn.as_ref() != Some(&expected) || found.texts.len() != request.count {
            return Err(CliError::input(format!(
                "{} holds samples of other settings: choose another --out, or remove the file",
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
        .map(|request| Ok(Samples::read(&place(request))?))
        .collect()
}

/// Returns the figures at each setting; `scores` holds the scorer's results in the same order.
fn swept<'a>(
    grammar: Option<&Grammar>,
    drawn: &Drawn<'_>,
    scores: impl Iterator<Item = &'a Vec<GenPpl>>,
) -> Result<Swept> {
    let folder = &drawn.model.folder;
    let all = drawn.settings.iter().zip(&drawn.samples).zip(scores);
    let points = all.map(|((setting, samples), scores)| {
        Measured::of(folder, setting, samples, grammar, scores.first())
    });
    Ok(Swept {
        label: folder.name().to_owned(),
        points: points.collect::<std::result::Result<_, _>>()?,
    })
}

/// Formats the report as text.
fn render(report: &Report, out: &Path) -> String {
    let mut lines = vec![
        [
            "steps",
            "entropy",
            "nats/tok of each model",
            "gap to first model",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut notes = String::new();
    for at in &report.at {
        let Some(comparison) = &at.comparison else {
            if at.curves.len() > 1 {
                notes += &format!(
                    "the frontiers of the models share no entropy at {} steps\n",
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
    let mut text = format!("judge      {}\n", report.judge);
    for (number, curve) in (report.at.first().iter().flat_map(|at| &at.curves)).enumerate() {
        text += &format!("model {:<4} {}\n", number + 1, curve.label);
    }
    text += &table::aligned(&points_of(report));
    if lines.len() > 1 {
        text += &table::aligned(&lines);
    }
    text + &notes
        + &format!(
            "written    {} and frontier.json\n",
            out.join("frontier.svg").display()
        )
}

/// Returns a table of every setting. Columns of unused settings are left out.
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

/// Plots nats over entropy, with one colour per model and one line per number of steps.
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
