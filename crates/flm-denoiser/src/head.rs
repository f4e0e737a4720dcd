//! The vocabulary head: the one module with V-wide tensors.
//!
//! Everybody else asks it for results: a cross-entropy, log-probabilities of given tokens, a mean D·E, a decoded token. What
//! the network believes about the clean tokens travels as a [`Belief`], whose inside nobody sees.
// On the module: `Module` derives a record with the same field names.
#![allow(
    non_snake_case,
    reason = "parameters carry the names of the reference's checkpoints"
)]

use crate::block::{chunks, layer_norm, linear, modulated_norm};
use crate::embed::VocabEmbed;
use crate::{DitConfig, init};
use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::log_softmax;
use burn::tensor::{
    Int, Tensor,
    backend::{AutodiffBackend, Backend},
};

/// The last layer: modulated LayerNorm and a linear map to the vocabulary, both silent at the start.
#[derive(Module, Debug)]
pub struct OutputLayer<B: Backend> {
    norm_final: LayerNorm<B>,
    linear: Linear<B>,
    adaLN_modulation: Linear<B>,
    softcap: f64,
}

impl<B: Backend> OutputLayer<B> {
    pub(crate) fn new(config: &DitConfig, device: &B::Device) -> Self {
        Self {
            norm_final: layer_norm(config.width, device),
            linear: init::zero_linear(config.width, config.vocab_size, device),
            adaLN_modulation: init::zero_linear(config.cond_dim, 2 * config.width, device),
            softcap: config.logit_softcap,
        }
    }

    /// What the residual stream `[batch, length, width]` says about the tokens.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, cond: Tensor<B, 2>) -> Prediction<B> {
        let [shift, scale] = chunks(self.adaLN_modulation.forward(cond));
        let features = modulated_norm(&self.norm_final, x, shift, scale);
        Prediction {
            logits: linear(&self.linear, features),
            softcap: self.softcap,
        }
    }

    /// The map from features to the vocabulary.
    pub(crate) fn matrix(&self) -> &Param<Tensor<B, 2>> {
        &self.linear.weight
    }
}

/// The network's answer for a batch: logits `[batch, length, vocabulary]`, kept inside, soft-capped wherever they are used.
#[derive(Clone, Debug)]
pub struct Prediction<B: Backend> {
    logits: Tensor<B, 3>,
    softcap: f64,
}

impl<B: Backend> Prediction<B> {
    /// Cross-entropy against tokens `[batch, length]`, in nats, `[batch, length]`.
    pub fn cross_entropy(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        flm_ops::capped_cross_entropy(self.rows(), tokens.flatten(0, 1), self.softcap)
            .reshape([batch, length])
    }

    /// Cross-entropy −Σ target·log p against a distribution, in nats, `[batch, length]`. No gradient flows to the target.
    pub fn soft_cross_entropy(&self, target: Belief<B>) -> Tensor<B, 2> {
        let [batch, length, _] = self.logits.dims();
        let target = target.probabilities.flatten(0, 1);
        flm_ops::capped_soft_cross_entropy(self.rows(), target, self.softcap)
            .reshape([batch, length])
    }

    /// The denoiser D: a softmax of the logits.
    pub fn belief(&self) -> Belief<B> {
        self.belief_at(1.0)
    }

    /// The denoiser at a temperature: a softmax of logits/temperature.
    pub fn belief_at(&self, temperature: f64) -> Belief<B> {
        let probabilities = flm_ops::capped_softmax(self.rows(), self.softcap, temperature);
        Belief {
            probabilities: probabilities.reshape(self.logits.shape()),
        }
    }

    /// The answers for `count` sequences from `first` on.
    pub fn narrow(&self, first: usize, count: usize) -> Self {
        Self {
            logits: self.logits.clone().narrow(0, first, count),
            softcap: self.softcap,
        }
    }

    fn rows(&self) -> Tensor<B, 2> {
        self.logits.clone().flatten(0, 1)
    }

    /// The logits before their softcap, V-wide: for tests and export, not for hot paths.
    pub fn dense_logits(&self) -> Tensor<B, 3> {
        self.logits.clone()
    }

    /// All log-probabilities, V-wide: for tests and export, not for hot paths.
    pub fn dense_log_probs(&self) -> Tensor<B, 3> {
        let capped = self
            .logits
            .clone()
            .div_scalar(self.softcap)
            .tanh()
            .mul_scalar(self.softcap);
        log_softmax(capped, 2)
    }
}

/// A distribution over the vocabulary for each position.
#[derive(Clone, Debug)]
pub struct Belief<B: Backend> {
    probabilities: Tensor<B, 3>,
}

impl<B: Backend> Belief<B> {
    /// `weight`·self + (1 − `weight`)·other, with one weight for each sequence, `[batch]`.
    pub fn mix(self, other: Self, weight: Tensor<B, 1>) -> Self {
        let weight = weight.unsqueeze_dims::<3>(&[1, 2]);
        let probabilities =
            (self.probabilities - other.probabilities.clone()) * weight + other.probabilities;
        Self { probabilities }
    }

    /// The same belief for a differentiated network to be scored against; no gradient flows through it.
    pub fn lift<A: AutodiffBackend<InnerBackend = B>>(self) -> Belief<A> {
        Belief {
            probabilities: Tensor::from_inner(self.probabilities),
        }
    }

    /// D·E, the mean of the clean projected state, `[batch, length, width]`.
    pub fn mean(&self, embed: &VocabEmbed<B>) -> Tensor<B, 3> {
        embed.project(self.probabilities.clone())
    }

    /// The likeliest token at each position, `[batch, length]`.
    pub fn argmax(&self) -> Tensor<B, 2, Int> {
        self.probabilities.clone().argmax(2).squeeze_dim(2)
    }

    /// The `k` likeliest tokens at each position with their probabilities, likeliest first, each `[batch, length, k]`.
    pub fn top(&self, k: usize) -> (Tensor<B, 3>, Tensor<B, 3, Int>) {
        self.probabilities.clone().topk_with_indices(k, 2)
    }

    /// The distribution itself, V-wide: for tests and export, not for hot paths.
    pub fn dense(&self) -> Tensor<B, 3> {
        self.probabilities.clone()
    }
}
