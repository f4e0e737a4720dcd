//! Measures of language models that need a model or a grammar's exact distribution.
//!
//! - [`Scorers`]: other models that read samples: GPT-2, the Llama family, n-gram models of a data folder, autoregressive models
//! - [`exact`]: diffusion models and flows whose denoiser is exact for a grammar: the best that training can reach
//! - [`Samples`] and [`Evaluation`]: files of samples and their figures
//! - [`sweep`]: quality against entropy over many settings
//! - [`ValidationRows`] and [`RowLikelihood`]: likelihoods of held-out text
//! - [`Holes`]: spans of validation rows that models fill
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

/// Called before and after each item with the number of finished items and what is being done; `false` before an item ends the work with
/// [`Error::Cancelled`].
pub type Watch<'a> = &'a (dyn Fn(u64, &str) -> bool + Sync);

/// Purposes of generators. `flm-objective` has the numbers below 100; 107, 108 and 115 are this crate's.
mod purpose {
    pub(crate) const HOLE: u64 = 107;
    pub(crate) const PERFECT: u64 = 108;
    pub(crate) const MAUVE: u64 = 115;
}

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
