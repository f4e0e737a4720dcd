//! The trait, and what a step gives to it.

use crate::losses::Losses;
use crate::network::{Inner, Network};
use burn::tensor::{Int, Tensor, backend::AutodiffBackend};
use flm_denoiser::{Dropout, Noise, Prior};
use flm_simplex::Clock;
use flm_simplex::stream::Stream;
use rand_chacha::ChaCha8Rng;

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
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B>;

    /// What a step of `batch` sequences costs, in evaluations of the network.
    fn evaluations(&self, batch: usize) -> f64;

    /// The clock that is fitted to the losses, as it starts, if the objective can draw its times by one.
    fn clock(&self) -> Option<&Clock> {
        None
    }

    /// How many rows of the training split a step wants as [`TrainingStep::references`].
    fn references(&self) -> usize {
        0
    }

    /// The network that is trained beside the model, as it starts, if the objective needs one. Parts get it as [`TrainingStep::auxiliary`].
    fn auxiliary(&self) -> Option<Self::Network> {
        None
    }
}

/// How large a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// Tokens of all sequences together.
    pub tokens: usize,
    /// Parts, each with a backward pass of its own.
    pub parts: usize,
}

/// Rows of the corpus, `length` tokens each, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct References<'a> {
    /// Their tokens.
    pub ids: &'a [u32],
    /// Tokens in a row.
    pub length: usize,
}

/// What one part of a training step is computed from, beside the network and its tokens.
pub struct TrainingStep<'a, B: AutodiffBackend, O: Objective<B>> {
    /// Names the generators.
    pub stream: Stream,
    /// Steps of the whole run.
    pub steps: u64,
    /// Sequences in all parts together.
    pub batch: usize,
    /// The averaged weights as they stand.
    pub average: &'a Inner<B, O::Network>,
    /// The network that is trained beside the model, where the objective has one.
    pub auxiliary: Option<&'a O::Network>,
    /// Rows of the training split, where the objective wants some; none in validation.
    pub references: Option<References<'a>>,
    /// The clock as it is fitted to the losses by now, where it is.
    pub clock: Option<&'a Clock>,
    /// What all parts share.
    pub shared: &'a O::Shared,
    /// Probability with which residual branches drop an entry; 0 in validation.
    pub dropout: f64,
}

/// Purposes of generators ([`Stream`]). They are part of what a seed means: a number is never used for anything else.
pub mod purpose {
    /// Times of the rows.
    pub const TIMES: u64 = 1;
    /// Noise of the states.
    pub const NOISE: u64 = 2;
    /// Dropped entries.
    pub const DROPOUT: u64 = 3;
    /// Corrupted tokens.
    pub const CORRUPTION: u64 = 4;
    /// Known positions.
    pub const KNOWN: u64 = 5;
    /// Noise that is put back on generated texts.
    pub const RENOISING: u64 = 6;
}

impl<B: AutodiffBackend, O: Objective<B>> TrainingStep<'_, B, O> {
    /// The generator of the times of the whole batch, the same for all parts.
    pub fn times(&self) -> ChaCha8Rng {
        self.stream.shared(purpose::TIMES)
    }

    /// This part's share of the rows of the whole batch.
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
    /// Noise for `[rows, length]` positions.
    pub fn noise(&self, [rows, length]: [usize; 2]) -> Noise<B::InnerBackend> {
        let mut generator = self.stream.own(purpose::NOISE);
        self.shared.draw(rows, length, &mut generator)
    }
}
