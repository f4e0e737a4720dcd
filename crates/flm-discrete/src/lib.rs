//! Discrete diffusion and autoregression on the same backbone: what a flow language model is measured against.
//!
//! A flow moves points in V dimensions; these move tokens. Three ways, one network ([`flm_denoiser::Dit`], of another
//! [`Family`](flm_denoiser::Family) each):
//!
//! - [`mdlm`]: tokens disappear, and are filled in. Once filled they stay.
//! - [`duo`]: tokens are replaced by any others, and corrected until the end.
//! - [`autoregressive`]: one token after the other, which is the likelihood itself and no bound of it.
//!
//! All of them draw the tokens of a step on their own, each from what it is likely to be alone. With few steps that shows: *New York* and *San
//! Diego* become *New Diego*. Their distillations teach one step what two do: [`sdtt`] a masked diffusion, [`dcd`] a uniform-state one.
//!
//! # Example
//!
//! A fresh network fills masked tokens with anything, leaves what is given, and knows what it is worth:
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
//! // The id behind the last token is the mask token.
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
//! # What it leaves to others
//!
//! The network, its head and everything V wide are `flm_denoiser`'s; loops, optimizers and checkpoints `flm-train`'s; texts and files are further up.

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
