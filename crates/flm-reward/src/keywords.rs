//! Words that should occur.

use crate::Reward;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

/// The log-probability that each of some tokens occurs somewhere, if positions were independent: Σ_w log(1 − Π_i (1 − p_i(w))).
///
/// As positions are independent in a distribution, that is the probability under the distribution itself; of all words together as if they were
/// independent too.
#[derive(Clone, Debug)]
pub struct Keywords<B: Backend> {
    /// A column for each word, one at its token.
    columns: Tensor<B, 2>,
}

impl<B: Backend> Keywords<B> {
    /// The reward of these tokens of a vocabulary.
    ///
    /// # Panics
    ///
    /// If a token lies outside the vocabulary.
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

    /// `means` are the words' probabilities, `[batch, length, words]`.
    fn of(&self, means: Tensor<A, 3>) -> Tensor<A, 1> {
        let [batch, length, words] = means.dims();
        let at = |position| {
            let at: Tensor<A, 3> = means.clone().narrow(1, position, 1);
            at.reshape([batch, words])
        };
        // Position by position, where the product's distance from one would be lost to rounding.
        let presence = (1..length).fold(at(0), |presence, position| {
            let absence = presence.clone().neg().add_scalar(1.0);
            presence + at(position) * absence
        });
        let presence = presence.clamp_min(f32::MIN_POSITIVE);
        presence.log().sum_dim(1).reshape([batch])
    }
}
