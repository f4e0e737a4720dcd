//! A reward for the occurrence of words.

use crate::Reward;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

/// The log-probability that given tokens all occur, Σ_w log(1 − Π_i (1 − p_i(w))).
///
/// Positions of a token distribution are independent, so each term is exact for one word. The sum
/// also treats the words as independent.
#[derive(Clone, Debug)]
pub struct Keywords<B: Backend> {
    /// One column per word, 1 at its token.
    columns: Tensor<B, 2>,
}

impl<B: Backend> Keywords<B> {
    /// Creates the reward for these tokens.
    ///
    /// # Panics
    ///
    /// If a token is outside the vocabulary.
    pub fn new(vocab_size: usize, tokens: &[u32], device: &B::Device) -> Self {
        let mut columns = vec![0.0_f32; vocab_size * tokens.len()];
        for (word, &token) in tokens.iter().enumerate() {
            columns[token as usize * tokens.len() + word] = 1.0;
        }
        let columns = TensorData::new(columns, [vocab_size, tokens.len()]);
        Self {
            columns: Tensor::from_data(columns, device),
        }
    }
}

impl<A: AutodiffBackend> Reward<A> for Keywords<A::InnerBackend> {
    fn vectors(&self) -> Tensor<A::InnerBackend, 2> {
        self.columns.clone()
    }

    /// Returns the reward; `means` are the probabilities of the words, `[batch, length, words]`.
    fn of(&self, means: Tensor<A, 3>) -> Tensor<A, 1> {
        let [batch, length, words] = means.dims();
        let at = |position| {
            let at: Tensor<A, 3> = means.clone().narrow(1, position, 1);
            at.reshape([batch, words])
        };
        // Accumulate 1 − Π(1 − p) directly, because the product loses small probabilities
        // to rounding.
        let presence = (1..length).fold(at(0), |presence, position| {
            let absence = presence.clone().neg().add_scalar(1.0);
            presence + at(position) * absence
        });
        let presence = presence.clamp_min(f32::MIN_POSITIVE);
        presence.log().sum_dim(1).reshape([batch])
    }
}
