//! The Gaussian prior as the network sees it.

use crate::embed::VocabEmbed;
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_simplex::noise::gaussian;
use rand::Rng;

/// Draws of the prior x₀ ~ N(0, I) for a batch, before they are projected.
///
/// Kept apart from the embedding so that one draw can be projected twice: under autodiff for the student, where E takes a
/// gradient through the noise, and without it for the targets.
#[derive(Clone, Debug)]
pub struct Noise<B: Backend> {
    dense: Tensor<B, 3>,
}

impl<B: Backend> Noise<B> {
    /// Independent draws for `batch` sequences of `length` tokens.
    pub fn draw<R: Rng + ?Sized>(
        batch: usize,
        length: usize,
        vocab_size: usize,
        rng: &mut R,
        device: &B::Device,
    ) -> Self {
        Self {
            dense: gaussian([batch, length, vocab_size], rng, device),
        }
    }

    /// Given noise, `[batch, length, vocabulary]`: for tests against pinned numbers.
    pub fn pinned(dense: Tensor<B, 3>) -> Self {
        Self { dense }
    }

    /// The draws of `count` sequences from `first` on.
    pub fn narrow(self, first: usize, count: usize) -> Self {
        Self {
            dense: self.dense.narrow(0, first, count),
        }
    }
}

impl<B: AutodiffBackend> Noise<B> {
    /// The same draws, for a network without gradients.
    pub fn inner(self) -> Noise<B::InnerBackend> {
        Noise {
            dense: self.dense.inner(),
        }
    }
}

impl<B: Backend> VocabEmbed<B> {
    /// εE, the projected noise, `[batch, length, width]`.
    pub fn noise(&self, noise: Noise<B>) -> Tensor<B, 3> {
        self.project(noise.dense)
    }

    /// Number of tokens, V.
    pub fn vocab_size(&self) -> usize {
        self.embedding.dims()[0]
    }
}
