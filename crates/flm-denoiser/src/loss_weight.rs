//! A learned loss weight for each time.

use crate::DitConfig;
use crate::config::LOSS_WEIGHT_HIDDEN;
use crate::embed::TimeEmbed;
use crate::init;
use crate::mode::{Mode, Values};
use burn::module::Module;
use burn::nn::{Gelu, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Tensor, backend::Backend};
use rand::Rng;

/// A learned number w for each time of a state. A loss ℓ is trained as e^(−w)·ℓ + w, which is
/// minimal at w = log ℓ. All times then have a similar influence on the network, whatever the size
/// of their losses.
///
/// It consists of its own time embedding, a linear map, an exact GELU and a linear map to one
/// number, which is zero at the start (`mathematics.md`, section 4). It does not affect the
/// network's output. The field names are those of the reference's checkpoints.
#[derive(Module, Debug)]
pub struct LossWeight<B: Backend> {
    s_embed: TimeEmbed<B>,
    mlp: (Linear<B>, Gelu, Linear<B>),
}

impl<B: Backend> LossWeight<B> {
    pub(crate) fn new(config: &DitConfig, rng: &mut impl Rng, device: &B::Device) -> Self {
        Self {
            s_embed: TimeEmbed::new(config.cond_dim, rng, device),
            mlp: (
                init::linear(config.cond_dim, LOSS_WEIGHT_HIDDEN, true, rng, device),
                Gelu::new(),
                init::zero_linear(LOSS_WEIGHT_HIDDEN, 1, device),
            ),
        }
    }

    /// Returns w at times τ_s `[batch]`, `[batch]`.
    pub(crate) fn forward(&self, tau_s: Tensor<B, 1>) -> Tensor<B, 1> {
        let [batch] = tau_s.dims();
        let time = self.s_embed.evaluate::<Values>(tau_s);
        let hidden = gelu(Values::affine(&self.mlp.0, time));
        Values::affine(&self.mlp.2, hidden).reshape([batch])
    }
}
