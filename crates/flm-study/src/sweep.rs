//! Sweeps of sampling settings: quality against entropy, and models compared at equal entropy.

use crate::{Error, Figures, Result, Samples};
use flm::{Guidance, ModelFolder, SampleOptions, Sampler};
use flm_data::Dataset;
use flm_denoiser::Family;
use flm_eval::frontier::{Comparison, Curve, Front, Point};
use flm_eval::{GenPpl, Grammar, Variety, mean_unigram_entropy};
use serde::Serialize;

/// Number of entropies at which models are compared, evenly spread over their common range.
const GRID: usize = 5;

/// The settings of a sweep. Every combination is sampled.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Values of gamma, for flow maps.
    pub gammas: Vec<f64>,
    /// Temperatures.
    pub temperatures: Vec<f64>,
    /// Scales of the initial noise, for flows and flow maps.
    pub noise_scales: Vec<f64>,
    /// The sampler of flows.
    pub sampler: Sampler,
    /// The settings that all combinations share: count, seed, batch and top-p.
    pub shared: SampleOptions,
}

impl Sweep {
    /// Returns every setting of a model at a number of steps.
    ///
    /// Only flow maps have a gamma, only flows and flow maps have a noise scale. An autoregressive
    /// model takes one step per token, so its samples do not depend on `steps`.
    pub fn settings(
        &self,
        model: &ModelFolder,
        guidances: &[Guidance],
        steps: usize,
    ) -> Vec<SampleOptions> {
        let network = model.config();
        let or_one = |condition, values: &[f64], one: f64| match condition {
            true => values.to_vec(),
            false => vec![one],
        };
        let gammas = or_one(network.two_time, &self.gammas, 0.0);
        let scales = or_one(network.family == Family::Flow, &self.noise_scales, 1.0);
        let steps = (network.family != Family::Autoregressive).then_some(steps);
        let sampler = match Guidance::is_supported(network) && !network.two_time {
            true => self.sampler,
            false => Sampler::default(),
        };
        let mut settings = Vec::new();
        for guidance in guidances {
            for &gamma in &gammas {
                for &temperature in &self.temperatures {
                    for &noise_scale in &scales {
                        settings.push(SampleOptions {
                            steps,
                            gamma,
                            temperature,
                            noise_scale,
                            sampler,
                            guidance: guidance.clone(),
                            ..self.shared.clone()
                        });
                    }
                }
            }
        }
        settings
    }
}

/// The file name of a model's samples at a setting.
pub fn file_name(model: &ModelFolder, setting: &SampleOptions) -> String {
    let plain = |c: char| match c.is_alphanumeric() || "-_.".contains(c) {
        true => c,
        false => '-',
    };
    let mut name: String = model.name().chars().map(plain).collect();
    name += &format!(
        "_steps-{}_gamma-{}_temperature-{}",
        setting.steps.unwrap_or(model.config().length),
        setting.gamma,
        setting.temperature
    );
    if !setting.sampler.is_default() {
        name += &format!("_{:?}", setting.sampler).to_lowercase();
    }
    if setting.noise_scale != 1.0 {
        name += &format!("_noise-scale-{}", setting.noise_scale);
    }
    if setting.top_p < 1.0 {
        name += &format!("_top-p-{}", setting.top_p);
    }
    if !setting.guidance.is_none() {
        let [eta, scale] = strengths(&setting.guidance);
        name += &format!("_eta-{eta}_lambda-{scale}");
    }
    name + ".jsonl"
}

/// Returns η and λ; 1 and 0 if they are off.
pub fn strengths(guidance: &Guidance) -> [f64; 2] {
    let eta = guidance.auto.as_ref().map_or(1.0, |auto| auto.eta);
    let scale = guidance.reward.as_ref().map_or(0.0, |reward| reward.scale);
    [eta, scale]
}

/// The results of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What computes the nats: `grammar`, or a scorer's identity.
    pub judge: String,
    /// Samples per setting.
    pub count: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Mean unigram entropy of the validation rows, in nats.
    pub data_entropy: Option<f64>,
    /// One entry per number of steps.
    pub at: Vec<At>,
}

/// The models at one number of steps.
#[derive(Clone, Debug, Serialize)]
pub struct At {
    /// The number of steps.
    pub steps: usize,
    /// One curve per model.
    pub curves: Vec<Swept>,
    /// `None` for one model, or if the frontiers share no entropy.
    pub comparison: Option<Comparison>,
}

impl At {
    /// Compares models at one number of steps.
    ///
    /// # Errors
    ///
    /// A figure is not finite.
    pub fn of(steps: usize, curves: Vec<Swept>, data_entropy: Option<f64>) -> Result<Self> {
        let fronts = curves.iter().map(|swept| Front::of(&swept.curve()));
        let fronts = fronts.collect::<std::result::Result<Vec<_>, _>>()?;
        let comparison = match fronts.len() {
            0 | 1 => None,
            _ => Comparison::of(&fronts, data_entropy, GRID)?,
        };
        Ok(Self {
            steps,
            curves,
            comparison,
        })
    }
}

/// One model at every setting.
#[derive(Clone, Debug, Serialize)]
pub struct Swept {
    /// The model's name.
    pub label: String,
    /// The figures at each setting.
    pub points: Vec<Measured>,
}

impl Swept {
    /// The points as a curve.
    pub fn curve(&self) -> Curve {
        Curve {
            label: self.label.clone(),
            points: self.points.iter().map(|measured| measured.point).collect(),
        }
    }
}

/// The figures at one setting. Variety is not compared, but is reported next to quality.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Entropy and quality.
    #[serde(flatten)]
    pub point: Point,
    /// The guidance of the samples.
    #[serde(skip_serializing_if = "Guidance::is_none")]
    pub guidance: Guidance,
    /// Scale of the initial noise.
    #[serde(skip_serializing_if = "is_one")]
    pub noise_scale: f64,
    /// Network evaluations per sample.
    pub evaluations: usize,
    /// Share of samples that the grammar accepts; `None` without a grammar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Share of samples that are distinct.
    pub distinct: f64,
    /// Variety of the samples.
    #[serde(flatten)]
    pub variety: Variety,
}

/// Whether a value is 1; such a scale is left out of the report.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

impl Measured {
    /// Evaluates a model's samples at a setting, by a scorer's result or else by the grammar.
    ///
    /// # Errors
    ///
    /// There are no samples, or neither a grammar nor a score.
    pub fn of(
        model: &ModelFolder,
        setting: &SampleOptions,
        samples: &Samples,
        grammar: Option<&Grammar>,
        score: Option<&GenPpl>,
    ) -> Result<Self> {
        let figures = Figures::of(grammar, &samples.texts)?;
        let open = figures.open();
        let (entropy, nats) = match (&figures, score) {
            (Figures::Grammar(quality), None) => (quality.entropy, quality.oracle_nats_per_token),
            (Figures::Grammar(quality), Some(score)) => (quality.entropy, score.nats_per_token),
            (Figures::Open(_), Some(score)) => (
                samples.token_entropy().unwrap_or(open.entropy),
                score.nats_per_token,
            ),
            (Figures::Open(_), None) => {
                return Err(Error::Input(
                    "samples without a grammar need a scorer to be compared".to_owned(),
                ));
            }
        };
        let steps = setting.steps_of(model.config(), model.name())?;
        Ok(Self {
            point: Point {
                steps,
                gamma: Some(setting.gamma),
                temperature: Some(setting.temperature),
                entropy,
                nats,
            },
            guidance: setting.guidance.clone(),
            noise_scale: setting.noise_scale,
            evaluations: setting.guidance.evaluations(steps),
            valid: figures.valid(),
            distinct: open.distinct,
            variety: open.variety,
        })
    }
}

/// Mean unigram entropy in nats of the first `count` validation rows, over words or over tokens.
///
/// # Errors
///
/// A row cannot be read or decoded.
pub fn data_entropy(dataset: &Dataset, words: bool, count: usize) -> Result<Option<f64>> {
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
