//! Discrete diffusion and autoregressive models, the baselines of flow language models.
//!
//! A flow moves points in V dimensions; these models change tokens. All three use the network
//! [`flm_denoiser::Dit`], each with its own [`Family`](flm_denoiser::Family):
//!
//! - [`mdlm`]: masked diffusion. Noise masks tokens, and the network fills them in. Filled
//!   tokens stay.
//! - [`duo`]: uniform-state diffusion. Noise replaces tokens by uniform ones, and the network
//!   corrects them until the last step.
//! - [`autoregressive`]: one token after the other, with an exact likelihood instead of a bound.
//!
//! The diffusion models draw the tokens of a step independently, each from its marginal. With few
//! steps this mixes texts: *New York* and *San Diego* become *New Diego*. Distillation teaches a
//! model to take two steps in one: [`sdtt`] for masked diffusion, [`dcd`] for
//! uniform-state diffusion.
//!
//! # Example
//!
//! An untrained network fills mask tokens, keeps known tokens, and has a likelihood bound:
//!
//! ```
//! use burn_flex::Flex;
//! use flm_denoiser::{DitConfig, Family};
//! use flm_discrete::{Bound, TokenSampling, Tokens, mdlm};
//! use rand::SeedableRng;
//!
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let config = DitConfig::new(27, 4, 32, 1, 2).with_family(Family::Mdlm);
//! let model = config.init::<Flex>(&mut rng, &Default::default())?;
//!
//! // The mask token has the id after the last token.
//! let start = Tokens::new(vec![3, 27, 27, 27, 27, 27, 9, 27], 4);
//! let mut rngs = [2, 3].map(rand_chacha::ChaCha8Rng::seed_from_u64);
//! let found = mdlm::sample(&model, start, TokenSampling::new(8), true, &mut rngs)?;
//! assert_eq!((found.tokens.row(0)[0], found.tokens.row(1)[2]), (3, 9));
//! assert!(found.tokens.ids().iter().all(|id| (0..27).contains(id)));
//!
//! let nats = mdlm::nats(&model, &found.tokens, 4, &mut rng);
//! assert!(Bound::of(&nats, 4).nats > 0.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Scope
//!
//! The network, its head and all computations over V tokens are in `flm_denoiser`. Training loops,
//! optimizers and checkpoints are in `flm-train`. Texts and files are in higher-level crates.

pub mod autoregressive;
mod bound;
mod config;
pub mod dcd;
pub mod duo;
mod losses;
pub mod mdlm;
mod predict;
mod schedule;
pub mod sdtt;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;

pub use bound::{Bound, bound};
pub use config::{CurriculumConfig, DcdConfig, DiscreteConfigError, SdttConfig};
pub use predict::Predict;
pub use schedule::{Level, LogLinear, training_times};
pub use settings::{Sampled, SamplingError, TokenSampling};
pub use tokens::Tokens;

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
