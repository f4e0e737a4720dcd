//! The interface between a training loop and its objective.
//!
//! An [`Objective`] scores a [`Network`] on rows of tokens. The training loop, `flm_train::Run`,
//! does the rest: batches, gradients, optimizer, averaged weights, checkpoints. The network can be
//! any burn module; [`flm_denoiser::Dit`] is one.
//!
//! ```
//! use burn::tensor::{Int, Tensor, backend::AutodiffBackend};
//! use flm_denoiser::Dit;
//! use flm_objective::{Inner, Losses, Objective, TrainingStep, StepSize, TRAINED};
//! use flm_simplex::{interpolant::rows, times::stratified};
//! use flm_denoiser::Prior;
//!
//! /// Cross-entropy of a flow's denoiser, at times that are uniform in t.
//! struct UniformTimes;
//!
//! impl<B: AutodiffBackend> Objective<B> for UniformTimes {
//!     type Network = Dit<B>;
//!     type Shared = Prior<B::InnerBackend>;
//!
//!     fn shared(&self, network: &Inner<B, Dit<B>>, _: StepSize) -> Self::Shared {
//!         Prior::new(network.embed())
//!     }
//!
//!     fn losses(&self, network: &Dit<B>, tokens: Tensor<B, 2, Int>, step: &TrainingStep<'_, B, Self>) -> Losses<B> {
//!         let ([count, length], device) = (tokens.dims(), tokens.device());
//!         let times = step.share(&stratified(step.batch, &mut step.times()));
//!         let t = rows::<B>(&times, &device);
//!         let state = step.noise([count, length]).interpolate(network.embed(), tokens.clone(), t.clone());
//!         let prediction = step.with_dropout(|dropout| network.forward(state, t.clone(), t, dropout));
//!         let weights = Tensor::full([count, length], 1.0 / (count * length) as f64, &device);
//!         let score = prediction.cross_entropy(tokens, weights);
//!         Losses::new(score.loss, score.per_token, vec!["uniform"; count])
//!     }
//!
//!     fn evaluations(&self, batch: usize) -> f64 {
//!         batch as f64 * TRAINED
//!     }
//! }
//! ```

mod losses;
mod network;
mod objective;

pub use losses::{Diagnostic, Losses};
pub use network::{Inner, Network, trainable};
pub use objective::{Objective, References, StepSize, TRAINED, TrainingStep, purpose};

/// Compiles the README's examples as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
