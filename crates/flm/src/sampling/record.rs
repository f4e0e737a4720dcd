//! Samples as lines of a `.jsonl` file, with how they were drawn.

use super::{SampleOptions, Sampler};
use crate::{Condition, Guidance, Result};
use flm_denoiser::{DitConfig, Precision};
use serde::{Deserialize, Serialize};

/// One sample and how it was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// How it was drawn.
    #[serde(flatten)]
    pub drawn: Provenance,
    /// What was known of it; left out where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// The model and the settings that drew a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Sampling steps.
    pub steps: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Noise that a flow map adds back in each step.
    pub gamma: f64,
    /// Temperature of the softmax.
    pub temperature: f64,
    /// How a flow or a flow map was sampled; left out where it is the default.
    #[serde(default, skip_serializing_if = "Sampler::is_default")]
    pub sampler: Sampler,
    /// Standard deviation of the noise at the start; left out where it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub noise_scale: f64,
    /// Total probability of the tokens that were kept; left out where it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub top_p: f64,
    /// Whether the last step took the likeliest tokens; left out where it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub greedy_tail: bool,
    /// What guided it; left out where nothing did.
    #[serde(default, skip_serializing_if = "Guidance::is_none")]
    pub guidance: Guidance,
    /// Network evaluations, where guidance made them more than one a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<usize>,
    /// The name of the model.
    pub model: String,
    /// The beginning of the SHA-256 of its weights.
    #[serde(default)]
    pub weights: String,
    /// Number type of the matrix products.
    #[serde(default = "f32_name")]
    pub dtype: String,
}

impl Provenance {
    /// That of samples of a model, drawn with these options.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the number of steps is not one of this model's.
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

/// The number type of records that do not name one.
fn f32_name() -> String {
    "f32".to_owned()
}

/// A setting that changes nothing.
fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == one()
}

/// Records as the content of a `.jsonl` file.
pub fn json_lines(records: &[Record]) -> String {
    let line = |record: &Record| {
        serde_json::to_string(record).expect("a record has only names for keys") + "\n"
    };
    records.iter().map(line).collect()
}
