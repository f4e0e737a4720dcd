//! Masked diffusion: noise masks tokens, and a network fills them in (MDLM; `mathematics.md`,
//! section 7).
//!
//! At time t a token is unchanged with probability α_t and masked otherwise. The network never
//! predicts the mask token, since its head has no such column (zero-masking). Unmasked tokens are
//! kept and not predicted (carry-over). The network has no time input, because the masked tokens
//! imply the time.

mod sampler;
#[cfg(test)]
mod tests;

pub use sampler::sample;

use crate::losses::per_token;
use crate::schedule::{Level, LogLinear, quarter, training_times};
use crate::{Predict, Tokens};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use flm_denoiser::{Dit, Dropout, Prediction};
use flm_objective::{
    Diagnostic, Inner, Losses, Objective, StepSize, TRAINED, TrainingStep, purpose,
};
use rand::Rng;

/// The training objective of masked diffusion: the rate of the bound at random times.
#[derive(Clone, Copy, Debug, Default)]
pub struct MdlmObjective {
    schedule: LogLinear,
}

impl MdlmObjective {
    /// Creates the objective with a schedule.
    pub fn new(schedule: LogLinear) -> Self {
        Self { schedule }
    }

    /// Draws times for a whole batch.
    pub fn times<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<f64> {
        training_times(batch, rng)
    }

    /// Returns the losses of `tokens` `[rows, length]` at the given times; `rng` draws the masks.
    pub fn score<A: AutodiffBackend, R: Rng + ?Sized>(
        &self,
        model: &impl Predict<A>,
        tokens: Tensor<A, 2, Int>,
        times: &[f64],
        rng: &mut R,
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (levels, device) = (self.levels(times), tokens.device());
        let (tokens, mask_token) = (Tokens::of(tokens), model.vocab_size());
        let noisy = masked(&tokens, &levels, mask_token, rng);
        let prediction = model.predict(noisy.tensor(&device), &levels, dropout);
        let mut losses = losses_of(&prediction, &tokens, &noisy, &levels, mask_token);
        losses.names = times.iter().map(|&t| quarter(t)).collect();
        losses
    }

    fn levels(&self, times: &[f64]) -> Vec<Level> {
        times.iter().map(|&t| self.schedule.level(t)).collect()
    }
}

impl<B: AutodiffBackend> Objective<B> for MdlmObjective {
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
        step.with_dropout(|dropout| self.score(network, tokens, &times, &mut rng, dropout))
    }

    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * TRAINED
    }
}

/// Masks tokens at random, at one noise level per row.
pub fn masked<R: Rng + ?Sized>(
    tokens: &Tokens,
    levels: &[Level],
    mask_token: usize,
    rng: &mut R,
) -> Tokens {
    tokens.corrupted(levels, rng, |_| mask_token as i32)
}

/// Returns the indices of mask tokens in the flattened batch.
pub(crate) fn masked_positions(noisy: &Tokens, mask_token: usize) -> Vec<usize> {
    let is_masked = |(at, &id): (usize, &i32)| (id == mask_token as i32).then_some(at);
    noisy
        .ids()
        .iter()
        .enumerate()
        .filter_map(is_masked)
        .collect()
}

/// Returns the losses of a prediction from `noisy`.
///
/// The loss is −log p·(−α′)/(1 − α) at masked positions and 0 elsewhere. The head computes only
/// masked positions.
///
/// All rows have the same name.
pub fn losses_of<A: AutodiffBackend>(
    prediction: &Prediction<A>,
    tokens: &Tokens,
    noisy: &Tokens,
    levels: &[Level],
    mask_token: usize,
) -> Losses<A> {
    let (length, device) = (tokens.length(), prediction.device());
    let mut positions = masked_positions(noisy, mask_token);
    let count = positions.len();
    // Tensors cannot be empty, so use one position of weight 0.
    if positions.is_empty() {
        positions.push(0);
    }
    let rate = |at: &usize| {
        if count > 0 {
            levels[at / length].rate()
        } else {
            0.0
        }
    };
    let rates: Vec<f64> = positions.iter().map(rate).collect();
    let chosen: Vec<i32> = positions.iter().map(|&at| tokens.ids()[at]).collect();
    let shape = [1, positions.len()];
    let target = Tensor::from_data(TensorData::new(chosen, shape), &device);
    let all = tokens.ids().len() as f64;
    let weights: Vec<f32> = rates.iter().map(|rate| (rate / all) as f32).collect();
    let weights = Tensor::from_data(TensorData::new(weights, shape), &device);
    let score = prediction.at(&positions).cross_entropy(target, weights);
    let found: Vec<f32> = score.per_token.into_data().iter::<f32>().collect();
    let mut numbers = vec![0.0; tokens.ids().len()];
    let mut sum = 0.0;
    for ((&at, rate), loss) in positions.iter().zip(rates).zip(found) {
        if count > 0 {
            numbers[at] = (rate * f64::from(loss)) as f32;
            sum += f64::from(loss);
        }
    }
    Losses {
        diagnostics: vec![
            Diagnostic {
                name: "cross_entropy",
                sum,
                count: count as f64,
            },
            Diagnostic {
                name: "masked",
                sum: count as f64,
                count: all,
            },
        ],
        ..Losses::new(
            score.loss,
            per_token(numbers, length, &device),
            vec!["token"; tokens.rows()],
        )
    }
}

/// Estimates an upper bound of each text's negative log-likelihood, in nats, for the sampler with
/// infinitely many steps.
///
/// The estimate is the mean over `draws` stratified times and masks. It is unbiased for any number
/// of draws.
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
    crate::bound::mean_over_times(tokens, draws, rng, |times, rng| {
        // α goes down to 0, as the sampler starts from masked tokens only.
        let level = |&t: &f64| LogLinear::whole().level(t);
        let levels: Vec<Level> = times.iter().map(level).collect();
        let (mask_token, device) = (model.vocab_size(), model.device());
        let noisy = masked(tokens, &levels, mask_token, rng);
        let prediction = model.predict(noisy.tensor(&device), &levels, &mut Dropout::off());
        let log_probs = prediction.log_probs(tokens.tensor(&device)).into_data();
        let log_probs: Vec<f64> = log_probs.iter::<f64>().collect();
        let mut sums = vec![0.0; tokens.rows()];
        for at in masked_positions(&noisy, mask_token) {
            let row = at / tokens.length();
            sums[row] -= log_probs[at] * levels[row].rate();
        }
        sums
    })
}
