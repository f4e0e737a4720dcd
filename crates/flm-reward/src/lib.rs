//! Reward guidance for samplers of flows and flow maps.
//!
//! Before each evaluation the state moves along the gradient of the reward at its predicted end
//! (`mathematics.md`, section 5): z ← z + λ·∇_z r(X_{t,1}(z)). One evaluation predicts the end:
//! δ_{t,1} = X_{t,1} for a flow map, and D_t for a flow, the result of one Euler step to the end.
//! [`Ascent`] is this move, for the samplers of `flm_simplex`
//! ([`RewardGuidance`](flm_simplex::guidance::RewardGuidance)).
//!
//! A [`Reward`] has a vector for each token. At an undecided position it takes the mean of the
//! vectors under the token probabilities. So no tensor of width V leaves the head, and a reward
//! trained on tokens applies to distributions. The crate has two rewards: [`Keywords`], the
//! probability that given words occur, and a [`Classifier`] that distinguishes rows of a corpus
//! from corrupted ones.
//!
//! # States are projected
//!
//! With h = xE the gradient with respect to x is ∇_h r·Eᵀ, so the move of h is λ·∇_h r·(EᵀE). A
//! matrix of the network's width replaces a step in V dimensions.
//!
//! # Example
//!
//! Guide samples towards texts that contain token 5:
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
//! # Scope
//!
//! Text files, tokenizers and user input are in other crates. The training loop of classifiers is
//! here ([`train`]); the caller supplies the rows.

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

/// A differentiable score of texts with possibly undecided tokens.
pub trait Reward<A: AutodiffBackend> {
    /// Returns the vector of each token, `[vocabulary, n]`.
    fn vectors(&self) -> Tensor<A::InnerBackend, 2>;

    /// Returns the reward of each sequence, `[batch]`, from the mean vector at each position,
    /// `[batch, length, n]`.
    ///
    /// The reward of a sequence depends only on that sequence.
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
