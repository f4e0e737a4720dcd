//! A transformer block steered by time through adaptive layer normalization.
// On the module: `Module` derives a record with the same field names.
#![allow(
    non_snake_case,
    reason = "parameters carry the names of the reference's checkpoints"
)]

use crate::dropout::Dropout;
use crate::{DitConfig, init};
use burn::module::{Module, Param};
use burn::nn::{Gelu, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::{Modulated, Rope};
use rand::Rng;

/// Attention and MLP, each between a modulated LayerNorm and a gated residual.
///
/// Field names are those of the reference's checkpoints.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    norm1: LayerNorm<B>,
    attn_qkv: Linear<B>,
    attn_out: Linear<B>,
    norm2: LayerNorm<B>,
    mlp: (Linear<B>, Gelu, Linear<B>),
    adaLN_modulation: Linear<B>,
    heads: usize,
    softcap: f64,
}

impl<B: Backend> Block<B> {
    /// A block of these sizes with fresh parameters.
    pub fn new(config: &DitConfig, rng: &mut impl Rng, device: &B::Device) -> Self {
        let (width, hidden) = (config.width, config.width * config.mlp_ratio);
        Self {
            norm1: layer_norm(width, device),
            attn_qkv: init::linear(width, 3 * width, false, rng, device),
            attn_out: init::linear(width, width, false, rng, device),
            norm2: layer_norm(width, device),
            mlp: (
                init::linear(width, hidden, true, rng, device),
                Gelu::new(),
                init::linear(hidden, width, true, rng, device),
            ),
            adaLN_modulation: init::zero_linear(config.cond_dim, 6 * width, device),
            heads: config.heads,
            softcap: config.attention_softcap,
        }
    }

    /// `x` `[batch, length, width]`, `cond` `[batch, cond_dim]`; tables of `rope` for the length and the width of a head.
    pub fn forward(
        &self,
        x: Tensor<B, 3>,
        cond: Tensor<B, 2>,
        rope: &Rope<B>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<B, 3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] =
            chunks(self.adaLN_modulation.forward(cond));
        let normal = modulated(&self.norm1, x.clone(), shift1, scale1);
        let qkv = flm_ops::norm_linear(normal, self.attn_qkv.weight.val(), None);
        let mixed = flm_ops::attention(qkv, rope, self.heads, self.softcap);
        let branch = flm_ops::linear(mixed, self.attn_out.weight.val(), None);
        let x = flm_ops::gated_residual(x, branch, gate1, dropout.mask());
        let normal = modulated(&self.norm2, x.clone(), shift2, scale2);
        let hidden = flm_ops::norm_linear(normal, self.mlp.0.weight.val(), Some(bias(&self.mlp.0)));
        let branch = flm_ops::gelu_linear(hidden, self.mlp.2.weight.val(), bias(&self.mlp.2));
        flm_ops::gated_residual(x, branch, gate2, dropout.mask())
    }

    /// The weights of attention and MLP.
    pub(crate) fn matrices(&self) -> [&Param<Tensor<B, 2>>; 4] {
        [
            &self.attn_qkv.weight,
            &self.attn_out.weight,
            &self.mlp.0.weight,
            &self.mlp.2.weight,
        ]
    }
}

/// ε of every LayerNorm.
const EPSILON: f64 = 1e-5;

/// The bias of a map that was made with one.
pub(crate) fn bias<B: Backend>(map: &Linear<B>) -> Tensor<B, 1> {
    map.bias.as_ref().expect("a map with a bias").val()
}

/// LayerNorm, then x·(1 + scale) + shift with one shift and scale for each sequence, to be computed.
pub(crate) fn modulated<B: Backend>(
    norm: &LayerNorm<B>,
    x: Tensor<B, 3>,
    shift: Tensor<B, 3>,
    scale: Tensor<B, 3>,
) -> Modulated<B> {
    Modulated {
        x,
        weight: norm.gamma.val(),
        shift,
        scale,
        epsilon: EPSILON,
    }
}

/// A LayerNorm over the width with a weight and no bias.
pub(crate) fn layer_norm<B: Backend>(width: usize, device: &B::Device) -> LayerNorm<B> {
    LayerNormConfig::new(width)
        .with_bias(false)
        .with_epsilon(EPSILON)
        .init(device)
}

/// Cuts `[batch, N·width]` into N parts `[batch, 1, width]`.
pub(crate) fn chunks<B: Backend, const N: usize>(x: Tensor<B, 2>) -> [Tensor<B, 3>; N] {
    let [_, total] = x.dims();
    let width = total / N;
    let x = x.unsqueeze_dim::<3>(1);
    std::array::from_fn(|i| x.clone().narrow(2, i * width, width))
}
