//! What to sample, and what a sampler returns.

mod check;
mod draw;
mod flow;
mod record;
mod tokens;

pub use record::{Provenance, Record, json_lines};

use crate::{Condition, Conditioning, Guidance};
use burn::tensor::backend::Backend;
use flm_denoiser::TokenDistribution;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// How a flow or a flow map goes from noise to text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Euler steps of a flow, jumps of a flow map.
    #[default]
    Ode,
    /// Draw clean tokens at each step, then follow the Gaussian bridge towards them.
    Bridge,
    /// The bridge towards the mean of the tokens.
    BridgeMean,
    /// Draw clean tokens at each step, then replace all noise.
    Renoise,
}

impl Sampler {
    /// Whether it is the one that is used where none is named.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How many samples to draw, and how.
///
/// ```
/// use flm::{Conditioning, SampleOptions};
///
/// let options = SampleOptions::steps(8)
///     .count(4)
///     .temperature(0.7)
///     .conditioning(Conditioning::prompt("The old king"));
/// assert!(options.validate().is_ok());
/// assert!(options.temperature(0.0).validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SampleOptions {
    /// Sampling steps: by default 1 for a flow map, 32 for a flow, 64 for a diffusion of tokens. An autoregressive model takes one a token and
    /// must not be given a number.
    pub steps: Option<usize>,
    /// Samples; of several texts with blanks, as many of each.
    pub count: usize,
    /// Seed of all noise and draws. The same seed gives the same samples, whatever the batch.
    pub seed: u64,
    /// Samples drawn together. It changes speed and memory, no sample.
    pub batch: usize,
    /// Temperature of the softmax; 1 is the model's own.
    pub temperature: f64,
    /// Nucleus sampling: keep the smallest set of tokens with at least this total probability.
    pub top_p: f64,
    /// Noise that a flow map adds back in each step, from 0 (none) to 1 (all).
    pub gamma: f64,
    /// How a flow or a flow map is sampled.
    pub sampler: Sampler,
    /// Standard deviation of the noise that a flow or a flow map starts from.
    pub noise_scale: f64,
    /// Whether the last step of a uniform-state model takes the likeliest tokens.
    pub greedy_tail: bool,
    /// What guides a flow or a flow map.
    pub guidance: Guidance,
    /// What of the samples is known.
    pub conditioning: Conditioning,
}

impl Default for SampleOptions {
    /// One sample at temperature 1 by seed 0, nothing known, no number of steps.
    fn default() -> Self {
        Self {
            steps: None,
            count: 1,
            seed: 0,
            batch: 50,
            temperature: 1.0,
            top_p: 1.0,
            gamma: 0.0,
            sampler: Sampler::default(),
            noise_scale: 1.0,
            greedy_tail: false,
            guidance: Guidance::default(),
            conditioning: Conditioning::None,
        }
    }
}

/// Setters of a builder.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(self, $name: $kind) -> Self {
            Self { $name, ..self }
        })*
    };
}

impl SampleOptions {
    /// Samples in this many steps. An autoregressive model refuses it: use [`SampleOptions::default`].
    pub fn steps(steps: usize) -> Self {
        Self {
            steps: Some(steps),
            ..Self::default()
        }
    }

    setters! {
        /// With this number of samples.
        count: usize,
        /// With this seed.
        seed: u64,
        /// With this many samples drawn together.
        batch: usize,
        /// At this temperature.
        temperature: f64,
        /// With nucleus sampling.
        top_p: f64,
        /// With this share of noise added back by a flow map.
        gamma: f64,
        /// By this sampler.
        sampler: Sampler,
        /// With noise of this standard deviation.
        noise_scale: f64,
        /// With a greedy last step of a uniform-state model.
        greedy_tail: bool,
        /// With guidance.
        guidance: Guidance,
        /// Around known text.
        conditioning: Conditioning,
    }
}

impl SampleOptions {
    /// How many samples there are in all: `count` of each text that is conditioned on.
    pub fn total(&self) -> usize {
        self.count
            * match &self.conditioning {
                Conditioning::None | Conditioning::Ends { .. } => 1,
                Conditioning::Infill(texts) => texts.len(),
                Conditioning::Tokens(rows) => rows.len(),
            }
    }
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The text. Of a packed block each document is a line.
    pub text: String,
    /// All tokens of the row, with those of its frame and padding.
    pub tokens: Vec<u32>,
    /// How it was conditioned, if it was.
    pub condition: Option<Condition>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Watches samples being drawn, or rows being scored. `()` watches nothing.
///
/// Batches are drawn side by side on CPUs, so methods are called from several threads.
///
/// ```
/// use flm::burn::tensor::backend::Backend;
/// use flm::{DenoisingStep, Observer};
///
/// /// Prints the likeliest token of the first position at each step.
/// struct First<'a>(&'a flm::data::TextTokenizer);
///
/// impl<B: Backend> Observer<B> for First<'_> {
///     fn step(&self, step: &DenoisingStep<'_, B>) {
///         let tokens = step.distribution.argmax().into_data();
///         let token = tokens.iter::<i64>().next().unwrap_or_default();
///         println!("t = {:.2}: {:?}", step.t, self.0.token(token as u32));
///     }
/// }
/// ```
pub trait Observer<B: Backend>: Sync {
    /// Called in each sampling step of a flow or a flow map of one network.
    fn step(&self, _step: &DenoisingStep<'_, B>) {}

    /// Called when a batch is finished: `done` of `total` samples.
    fn progress(&self, _done: usize, _total: usize) {}

    /// Asked before each batch; `true` ends sampling with [`Error::Cancelled`](crate::Error::Cancelled).
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl<B: Backend> Observer<B> for () {}

/// One sampling step of a batch of samples.
#[derive(Debug)]
pub struct DenoisingStep<'a, B: Backend> {
    /// The numbers of the samples in the batch.
    pub samples: Range<usize>,
    /// Number of the step, from 0.
    pub index: usize,
    /// Time t of the states, from 0 (noise) to 1 (text).
    pub t: f64,
    /// Network time τ of the states.
    pub tau: f64,
    /// Network time that a flow map looks ahead to; τ itself of a flow.
    pub tau_target: f64,
    /// The distributions of all tokens, `[samples, length]` positions.
    pub distribution: &'a TokenDistribution<B>,
}
