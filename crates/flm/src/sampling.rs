//! Options and results of sampling.

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

/// The sampler of a flow or a flow map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Euler steps for a flow, jumps for a flow map.
    #[default]
    Ode,
    /// Draws clean tokens at each step, then follows the Gaussian bridge towards them.
    Bridge,
    /// Follows the Gaussian bridge towards the mean of the tokens.
    BridgeMean,
    /// Draws clean tokens at each step, then replaces all noise.
    Renoise,
}

impl Sampler {
    /// Returns `true` for the default sampler.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Options for drawing samples.
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
    /// Number of sampling steps: by default 1 for a flow map, 32 for a flow, 64 for a discrete
    /// diffusion model. An autoregressive model takes one step per token and supports only `None`.
    pub steps: Option<usize>,
    /// Number of samples, per text when several texts are conditioned on.
    pub count: usize,
    /// Seed of all random numbers. The same seed gives the same samples at any batch size.
    pub seed: u64,
    /// Index of the first sample under this seed. Samples 0 to 9 and samples 10 to 19 in two calls
    /// equal 20 samples in one call.
    pub first: usize,
    /// Number of samples drawn together. It affects only speed and memory.
    pub batch: usize,
    /// Temperature of the softmax; 1 leaves the distribution unchanged.
    pub temperature: f64,
    /// Nucleus sampling: keeps the smallest set of tokens with at least this total probability.
    pub top_p: f64,
    /// Share of noise that a flow map adds back in each step, from 0 (none) to 1 (all).
    pub gamma: f64,
    /// The sampler of a flow or a flow map.
    pub sampler: Sampler,
    /// Standard deviation of the initial noise of a flow or a flow map.
    pub noise_scale: f64,
    /// Whether the last step of a uniform-state model takes the argmax.
    pub greedy_tail: bool,
    /// Guidance of a flow or a flow map.
    pub guidance: Guidance,
    /// Known text of the samples.
    pub conditioning: Conditioning,
}

impl Default for SampleOptions {
    /// One unconditional sample at temperature 1 with seed 0 and the default number of steps.
    fn default() -> Self {
        Self {
            steps: None,
            count: 1,
            seed: 0,
            first: 0,
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

/// Defines builder setters.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(self, $name: $kind) -> Self {
            Self { $name, ..self }
        })*
    };
}

impl SampleOptions {
    /// Creates options with this number of steps.
    ///
    /// Autoregressive models do not support a number of steps; use [`SampleOptions::default`].
    pub fn steps(steps: usize) -> Self {
        Self {
            steps: Some(steps),
            ..Self::default()
        }
    }

    setters! {
        /// Sets the number of samples.
        count: usize,
        /// Sets the seed.
        seed: u64,
        /// Sets the index of the first sample under the seed.
        first: usize,
        /// Sets the number of samples drawn together.
        batch: usize,
        /// Sets the temperature.
        temperature: f64,
        /// Sets the probability of nucleus sampling.
        top_p: f64,
        /// Sets the share of noise that a flow map adds back.
        gamma: f64,
        /// Sets the sampler.
        sampler: Sampler,
        /// Sets the standard deviation of the initial noise.
        noise_scale: f64,
        /// Sets whether the last step of a uniform-state model is greedy.
        greedy_tail: bool,
        /// Sets the guidance.
        guidance: Guidance,
        /// Sets the known text.
        conditioning: Conditioning,
    }
}

impl SampleOptions {
    /// Returns the total number of samples: `count` for each text that is conditioned on.
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
    /// The text. Each document of a packed block is a line.
    pub text: String,
    /// All tokens of the row, including frame and padding.
    pub tokens: Vec<u32>,
    /// The conditioning, if any.
    pub condition: Option<Condition>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Observes sampling or scoring. `()` does nothing.
///
/// On CPUs batches run in parallel, so methods are called from several threads.
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
    /// Called in each sampling step of a flow or a flow map with one network.
    fn step(&self, _step: &DenoisingStep<'_, B>) {}

    /// Called after each batch with the number of finished samples or rows.
    fn progress(&self, _done: usize, _total: usize) {}

    /// Called before each batch, and after each step of a flow or a flow map with one network;
    /// `true` stops with [`Error::Cancelled`](crate::Error::Cancelled).
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl<B: Backend> Observer<B> for () {}

/// One sampling step of a batch of samples.
#[derive(Debug)]
pub struct DenoisingStep<'a, B: Backend> {
    /// The indices of the samples in the batch, among all samples of the call.
    pub samples: Range<usize>,
    /// Index of the step, from 0.
    pub index: usize,
    /// Time t of the states, from 0 (noise) to 1 (text).
    pub t: f64,
    /// Network time τ of the states.
    pub tau: f64,
    /// Target network time of a flow map; τ itself for a flow.
    pub tau_target: f64,
    /// The token distributions at all positions, `[samples, length]`.
    pub distribution: &'a TokenDistribution<B>,
}
