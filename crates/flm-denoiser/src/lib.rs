//! The transformer denoiser of a flow language model, its vocabulary head and its model folder.
//!
//! A flow language model turns noise into text. At each step, it takes a noisy sequence and a time,
//! and predicts the probability of each token at each position. [`Dit`] is the network that makes
//! this prediction. It is the diffusion transformer of the published implementation with the same
//! parameters, so weights convert both ways. It has a token embedding, a sinusoidal time embedding,
//! and blocks whose LayerNorms are shifted and scaled by time. Attention is rotary, and the head
//! has soft-capped logits (`mathematics.md`, section 3). Training, sampling and import share this
//! one definition.
//!
//! A *one-time* network gets the time τ of its state and returns D, the denoiser of a flow. A
//! *two-time* network also gets a target time and returns δ, from which a flow map is computed.
//! [`Dit::into_two_time`] turns a one-time network into a two-time one with the same outputs.
//! Distillation starts from there.
//!
//! # States are projected
//!
//! A noisy sequence has V dimensions per token, but the network sees it only through the embedding
//! matrix, as h = xE of the model's width. All sampler updates are affine, so they work on h and no
//! state is V wide (section 6). [`VocabEmbed`] projects tokens, noise ([`Noise`]) and the mean of
//! a distribution.
//!
//! # The head hides V-wide tensors
//!
//! Only the head handles tensors with V columns. [`Dit::forward`] returns a [`Prediction`], which
//! computes cross-entropies and returns a [`TokenDistribution`] over the clean tokens. A
//! distribution returns its mean D·E, its most likely tokens, or a mixture with another
//! distribution. The representation of both types is private.
//!
//! # Example
//!
//! This example initializes a small network, runs it, saves it and loads it again:
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
//! // Two clean sequences of four tokens, at time τ = 1, where there is no noise.
//! let tokens = Tensor::<Flex, 2, Int>::from_ints([[1, 2, 3, 4], [5, 6, 7, 8]], &device);
//! let (state, tau) = (dit.embed().tokens(tokens.clone()), Tensor::ones([2], &device));
//! let prediction = dit.forward(state, tau.clone(), tau, &mut Dropout::off());
//!
//! // The head starts at zero, so all tokens have the same probability.
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
//! # Overview
//!
//! | item | purpose |
//! | --- | --- |
//! | [`DitConfig`] | checked network sizes; [`init`](DitConfig::init) creates the network |
//! | [`Dit`], [`Prediction`], [`TokenDistribution`], [`Score`] | the network and its outputs |
//! | [`Jvp`], [`Dual`] | an output with its derivative along a direction |
//! | [`Family`] | the kind of model: flow, masked or uniform-state diffusion, or autoregressive |
//! | [`Memory`] | the key-value cache of a causal network |
//! | [`Prior`], [`Noise`] | the initial noise, as the network sees it |
//! | [`LossWeight`] | a learned loss weight for each time |
//! | [`Execution`] | the numeric precision and the memory limit of the head |
//! | [`Dropout`] | dropout masks from a generator that the caller owns |
//! | [`Residual`] | a flow map of two networks, as in the paper's first version |
//! | [`SamplingDenoiser`], [`DropoutGuidance`] | the network as a denoiser for the samplers of `flm_simplex`, and its weakened form |
//! | [`Expected`] | a score of mean predictions with its gradient to the state, for rewards |
//! | [`folder`] | model folders on disk, with strict reading |
//! | [`mod@reference`] | import and export of the published implementation's checkpoints |
//! | [`named_tensors`], [`named_shapes`], [`apply_tensors`] | parameters by the reference's names |
//!
//! # Limits
//!
//! Schedules, samplers and flow-map algebra are in `flm_simplex`, kernels in `flm_ops`. Objectives,
//! optimizers, weight averages, tokenizers and text are in higher-level crates. This crate contains
//! no training code.

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

/// Compiles the examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
