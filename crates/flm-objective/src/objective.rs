//! The trait.

use crate::{Inner, Losses, Network, Step, StepSize};
use burn::tensor::{Int, Tensor, backend::AutodiffBackend};
use flm_simplex::Clock;

/// Evaluations of a network that training it on a row costs: one forward, and a backward pass that costs as much as two.
pub const TRAINED: f64 = 3.0;

/// What a network is trained towards.
pub trait Objective<B: AutodiffBackend>: Sync + Sized {
    /// The network that is trained.
    type Network: Network<B>;

    /// What all parts of a step share, such as the noise prior of the weights as they stand; `()` if there is nothing.
    type Shared: Sync;

    /// Makes what all parts of a step share.
    fn shared(&self, network: &Inner<B, Self::Network>, size: StepSize) -> Self::Shared;

    /// Scores one part of a step's batch, `tokens` `[rows, length]`. Every random number comes from `step`.
    fn losses(
        &self,
        network: &Self::Network,
        tokens: Tensor<B, 2, Int>,
        step: &Step<'_, B, Self>,
    ) -> Losses<B>;

    /// What a step of `batch` sequences costs, in evaluations of the network.
    fn evaluations(&self, batch: usize) -> f64;

    /// The clock that is fitted to the losses, as it starts, if the objective can draw its times by one.
    fn clock(&self) -> Option<&Clock> {
        None
    }

    /// How many rows of the training split a step wants as [`Step::references`].
    fn references(&self) -> usize {
        0
    }

    /// The network that is trained beside the model, as it starts, if the objective needs one. Parts get it as [`Step::auxiliary`].
    fn auxiliary(&self) -> Option<Self::Network> {
        None
    }
}
