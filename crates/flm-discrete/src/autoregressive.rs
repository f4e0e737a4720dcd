//! Autoregressive models, which predict each token from those before it.

mod sampler;
#[cfg(test)]
mod tests;

pub use sampler::{Decoding, KnownTokens, sample};

use crate::Tokens;
use crate::losses::mean_weights;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Prediction};
use flm_objective::{Inner, Losses, Objective, StepSize, TRAINED, TrainingStep};

/// The training objective of autoregressive models: the cross-entropy of every token.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoregressiveObjective;

impl AutoregressiveObjective {
    /// Returns the losses of `tokens` `[rows, length]`, each given the tokens before it.
    ///
    /// # Panics
    ///
    /// If the network is of another family.
    pub fn score<A: AutodiffBackend>(
        &self,
        model: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let ([rows, length], device) = (tokens.dims(), tokens.device());
        let prediction = predict(model, tokens.clone(), dropout);
        let weights = mean_weights(Tensor::ones([rows], &device), length);
        let score = prediction.cross_entropy(tokens, weights);
        Losses::new(score.loss, score.per_token, vec!["token"; rows])
    }
}

impl<B: AutodiffBackend> Objective<B> for AutoregressiveObjective {
    type Network = Dit<B>;
    type Shared = ();

    fn shared(&self, _: &Inner<B, Dit<B>>, _: StepSize) {}

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        step.with_dropout(|dropout| self.score(network, tokens, dropout))
    }

    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * TRAINED
    }
}

/// Predicts each token `[rows, length]` from the tokens before it.
fn predict<B: Backend>(
    model: &Dit<B>,
    tokens: Tensor<B, 2, Int>,
    dropout: &mut Dropout<'_>,
) -> Prediction<B> {
    assert!(
        model.is_causal() && model.has_mask_token(),
        "the network must be of family autoregressive"
    );
    let ([rows, _], device) = (tokens.dims(), tokens.device());
    let time = Tensor::zeros([rows], &device);
    let state = model.read(shifted(tokens, model.embed().embedding.dims()[0]));
    model.forward(state, time.clone(), time, dropout)
}

/// Returns a start token (the mask token), then all tokens except the last, `[rows, length]`.
fn shifted<B: Backend>(tokens: Tensor<B, 2, Int>, mask_token: usize) -> Tensor<B, 2, Int> {
    let ([rows, length], device) = (tokens.dims(), tokens.device());
    let start = Tensor::full([rows, 1], mask_token as i64, &device);
    if length == 1 {
        return start;
    }
    Tensor::cat(vec![start, tokens.narrow(1, 0, length - 1)], 1)
}

/// Returns the negative log-likelihood of each token given those before it, in nats,
/// `[rows, length]`.
///
/// # Panics
///
/// If the network is of another family.
pub fn nats_per_token<B: Backend>(model: &Dit<B>, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
    let prediction = predict(model, tokens.clone(), &mut Dropout::off());
    prediction.log_probs(tokens).neg()
}

/// Returns the exact negative log-likelihood of each text, in nats.
///
/// # Panics
///
/// If the network is of another family.
pub fn nats<B: Backend>(model: &Dit<B>, tokens: &Tokens) -> Vec<f64> {
    let device = model.embed().embedding.device();
    let of_tokens = nats_per_token(model, tokens.tensor(&device)).into_data();
    let of_tokens: Vec<f64> = of_tokens.iter::<f64>().collect();
    let rows = of_tokens.chunks_exact(tokens.length());
    rows.map(|row| row.iter().sum()).collect()
}
