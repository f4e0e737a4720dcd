//! The mathematics of continuous flow language models: time schedules, the interpolant, flow maps
//! and samplers.
//!
//! A flow language model generates text by transporting noise. Each position of a sequence is a
//! point in V dimensions, where V is the vocabulary size. At time t = 0 it is Gaussian noise; at
//! t = 1 it is the one-hot vector of a token. In between it lies on the straight line
//! I_t = (1−t)·x₀ + t·x₁ ([`interpolant`]). A *denoiser* reads a noisy state and predicts the
//! probability of each token at each position, D_t(x). The prediction determines the velocity of
//! the state, (D − x)/(1 − t), which points towards D. Integrating it in many small steps turns
//! noise into text ([`sampler::euler`]).
//!
//! A *two-time* denoiser δ_{s,t} predicts the average of D along the flow from s to t. The flow map
//! X_{s,t} = (1−t)/(1−s)·x + (t−s)/(1−s)·δ_{s,t} ([`flow_map`]) jumps from s to t in one
//! evaluation. One jump from 0 to 1 generates a whole text ([`sampler::flow_map`]).
//!
//! With a large vocabulary nearly everything is decided in a narrow band of t. The network and the
//! samplers therefore use the time τ, which measures how often the noisy state already decodes to
//! the right token ([`Schedule`]).
//!
//! # Example
//!
//! A distribution over three two-letter words has a closed-form denoiser, so it can be sampled
//! without a network:
//!
//! ```
//! use burn_flex::Flex;
//! use flm_simplex::{Schedule, distribution::DiscreteDistribution, noise::gaussian, sampler};
//! use rand::SeedableRng;
//!
//! let words = vec![vec![0, 1], vec![2, 1], vec![2, 0]];
//! let distribution = DiscreteDistribution::new(3, words, &[0.5, 0.3, 0.2])?;
//! let schedule = Schedule::new(3)?;
//! let denoiser = distribution.denoiser(&schedule);
//!
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let noise = gaussian::<Flex, _, 3>(distribution.state_shape(100), &mut rng, &Default::default());
//!
//! // 100 words from the same noise: in 32 Euler steps, and in one flow-map jump.
//! let many = sampler::euler(&denoiser, &schedule, noise.clone(), 32, |_| ())?;
//! let one = sampler::flow_map(&denoiser, &schedule, noise, 1, 0.0, || unreachable!(), |_| ())?;
//!
//! let (many, one) = (distribution.decode(many), distribution.decode(one));
//! let same = many.iter().zip(&one).filter(|(a, b)| a == b).count();
//! assert!(same >= 90);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//!
//! | module | contents |
//! | --- | --- |
//! | [`schedule`] | τ(t), its inverse and its derivative ([`Schedule`]) |
//! | [`clock`] | how training and sampling time is spread over τ |
//! | [`decoding`] | the probability behind τ, for any Gaussian corruption of one-hots |
//! | [`extremes`] | the largest of many normal numbers, without drawing the rest |
//! | [`times`] | stratified draws of τ, sampler grids |
//! | [`noise`] | Gaussian tensors from a generator that the caller owns |
//! | [`stream`] | random generators named by seed, step, part and purpose |
//! | [`interpolant`] | I_t and the flow's velocity, with one time per row |
//! | [`flow_map`] | X_{s,t}, the semigroup weight, the guard constants of the reference |
//! | [`projection`] | sparsemax |
//! | [`guidance`] | autoguidance by a weaker denoiser, reward guidance |
//! | [`sampler`] | Euler, flow-map and bridge sampling over any [`Denoiser`] |
//! | [`pinned`] | sampling with some positions known |
//! | [`distribution`] | small discrete distributions with exact denoisers, for tests |
//!
//! Two conventions hold throughout. **The network reads τ; geometry uses t**: argument names say
//! which. **States are `[batch, length, width]` in any linear coordinates**: dense with width V, or
//! projected, h = xE, with the model's width. All updates are affine, so both give the same samples
//! and no state here needs to be V wide.
//!
//! # Scope
//!
//! This crate has no networks, embeddings, heads, losses, training, files or text. Section numbers
//! refer to the project's `mathematics.md`. Constants that only the published implementation
//! explains are marked as such.

pub mod clock;
pub mod decoding;
pub mod distribution;
pub mod extremes;
pub mod flow_map;
pub mod guidance;
pub mod interpolant;
pub mod noise;
pub mod pinned;
pub mod projection;
pub mod sampler;
pub mod schedule;
mod spline;
pub mod stream;
pub mod times;

pub use clock::{Clock, ClockError};
pub use pinned::Pinned;
pub use sampler::{Denoiser, SamplerError};
pub use schedule::{Schedule, ScheduleError};

/// Compiles the README's examples as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
