//! The transformer denoiser of a flow language model, its vocabulary head and its model folder.
//!
//! A flow language model turns noise into text by asking one question again and again: given this noisy sequence at this
//! time, how likely is each token at each position? [`Dit`] answers it. It is the diffusion transformer of the published
//! implementation, parameter by parameter, so that weights travel both ways: token embedding, sinusoidal time embedding,
//! blocks whose LayerNorms are shifted and scaled by time, rotary attention, and a head with soft-capped logits
//! (`mathematics.md`, section 3). There is one definition of it; training, sampling and import all go through the same blocks.
//!
//! A *one-time* network knows the time τ of its state and answers D, the denoiser of a flow. A *two-time* network
//! also knows a target time and answers δ, from which a flow map is made. [`Dit::into_two_time`] makes the second of
//! the first without changing an answer, which is where distillation starts.
//!
//! # States are projected
//!
//! The noisy sequence has V dimensions for each token, but the network only ever looks at it through the embedding matrix, as
//! h = xE of the model's width. All of a sampler's updates are affine, so they can be made on h, and nothing V wide is
//! carried about (section 6). [`VocabEmbed`] makes projected states: of tokens, of noise ([`Noise`]), of a
//! distribution's mean.
//!
//! # The head answers questions
//!
//! What has V columns stays behind the head. [`Dit::forward`] gives a [`Prediction`], which is asked for cross-entropies, or for a
//! [`TokenDistribution`] about the clean tokens, which is asked for its mean D·E, its likeliest tokens, or a mixture with another. How
//! they hold their numbers is their own business.
//!
//! # Example
//!
//! A small network with fresh parameters denoises, is saved, and is read again:
//!
//! ```
//! use burn::tensor::{Int, Tensor};
//! use burn_flex::Flex;
//! use flm_denoiser::folder::{self, Existing};
//! use flm_denoiser::{DitConfig, Dropout};
//! use rand::SeedableRng;
//!
//! let (device, mut rng) = (Default::default(), rand_chacha::ChaCha8Rng::seed_from_u64(1));
//! let config = DitConfig::new(27, 4, 32, 2, 4);
//! let dit = config.init::<Flex>(&mut rng, &device)?;
//!
//! // Two clean sequences of four tokens, at the time where everything is decided.
//! let tokens = Tensor::<Flex, 2, Int>::from_ints([[1, 2, 3, 4], [5, 6, 7, 8]], &device);
//! let (state, tau) = (dit.embed().tokens(tokens.clone()), Tensor::ones([2], &device));
//! let prediction = dit.forward(state, tau.clone(), tau, &mut Dropout::off());
//!
//! // A fresh head is silent: every token is as likely as the others.
//! let log_prob: f32 = prediction.log_probs(tokens).mean().into_scalar();
//! assert!((log_prob + 27_f32.ln()).abs() < 1e-5);
//!
//! let home = tempfile::tempdir()?;
//! let place = home.path().join("model");
//! folder::save(&place, &dit, &config, &[("README.md", b"# Untrained\n")], Existing::Refuse)?;
//! let (_, found) = folder::load::<Flex>(&place, &device)?;
//! assert_eq!(found, config);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is where
//!
//! | item | is |
//! | --- | --- |
//! | [`DitConfig`] | the sizes, checked; [`init`](DitConfig::init) makes a network of them |
//! | [`Dit`], [`Prediction`], [`TokenDistribution`], [`Score`] | the network and its answers |
//! | [`Jvp`], [`Dual`] | its answer with the derivative along a direction |
//! | [`Family`] | whether it denoises states or tokens, or goes on with a text |
//! | [`Memory`] | what a causal network keeps of the positions before |
//! | [`Prior`], [`Noise`] | the noise that sequences start from, as the network sees it |
//! | [`LossWeight`] | how hard each time is, learned beside the network |
//! | [`Execution`] | in which numbers a network is evaluated, and how much memory its head may take |
//! | [`Dropout`] | masks from a generator that the caller owns |
//! | [`Residual`] | a flow map of two networks, of the paper's first version |
//! | [`SamplingDenoiser`], [`DropoutGuidance`] | the network as the samplers of `flm_simplex` see it, and how it is made a weaker one |
//! | [`Expected`] | a score of its answers' means, with the gradient to the state: what rewards are made of |
//! | [`folder`] | models on disk, read strictly |
//! | [`mod@reference`] | the published implementation's checkpoints, in and out |
//! | [`named_tensors`], [`named_shapes`], [`apply_tensors`] | parameters by the reference's names |
//!
//! # What it leaves to others
//!
//! Schedules, samplers and flow-map algebra are in `flm_simplex`, kernels in `flm_ops`. Objectives, optimizers and averages of weights,
//! tokenizers and text are further up; this crate knows nothing of training.

mod block;
mod config;
mod dit;
mod dropout;
mod embed;
mod evidence;
mod execution;
mod family;
pub mod folder;
mod head;
mod init;
mod loss_weight;
mod mode;
mod noise;
pub mod reference;
mod residual;
mod sampling;
mod tensor_file;
mod tensors;

pub use block::Block;
pub use config::{ConfigError, DitConfig, MAX_LENGTH};
pub use dit::{Dit, Memory};
pub use dropout::Dropout;
pub use embed::{TimeEmbed, VocabEmbed};
pub use evidence::Evidence;
pub use execution::Execution;
pub use family::Family;
pub use flm_ops::{Precision, Rope, dual::Dual, matmul, widen};
pub use head::{Expected, Jvp, OutputLayer, Prediction, Score, TokenDistribution, UniformNoise};
pub use loss_weight::LossWeight;
pub use noise::{Likelihoods, Noise, NoiseWidth, Prior};
pub use residual::Residual;
pub use sampling::{DropoutGuidance, SamplingDenoiser, TemperatureError};
pub use tensors::{NamedTensor, TensorError, apply_tensors, named_shapes, named_tensors};

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
