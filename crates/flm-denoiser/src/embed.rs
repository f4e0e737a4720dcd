//! How tokens, states and times enter the network.

use crate::init;
use crate::mode::Mode;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, backend::Backend};
use rand::Rng;

/// Width of the sinusoidal time features.
pub(crate) const TIME_FEATURES: usize = 256;
/// Longest period of the sinusoidal time features.
const MAX_PERIOD: f64 = 10_000.0;

/// The token embedding matrix E, `[vocabulary, width]`, without a bias.
#[derive(Module, Debug)]
pub struct VocabEmbed<B: Backend> {
    /// E, one row for each token.
    pub embedding: Param<Tensor<B, 2>>,
}

impl<B: Backend> VocabEmbed<B> {
    pub(crate) fn new(
        vocab_size: usize,
        width: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        // The reference draws E as a linear map of fan-in `width`.
        let bound = 1.0 / (width as f64).sqrt();
        Self {
            embedding: init::uniform([vocab_size, width], bound, rng, device),
        }
    }

    /// The embedding whose states are those of self and of another, side by side: x·\[E, F\] = \[xE, xF\].
    ///
    /// # Panics
    ///
    /// If the vocabularies differ in size.
    pub fn beside(&self, other: &Self) -> Self {
        let both = vec![self.embedding.val(), other.embedding.val()];
        Self {
            embedding: Param::from_tensor(Tensor::cat(both, 1)),
        }
    }

    /// Rows of E for token ids `[batch, length]`: the projected state of one-hot data, `[batch, length, width]`.
    pub fn tokens(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        flm_ops::rows(self.embedding.val(), ids)
    }

    /// x·E for a dense state or distribution `[batch, length, vocabulary]`: the projected state `[batch, length, width]`.
    pub fn project(&self, dense: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, length, vocab] = dense.dims();
        let weight = self.embedding.val();
        let width = weight.dims()[1];
        flm_ops::matmul(dense.reshape([batch * length, vocab]), weight)
            .reshape([batch, length, width])
    }
}

/// A time embedding: sinusoids of τ through a two-layer map. τ is not scaled.
///
/// The middle entry only holds the place of the activation, so that parameters are named as in the reference (`mlp.0`, `mlp.2`).
#[derive(Module, Debug)]
pub struct TimeEmbed<B: Backend> {
    mlp: (Linear<B>, burn::nn::Gelu, Linear<B>),
}

impl<B: Backend> TimeEmbed<B> {
    pub(crate) fn new(cond_dim: usize, rng: &mut impl Rng, device: &B::Device) -> Self {
        let first = init::linear(TIME_FEATURES, cond_dim, true, rng, device);
        let last = init::linear(cond_dim, cond_dim, true, rng, device);
        Self {
            mlp: (first, burn::nn::Gelu::new(), last),
        }
    }

    /// As [`new`](Self::new), silent at the start: a flow map begins as the flow it is distilled from.
    pub(crate) fn silent(cond_dim: usize, rng: &mut impl Rng, device: &B::Device) -> Self {
        let first = init::linear(TIME_FEATURES, cond_dim, true, rng, device);
        Self {
            mlp: (
                first,
                burn::nn::Gelu::new(),
                init::zero_linear(cond_dim, cond_dim, device),
            ),
        }
    }

    /// The embedding `[batch, cond_dim]` of times `tau` `[batch]`.
    pub(crate) fn evaluate<M: Mode<B>>(&self, tau: M::Of<1>) -> M::Of<2> {
        let half = TIME_FEATURES / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| (-MAX_PERIOD.ln() * i as f64 / half as f64).exp() as f32)
            .collect();
        let angles = M::map(tau, |tau: Tensor<B, 1>| {
            let frequencies = Tensor::<B, 1>::from_floats(frequencies.as_slice(), &tau.device());
            tau.unsqueeze_dim::<2>(1) * frequencies.unsqueeze_dim::<2>(0)
        });
        let hidden = M::silu(M::affine(&self.mlp.0, M::waves(angles)));
        M::affine(&self.mlp.2, hidden)
    }
}
