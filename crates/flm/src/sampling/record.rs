//! Records of samples, the lines of a `.jsonl` file.

use super::{SampleOptions, Sampler};
use crate::{Condition, Guidance, Result};
use flm_denoiser::{DitConfig, Precision};
use serde::{Deserialize, Serialize};

/// A sample and how it was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The text.
    pub text: String,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The model and the settings.
    #[serde(flatten)]
    pub drawn: Provenance,
    /// The conditioning; omitted if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// The model and the settings that drew a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Number of sampling steps.
    pub steps: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Share of noise that a flow map adds back in each step.
    pub gamma: f64,
    /// Temperature of the softmax.
    pub temperature: f64,
    /// The sampler of a flow or a flow map; omitted if it is the default.
    #[serde(default, skip_serializing_if = "Sampler::is_default")]
    pub sampler: Sampler,
    /// Standard deviation of the initial noise; omitted if it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub noise_scale: f64,
    /// Nucleus probability; omitted if it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub top_p: f64,
    /// Whether the last step took the argmax; omitted if it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub greedy_tail: bool,
    /// The guidance; omitted if there was none.
    #[serde(default, skip_serializing_if = "Guidance::is_none")]
    pub guidance: Guidance,
    /// Number of network evaluations; omitted without guidance, which takes one per step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<usize>,
    /// The name of the model.
    pub model: String,
    /// The first digits of the SHA-256 of the weights.
    #[serde(default)]
    pub weights: String,
    /// Number type of matrix products.
    #[serde(default = "f32_name")]
    pub dtype: String,
}

impl Provenance {
    /// Creates the provenance of samples drawn from a model with these options.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the model does not support the number
    /// of steps.
    pub fn new(
        options: &SampleOptions,
        config: &DitConfig,
        (model, weights): (&str, &str),
        precision: Precision,
    ) -> Result<Self> {
        let steps = options.steps_of(config, model)?;
        let guidance = options.guidance.clone();
        Ok(Self {
            steps,
            seed: options.seed,
            gamma: options.gamma,
            temperature: options.temperature,
            sampler: options.sampler,
            noise_scale: options.noise_scale,
            top_p: options.top_p,
            greedy_tail: options.greedy_tail,
            evaluations: (!guidance.is_none()).then(|| guidance.evaluations(steps)),
            guidance,
            model: model.to_owned(),
            weights: weights.to_owned(),
            dtype: precision.to_string(),
        })
    }
}

/// The default number type of records without one.
fn f32_name() -> String {
    "f32".to_owned()
}

/// The default of `noise_scale` and `top_p`.
fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == one()
}

/// Serializes records as the content of a `.jsonl` file.
pub fn json_lines(records: &[Record]) -> String {
    let line = |record: &Record| {
        serde_json::to_string(record).expect("a record has only string keys") + "\n"
    };
    records.iter().map(line).collect()
}
