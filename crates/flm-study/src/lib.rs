//! Measures of language models that need a model or a grammar's exact distribution.
//!
//! - [`Scorers`]: models that score samples: GPT-2, the Llama family, n-gram models of a data
//!   folder, autoregressive models
//! - [`exact`]: diffusion models and flows with the exact denoiser of a grammar: the optimum
//!   of training
//! - [`Samples`] and [`Evaluation`]: files of samples and their figures
//! - [`sweep`]: quality against entropy over many settings
//! - [`ValidationRows`] and [`RowLikelihood`]: likelihoods of held-out text
//! - [`Holes`]: spans of validation rows for models to fill
//!
//! Metrics of texts alone are in [`flm_eval`].

mod error;
mod evaluation;
pub mod exact;
mod infill;
mod likelihood;
mod samples;
mod scorers;
pub mod sweep;
mod symbols;

pub use error::Error;
pub use evaluation::{Evaluation, MauveScore, mauve};
pub use infill::{Fills, Holes, Rejection, Sentences, Themselves};
pub use likelihood::{RowLikelihood, ValidationRows};
pub use samples::{Figures, GRAMMAR_FILE, Samples, grammar_of, is_json_lines};
pub use scorers::{Features, Scorers, ScoringOptions, TextSet};
pub use symbols::Symbols;

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A progress callback, called before and after each item.
///
/// The arguments are the number of finished items and a label of the current work. Returning
/// `false` before an item stops the work with [`Error::Cancelled`].
pub type Watch<'a> = &'a (dyn Fn(u64, &str) -> bool + Sync);

/// Purposes of random streams. Numbers below 100 belong to `flm-objective`; 107, 108 and 115 to
/// this crate.
mod purpose {
    pub(crate) const HOLE: u64 = 107;
    pub(crate) const PERFECT: u64 = 108;
    pub(crate) const MAUVE: u64 = 115;
}

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
