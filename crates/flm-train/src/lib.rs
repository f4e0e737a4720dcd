//! The training loop: optimizer, averaged weights, clipping, checkpoints, resume, metrics.
//!
//! A [`Run`] takes a network, an [`Objective`](flm_objective::Objective), two data splits and a
//! [`TrainConfig`]. [`Run::start`] validates the settings and reads the checkpoint to resume from.
//! [`Session::train`] then repeats these steps:
//!
//! 1. select the rows of the step, a function of (seed, step): [`flm_data::BatchOrder`]
//! 2. divide the batch into parts of `micro_batch` rows, differentiated in parallel on a CPU
//! 3. average the gradients, clip them to a global norm, and apply AdamW, or Muon and AdamW
//! 4. update the average of the weights
//!
//! Every generator is named by (seed, purpose, step, part), so a checkpoint stores no random state.
//! A resumed run repeats an uninterrupted one bit for bit, with any number of workers.
//!
//! ```
//! use flm_train::{Decay, OptimizerConfig, TrainConfig};
//!
//! let optimizer = OptimizerConfig { warmup: 100, decay: Decay::Cosine, ..Default::default() };
//! let config = TrainConfig { steps: 1_000, batch: 128, micro_batch: 32, optimizer, ..Default::default() };
//! assert_eq!(config.parts(), 4);
//! config.validate().unwrap();
//! ```
//!
//! The crate prints nothing: it passes each [`Event`] to an observer and can write `metrics.jsonl`
//! ([`MetricsFile`]). The objective defines the meaning of the numbers. The caller decides where
//! models are stored.

mod checkpoint;
mod clock;
mod config;
mod ema;
mod error;
mod metrics;
mod optimizer;
mod trainer;
mod workers;

pub use checkpoint::{latest as latest_checkpoint, remove_all as remove_checkpoints};
pub use config::{Decay, OptimizerConfig, OptimizerKind, TrainConfig, TrainConfigError};
pub use error::TrainError;
pub use metrics::{Evaluation, Event, Line, MetricsFile, StepReport};
pub use trainer::{Outcome, Run, Session};
pub use workers::Workers;

/// Compiles the README's examples as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
