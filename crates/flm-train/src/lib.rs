//! The training loop: optimizer, averaged weights, clipping, checkpoints, resume, metrics.
//!
//! A [`Run`] takes a network, an [`Objective`](flm_objective::Objective), two data splits and a [`TrainConfig`]. [`Run::start`] checks it all and reads the
//! checkpoint to go on from; [`Session::train`] then goes step by step:
//!
//! 1. the step's rows are a function of (seed, step): [`flm_data::BatchOrder`]
//! 2. the batch is cut into parts of `micro_batch` rows, each scored and differentiated on its own, side by side on a CPU
//! 3. gradients are averaged, clipped to a global norm, and moved along by AdamW, or Muon and AdamW
//! 4. the weights' average follows
//!
//! Every draw is made by a generator named after (seed, purpose, step, part), so a checkpoint holds tensors and a step count,
//! and a resumed run repeats an uninterrupted one to the bit, whatever the number of workers.
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
//! The crate prints nothing: it tells an observer what happens ([`Event`]) and can write `metrics.jsonl` ([`MetricsFile`]).
//! What the numbers mean is the objective's business; where models are kept is the caller's.

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

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
