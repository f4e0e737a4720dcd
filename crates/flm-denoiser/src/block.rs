//! A transformer block conditioned on time through adaptive layer normalization.
// On the module, because `Module` derives a record with the same field names.
#![allow(
    non_snake_case,
    reason = "parameters carry the names of the reference's checkpoints"
)]

use crate::dropout::Dropout;
use crate::mode::{EPSILON, Mode, Values};
use crate::{DitConfig, init};
use burn::module::{Module, Param};
use burn::nn::{Gelu, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::{Attention, Precision, Rope};
use rand::Rng;

/// A transformer block: attention and an MLP, each between a modulated LayerNorm and a
/// gated residual.
///
/// The field names are those of the reference's checkpoints.
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
    #[module(skip)]
    precision: Precision,
    causal: bool,
}

impl<B: Backend> Block<B> {
    /// Creates a block of these sizes with fresh parameters.
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
            precision: Precision::default(),
            causal: config.family.is_causal(),
        }
    }

    /// Sets the precision of the block's matrix products.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Evaluates the block on `x` `[batch, length, width]` with the condition `cond`
    /// `[batch, cond_dim]`.
    ///
    /// The tables of `rope` must be for this length and the width of a head.
    pub fn forward(
        &self,
        x: Tensor<B, 3>,
        cond: Tensor<B, 2>,
        rope: &Rope<B>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<B, 3> {
        let steer = |map: &Linear<B>| modulation::<B, Values>(map, cond.clone());
        self.evaluate::<Values>(x, steer, rope, dropout)
    }

    /// Evaluates the block with the modulations that `steer` computes from a linear map.
    ///
    /// `steer` returns `[batch, 1, outputs]` for all positions alike, or `[batch,
    /// length, outputs]`.
    pub(crate) fn evaluate<M: Mode<B>>(
        &self,
        x: M::Of<3>,
        steer: impl Fn(&Linear<B>) -> M::Of<3>,
        rope: &Rope<B>,
        dropout: &mut Dropout<'_>,
    ) -> M::Of<3> {
        let mix = |qkv, attention| M::attention(qkv, rope, attention);
        self.evaluate_with::<M>(x, steer, mix, dropout)
    }

    /// [`evaluate`](Self::evaluate) with `mix` as the attention.
    pub(crate) fn evaluate_with<M: Mode<B>>(
        &self,
        x: M::Of<3>,
        steer: impl Fn(&Linear<B>) -> M::Of<3>,
        mix: impl FnOnce(M::Of<3>, Attention) -> M::Of<3>,
        dropout: &mut Dropout<'_>,
    ) -> M::Of<3> {
        let [_, positions, width] = M::value(&x).dims();
        let entries = positions * width;
        let modulation = steer(&self.adaLN_modulation);
        let [shift1, scale1, gate1, shift2, scale2, gate2] = chunks::<B, M, 6>(modulation);
        let by = [shift1, scale1];
        let qkv = M::norm_linear(&self.norm1, x.clone(), by, &self.attn_qkv, self.precision);
        let attention = Attention {
            heads: self.heads,
            softcap: self.softcap,
            causal: self.causal,
        };
        let mixed = mix(qkv, attention);
        let branch = M::linear(&self.attn_out, mixed);
        let x = M::gated_residual(x, branch, gate1, dropout.mask(entries));
        let by = [shift2, scale2];
        let hidden = M::norm_linear(&self.norm2, x.clone(), by, &self.mlp.0, self.precision);
        let branch = M::gelu_linear(&self.mlp.2, hidden);
        M::gated_residual(x, branch, gate2, dropout.mask(entries))
    }

    /// The weight matrices of attention and MLP.
    pub(crate) fn matrices(&self) -> [&Param<Tensor<B, 2>>; 4] {
        [
            &self.attn_qkv.weight,
            &self.attn_out.weight,
            &self.mlp.0.weight,
            &self.mlp.2.weight,
        ]
    }
}

/// A LayerNorm over the width with a weight and without a bias.
pub(crate) fn layer_norm<B: Backend>(width: usize, device: &B::Device) -> LayerNorm<B> {
    LayerNormConfig::new(width)
        .with_bias(false)
        .with_epsilon(EPSILON)
        .init(device)
}

/// Applies a map to a condition `[batch, cond_dim]`, the same for all positions: `[batch,
/// 1, outputs]`.
pub(crate) fn modulation<B: Backend, M: Mode<B>>(map: &Linear<B>, cond: M::Of<2>) -> M::Of<3> {
    M::map(M::affine(map, cond), |x| x.unsqueeze_dim::<3>(1))
}

/// Splits `[batch, positions, N·width]` into N parts `[batch, positions, width]`.
pub(crate) fn chunks<B: Backend, M: Mode<B>, const N: usize>(x: M::Of<3>) -> [M::Of<3>; N] {
    std::array::from_fn(|i| {
        M::map(x.clone(), |x| {
            let width = x.dims()[2] / N;
            x.narrow(2, i * width, width)
        })
    })
}
