//! The mathematics of continuous flow language models: time, the line from noise to data, flow maps, samplers.
//!
//! A flow language model writes text by moving noise. Each position of a sequence is a point in V dimensions, V the size
//! of the vocabulary: Gaussian noise at time t = 0, the one-hot vector of a token at t = 1, and on the straight line
//! between them meanwhile, I_t = (1−t)·x₀ + t·x₁ ([`interpolant`]). A *denoiser* looks at a noisy state and says how
//! likely each token is at each position, D_t(x). That alone tells how the state should move: towards D, at velocity
//! (D − x)/(1 − t). Follow it for many small steps, and noise becomes text ([`sampler::euler`]).
//!
//! Or learn to take the steps at once. A *two-time* denoiser δ_{s,t} says where the flow from s to t is heading; the flow
//! map X_{s,t} = (1−t)/(1−s)·x + (t−s)/(1−s)·δ_{s,t} ([`flow_map`]) then jumps from s to t in a single
//! evaluation, and one jump from 0 to 1 is a whole text in one step ([`sampler::flow_map`]).
//!
//! With a large vocabulary nearly everything is decided in a narrow band of t. The network and the samplers therefore count
//! time as τ, by how often the noisy state already decodes to the right token ([`Schedule`]).
//!
//! # Example
//!
//! A distribution over three two-letter words has a denoiser in closed form, so it can be sampled without a network:
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
//! // A hundred words, by thirty-two small steps and by one jump from the same noise.
//! let many = sampler::euler(&denoiser, &schedule, noise.clone(), 32, |_| ())?;
//! let one = sampler::flow_map(&denoiser, &schedule, noise, 1, 0.0, || unreachable!(), |_| ())?;
//!
//! let (many, one) = (distribution.decode(many), distribution.decode(one));
//! let same = many.iter().zip(&one).filter(|(a, b)| a == b).count();
//! assert!(same >= 90);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is where
//!
//! | module | holds |
//! | --- | --- |
//! | [`schedule`] | τ(t), its inverse and its derivative ([`Schedule`]) |
//! | [`clock`] | how training and samplers spread their time over τ |
//! | [`decoding`] | the integral behind it, for other corruptions of one-hots |
//! | [`extremes`] | the largest of many normal numbers, drawn alone |
//! | [`times`] | stratified draws of τ, grids for samplers |
//! | [`noise`] | Gaussian tensors from a generator the caller owns |
//! | [`interpolant`] | I_t and the flow's velocity, a time for every row |
//! | [`flow_map`] | X_{s,t}, the semigroup weight, the small constants of the reference |
//! | [`projection`] | sparsemax |
//! | [`guidance`] | denoisers made of others: away from a weaker one, or towards a reward |
//! | [`sampler`] | Euler and flow-map sampling over any [`Denoiser`] |
//! | [`pinned`] | the same with some positions known |
//! | [`distribution`] | small discrete distributions with exact denoisers, to test against |
//!
//! Two conventions hold throughout. **The network sees τ, geometry uses t**: arguments say which by their name. And
//! **states are `[batch, length, width]` in any linear coordinates**: dense, with width V, or projected, h = xE, with the
//! model's width. All updates are affine, so the samples are the same and nothing here needs to be V wide.
//!
//! # What it leaves to others
//!
//! Networks, their embeddings and heads, losses and training, files and text. Formulas carry the numbers of the sections of
//! the project's `mathematics.md`; constants that only the published implementation explains say so.

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

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
