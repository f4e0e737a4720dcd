//! The network: embedding, blocks, head.

use crate::block::Block;
use crate::dropout::Dropout;
use crate::embed::{TimeEmbed, VocabEmbed};
use crate::head::{OutputLayer, Prediction};
use crate::{ConfigError, DitConfig};
use burn::module::{Module, ParamId};
use burn::tensor::activation::silu;
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::Rope;
use rand::Rng;
use std::iter;

/// The diffusion transformer of the reference: a denoiser of projected states.
///
/// A one-time network answers D_t; a two-time network (`config.two_time`) answers δ_{s,t}. Both are told τ, never t.
#[derive(Module, Debug)]
pub struct Dit<B: Backend> {
    vocab_embed: VocabEmbed<B>,
    sigma_map: TimeEmbed<B>,
    sigma_map_prime: Option<TimeEmbed<B>>,
    blocks: Vec<Block<B>>,
    output_layer: OutputLayer<B>,
    rope_base: f64,
    heads: usize,
}

impl DitConfig {
    /// A network of these sizes with fresh parameters.
    pub fn init<B: Backend>(
        &self,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Result<Dit<B>, ConfigError> {
        self.validate()?;
        let vocab_embed = VocabEmbed::new(self.vocab_size, self.width, rng, device);
        let sigma_map = TimeEmbed::new(self.cond_dim, rng, device);
        let blocks = (0..self.blocks)
            .map(|_| Block::new(self, rng, device))
            .collect();
        let output_layer = OutputLayer::new(self, device);
        // Last, so that a one-time and a two-time network of one seed share every other parameter.
        let sigma_map_prime = self
            .two_time
            .then(|| TimeEmbed::silent(self.cond_dim, rng, device));
        Ok(Dit {
            vocab_embed,
            sigma_map,
            sigma_map_prime,
            blocks,
            output_layer,
            rope_base: self.rope_base,
            heads: self.heads,
        })
    }
}

impl<B: Backend> Dit<B> {
    /// The embedding matrix, which carries tokens and dense states into the projected space.
    pub fn embed(&self) -> &VocabEmbed<B> {
        &self.vocab_embed
    }

    /// Number of transformer blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Number of attention heads in a block.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Whether the network is told a target time.
    pub fn is_two_time(&self) -> bool {
        self.sigma_map_prime.is_some()
    }

    /// The same network as a two-time one: it starts silent about its target time, so δ_{s,t} = D_s.
    pub fn into_two_time(
        mut self,
        cond_dim: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        self.sigma_map_prime
            .get_or_insert_with(|| TimeEmbed::silent(cond_dim, rng, device));
        self
    }

    /// Evaluates the network.
    ///
    /// - `state`: projected state h = xE, `[batch, length, width]`
    /// - `tau_s`: the state's time, `[batch]`
    /// - `tau_t`: the target time, `[batch]`; a one-time network does not look at it
    pub fn forward(
        &self,
        state: Tensor<B, 3>,
        tau_s: Tensor<B, 1>,
        tau_t: Tensor<B, 1>,
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B> {
        let [_, length, width] = state.dims();
        let rope = Rope::new(length, width / self.heads, self.rope_base, &state.device());
        let time = self.sigma_map.forward(tau_s);
        let time = match &self.sigma_map_prime {
            Some(prime) => time + prime.forward(tau_t),
            None => time,
        };
        let cond = silu(time);
        let mut x = state;
        for block in &self.blocks {
            x = block.forward(x, cond.clone(), &rope, dropout);
        }
        self.output_layer.forward(x, cond)
    }
}

impl<B: Backend> Dit<B> {
    /// The matrices that carry features to features: embedding, attention, MLP and head. Optimizers made for matrices may move
    /// these; not the maps of time and modulation, which hear of little more than one number.
    ///
    /// The embedding is among them because the network sees it through dense noisy states, not one row at a time.
    pub fn matrices(&self) -> Vec<(ParamId, Tensor<B, 2>)> {
        iter::once(&self.vocab_embed.embedding)
            .chain(self.blocks.iter().flat_map(Block::matrices))
            .chain(iter::once(self.output_layer.matrix()))
            .map(|weight| (weight.id, weight.val()))
            .collect()
    }
}
