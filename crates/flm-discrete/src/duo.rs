//! Uniform-state diffusion: noise replaces tokens by uniform ones, and a network predicts the
//! originals (Duo; `mathematics.md`, section 7).
//!
//! At time t a token is unchanged with probability α_t, and drawn uniformly from V tokens
//! otherwise. Noise tokens are not marked, so the network takes the noise level as input, and every
//! token can change until the last step.

pub mod curriculum;
mod sampler;
#[cfg(test)]
mod tests;

pub use sampler::{PosteriorWeights, Tail, prior, sample};

use crate::losses::mean_weights;
use crate::predict::row;
use crate::schedule::{Level, LogLinear, quarter, training_times};
use crate::{Predict, Tokens};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use curriculum::Curriculum;
use flm_denoiser::{Dit, Dropout, Prediction, UniformNoise};
use flm_objective::{
    Diagnostic, Inner, Losses, Objective, StepSize, TRAINED, TrainingStep, purpose,
};
use rand::{Rng, RngExt};

/// The training objective of uniform-state diffusion: the rate of the bound at random times,
/// optionally with a curriculum of softened Gaussian noise first.
#[derive(Clone, Debug, Default)]
pub struct DuoObjective {
    schedule: LogLinear,
    curriculum: Option<Curriculum>,
}

impl DuoObjective {
    /// Creates the objective with a schedule and an optional curriculum.
    pub fn new(schedule: LogLinear, curriculum: Option<Curriculum>) -> Self {
        Self {
            schedule,
            curriculum,
        }
    }

    /// Draws times for a whole batch.
    pub fn times<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<f64> {
        training_times(batch, rng)
    }

    /// Returns the losses of `tokens` `[rows, length]` at the given times in training step `step`;
    /// `rng` draws the noise.
    pub fn score<A: AutodiffBackend, R: Rng + ?Sized>(
        &self,
        model: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        times: &[f64],
        step: u64,
        rng: &mut R,
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (tokens, device) = (Tokens::of(tokens), model.device());
        let (noisy, levels, prediction) = match &self.curriculum {
            Some(curriculum) if curriculum.lasts(step) => {
                curriculum.predict(model, &tokens, times, rng, dropout)
            }
            _ => {
                let level = |&t: &f64| self.schedule.level(t);
                let levels: Vec<Level> = times.iter().map(level).collect();
                let noisy = replaced(&tokens, &levels, model.vocab_size(), rng);
                let prediction = model.predict(noisy.tensor(&device), &levels, dropout);
                (noisy, levels, prediction)
            }
        };
        let mut losses = losses_of(&prediction, &tokens, &noisy, &levels);
        losses.names = times.iter().map(|&t| quarter(t)).collect();
        losses
    }
}

/// Validation does not use the curriculum, so its loss is always the bound.
impl<B: AutodiffBackend> Objective<B> for DuoObjective {
    type Network = Dit<B>;
    type Shared = ();

    fn shared(&self, _: &Inner<B, Dit<B>>, _: StepSize) {}

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let times = step.share(&self.times(step.batch, &mut step.times()));
        let mut rng = step.stream.own(purpose::CORRUPTION);
        step.with_dropout(|dropout| {
            self.score(network, tokens, &times, step.stream.step, &mut rng, dropout)
        })
    }

    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * TRAINED
    }
}

/// Replaces tokens at random, at one noise level per row.
pub fn replaced<R: Rng + ?Sized>(
    tokens: &Tokens,
    levels: &[Level],
    vocab_size: usize,
    rng: &mut R,
) -> Tokens {
    tokens.corrupted(levels, rng, |rng| rng.random_range(0..vocab_size as i32))
}

/// Collects the inputs of the bound.
pub(crate) fn noise_of<B: Backend>(
    tokens: &Tokens,
    noisy: &Tokens,
    levels: &[Level],
    device: &B::Device,
) -> UniformNoise<B> {
    UniformNoise::new(
        tokens.tensor(device),
        noisy.tensor(device),
        row(levels.iter().map(|level| level.alpha), device),
        row(levels.iter().map(|level| level.slope), device),
    )
}

/// Returns the losses of a prediction from `noisy`: the rate of the bound at every token.
///
/// All rows have the same name.
pub fn losses_of<A: AutodiffBackend>(
    prediction: &Prediction<A>,
    tokens: &Tokens,
    noisy: &Tokens,
    levels: &[Level],
) -> Losses<A> {
    let (rows, length, device) = (tokens.rows(), tokens.length(), prediction.device());
    let noise = noise_of(tokens, noisy, levels, &device);
    let weights = mean_weights(Tensor::ones([rows], &device), length);
    let score = prediction.uniform_bound(&noise, weights);
    let pairs = tokens.ids().iter().zip(noisy.ids());
    Losses {
        diagnostics: vec![Diagnostic {
            name: "replaced",
            sum: pairs.filter(|(clean, noisy)| clean != noisy).count() as f64,
            count: tokens.ids().len() as f64,
        }],
        ..Losses::new(score.loss, score.per_token, vec!["token"; rows])
    }
}

/// Estimates an upper bound of each text's negative log-likelihood, in nats, for the sampler with
/// infinitely many steps that starts from uniform tokens.
///
/// The estimate is the mean over `draws` stratified times and noises, plus the prior term at t = 1.
///
/// # Panics
///
/// If `draws` is 0.
pub fn nats<B: Backend, R: Rng + ?Sized>(
    model: &impl Predict<B>,
    tokens: &Tokens,
    draws: usize,
    rng: &mut R,
) -> Vec<f64> {
    let (schedule, vocab_size) = (LogLinear::default(), model.vocab_size());
    let prior = tokens.length() as f64 * prior_nats(schedule.alpha(1.0), vocab_size);
    let means = crate::bound::mean_over_times(tokens, draws, rng, |times, rng| {
        let levels: Vec<Level> = times.iter().map(|&t| schedule.level(t)).collect();
        let device = model.device();
        let noisy = replaced(tokens, &levels, vocab_size, rng);
        let prediction = model.predict(noisy.tensor(&device), &levels, &mut Dropout::off());
        let noise = noise_of(tokens, &noisy, &levels, &device);
        let bounds = prediction.uniform_bounds(&noise).into_data();
        let bounds: Vec<f64> = bounds.iter::<f64>().collect();
        let rows = bounds.chunks_exact(tokens.length());
        rows.map(|row| row.iter().sum()).collect()
    });
    means.into_iter().map(|nats| nats + prior).collect()
}

/// Returns the KL divergence from the uniform distribution of a token that is kept with probability
/// α and uniform otherwise, in nats.
fn prior_nats(alpha: f64, vocab_size: usize) -> f64 {
    let v = vocab_size as f64;
    let (own, other) = (alpha + (1.0 - alpha) / v, (1.0 - alpha) / v);
    let term = |p: f64| if p > 0.0 { p * (v * p).ln() } else { 0.0 };
    term(own) + (v - 1.0) * term(other)
}
