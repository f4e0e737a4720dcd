//! The objective trait and the inputs of its steps.

use crate::losses::Losses;
use crate::network::{Inner, Network};
use burn::tensor::{Int, Tensor, backend::AutodiffBackend};
use flm_denoiser::{Dropout, Noise, Prior};
use flm_simplex::Clock;
use flm_simplex::stream::Stream;
use rand_chacha::ChaCha8Rng;

/// Cost of training a network on one row, in evaluations: a forward pass, and a backward pass that
/// costs as much as two.
pub const TRAINED: f64 = 3.0;

/// A training objective for a network.
pub trait Objective<B: AutodiffBackend>: Sync + Sized {
    /// The network that is trained.
    type Network: Network<B>;

    /// Data that all parts of a step share, such as the noise prior of the current weights; `()` if
    /// there is none.
    type Shared: Sync;

    /// Computes the data that all parts of a step share.
    fn shared(&self, network: &Inner<B, Self::Network>, size: StepSize) -> Self::Shared;

    /// Scores one part of a step's batch, `tokens` `[rows, length]`. All randomness must come
    /// from `step`.
    fn losses(
        &self,
        network: &Self::Network,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B>;

    /// Returns the cost of a step of `batch` sequences, in evaluations of the network.
    fn evaluations(&self, batch: usize) -> f64;

    /// Returns the initial clock to fit to the losses, if the objective can draw its times
    /// from one.
    fn clock(&self) -> Option<&Clock> {
        None
    }

    /// Returns the number of training rows that a step needs as [`TrainingStep::references`].
    fn references(&self) -> usize {
        0
    }

    /// Returns the initial auxiliary network, which is trained alongside the model, if the
    /// objective needs one. Parts receive it as [`TrainingStep::auxiliary`].
    fn auxiliary(&self) -> Option<Self::Network> {
        None
    }
}

/// The size of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// Number of tokens in all sequences together.
    pub tokens: usize,
    /// Number of parts, each with its own backward pass.
    pub parts: usize,
}

/// Rows of the training split, `length` tokens each, concatenated.
#[derive(Clone, Copy, Debug)]
pub struct References<'a> {
    /// Token ids of all rows.
    pub ids: &'a [u32],
    /// Number of tokens per row.
    pub length: usize,
}

/// The inputs of one part of a training step, in addition to the network and its tokens.
pub struct TrainingStep<'a, B: AutodiffBackend, O: Objective<B>> {
    /// Names the random generators of the part.
    pub stream: Stream,
    /// Number of steps of the whole run.
    pub steps: u64,
    /// Number of sequences in all parts together.
    pub batch: usize,
    /// The current averaged weights.
    pub average: &'a Inner<B, O::Network>,
    /// The auxiliary network, if the objective has one.
    pub auxiliary: Option<&'a O::Network>,
    /// Rows of the training split, if the objective needs some; `None` in validation.
    pub references: Option<References<'a>>,
    /// The clock as currently fitted to the losses, if one is fitted; `None` in validation.
    pub clock: Option<&'a Clock>,
    /// Data that all parts share.
    pub shared: &'a O::Shared,
    /// Dropout probability of the residual branches; 0 in validation.
    pub dropout: f64,
}

/// Purposes of generators ([`Stream`]). The draws of a seed depend on them, so a number is never
/// reused for another purpose.
pub mod purpose {
    /// Times of the rows.
    pub const TIMES: u64 = 1;
    /// Noise of the states.
    pub const NOISE: u64 = 2;
    /// Dropped entries.
    pub const DROPOUT: u64 = 3;
    /// Corrupted tokens.
    pub const CORRUPTION: u64 = 4;
    /// Choice of known positions.
    pub const KNOWN: u64 = 5;
    /// Noise added back to generated texts.
    pub const RENOISING: u64 = 6;
}

impl<B: AutodiffBackend, O: Objective<B>> TrainingStep<'_, B, O> {
    /// Returns the generator of the times of the whole batch, the same for all parts.
    pub fn times(&self) -> ChaCha8Rng {
        self.stream.shared(purpose::TIMES)
    }

    /// Returns this part's share of the rows of the whole batch.
    pub fn share<T: Clone>(&self, rows: &[T]) -> Vec<T> {
        self.stream.share(rows)
    }

    /// Calls `forward` with this part's dropout.
    pub fn with_dropout<R>(&self, forward: impl FnOnce(&mut Dropout<'_>) -> R) -> R {
        let mut generator = self.stream.own(purpose::DROPOUT);
        forward(&mut Dropout::on(self.dropout, &mut generator))
    }
}

impl<B: AutodiffBackend, O: Objective<B, Shared = Prior<B::InnerBackend>>> TrainingStep<'_, B, O> {
    /// Draws noise for `[rows, length]` positions.
    pub fn noise(&self, [rows, length]: [usize; 2]) -> Noise<B::InnerBackend> {
        let mut generator = self.stream.own(purpose::NOISE);
        self.shared.draw(rows, length, &mut generator)
    }
}
