//! Rewards: what samples should be like besides likely, told to the samplers of a flow while they draw.
//!
//! Before each evaluation the state is moved along the gradient of a reward of where it is heading, z ← z + λ·∇_z r(X_{t,1}(z))
//! (`mathematics.md`, section 5). One evaluation looks ahead to the end: a flow map answers δ_{t,1} = X_{t,1}, a flow D_t, which
//! is where one Euler step to the end leads. [`Ascent`] is that move, for the samplers of `flm_simplex`
//! ([`RewardGuidance`](flm_simplex::guidance::RewardGuidance)).
//!
//! A [`Reward`] sees a text through a vector of its own for each token. Where a position is not decided it sees the mean of the
//! vectors under the probabilities, so nothing V wide leaves the head, and a reward that is trained on tokens is a reward of distributions.
//! Two are here: [`Keywords`], the probability that given words occur, and a [`Classifier`] that tells rows of a corpus from
//! corrupted ones.
//!
//! # States are projected
//!
//! With h = xE the gradient to x is ∇_h r·Eᵀ, so the move of h is λ·∇_h r·(EᵀE): a matrix of the network's width does what
//! a step in V dimensions would.
//!
//! # Example
//!
//! Noise is steered towards texts in which token 5 occurs:
//!
//! ```
//! use burn::backend::Autodiff;
//! use burn_flex::Flex;
//! use flm_denoiser::{DitConfig, Prior, SamplingDenoiser};
//! use flm_reward::{Ascent, Keywords};
//! use flm_simplex::{guidance::RewardGuidance, sampler};
//! use rand::SeedableRng;
//!
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let config = DitConfig::new(27, 16, 32, 1, 2);
//! let dit = config.init::<Flex>(&mut rng, &Default::default())?;
//! let reward = Keywords::<Flex>::new(27, &[5], &Default::default());
//! let ascent = Ascent::<Autodiff<Flex>, _>::new(&dit, dit.embed(), reward, 2.0);
//! let denoiser = RewardGuidance { denoiser: SamplingDenoiser::new(&dit), by: ascent };
//! let start = Prior::new(dit.embed()).draw(3, 16, &mut rng).seen(dit.embed());
//! let distribution = sampler::euler(&denoiser, &config.schedule()?, start, 4, |_| ())?;
//! assert_eq!(distribution.argmax().dims(), [3, 16]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it leaves to others
//!
//! Files of text, tokenizers and what a user types. A classifier's training is here, one small loop ([`train`]), its rows are
//! the caller's.

mod ascent;
mod classifier;
mod corrupt;
mod folder;
mod keywords;
mod train;

pub use ascent::Ascent;
pub use classifier::{Classifier, ClassifierConfig, SizesError};
pub use corrupt::corrupt;
pub use flm_denoiser::folder::Existing;
pub use folder::{ClassifierFile, RewardError, check_replaced, load, read_config, save};
pub use keywords::Keywords;
pub use train::{ClassifierTraining, recognized, train};

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

/// A differentiable score of texts that need not be decided.
pub trait Reward<A: AutodiffBackend> {
    /// What it sees of each token, `[vocabulary, n]`.
    fn vectors(&self) -> Tensor<A::InnerBackend, 2>;

    /// The reward of each sequence, `[batch]`, of the mean of what it sees at each position, `[batch, length, n]`. A sequence's reward
    /// depends on that sequence alone.
    fn of(&self, means: Tensor<A, 3>) -> Tensor<A, 1>;
}

impl<A: AutodiffBackend, R: Reward<A> + ?Sized> Reward<A> for &R {
    fn vectors(&self) -> Tensor<A::InnerBackend, 2> {
        (**self).vectors()
    }

    fn of(&self, means: Tensor<A, 3>) -> Tensor<A, 1> {
        (**self).of(means)
    }
}

impl<A: AutodiffBackend, R: Reward<A> + ?Sized> Reward<A> for Box<R> {
    fn vectors(&self) -> Tensor<A::InnerBackend, 2> {
        (**self).vectors()
    }

    fn of(&self, means: Tensor<A, 3>) -> Tensor<A, 1> {
        (**self).of(means)
    }
}

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
