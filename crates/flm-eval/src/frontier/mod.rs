//! Quality against entropy: compares models at equal entropy.
//!
//! Cross-entropy alone is misleading. A temperature below one, or a collapsed model, makes samples
//! more predictable. A scorer that measures predictability prefers such samples, in the extreme a
//! single repeated word. So a model is a curve, not a number: its nats per token at each entropy,
//! as its settings (temperature, churn γ) vary. The better of two models has fewer nats **at the
//! same entropy**. The most relevant entropy is that of the data.
//!
//! - A [`Curve`] holds a model's [`Point`]s, one per measured setting.
//! - Its [`Front`] consists of the non-dominated points and the line through them. A mixture of the
//!   samples of two settings has the mixture of their entropies (a mean over samples). It also has
//!   the mixture of their nats if the samples are equally long. So every point on the line is
//!   attainable.
//! - [`Comparison`] compares the fronts of several models over the entropies that all of them
//!   cover. **Nothing is extrapolated**: a model has no value where it was not measured.
//!
//! The comparison has two blind spots. Entropy within a sample grows with its length, so compare
//! samples of one length. It also ignores similarity between samples, so a model that always writes
//! the same varied text scores well. Check [`distinct_share`](crate::distinct_share) and
//! [`self_bleu`](crate::self_bleu) as well.
//!
//! ```
//! use flm_eval::frontier::{Comparison, Curve, Front, Point};
//!
//! let curve = |label: &str, figures: [(f64, f64); 2]| Curve {
//!     label: label.to_owned(),
//!     points: figures
//!         .map(|(entropy, nats)| Point { temperature: None, gamma: None, steps: 4, entropy, nats })
//!         .to_vec(),
//! };
//! // The second has fewer nats in every pair of settings, but only because it is less varied.
//! let ours = curve("ours", [(4.1, 4.4), (4.3, 4.8)]);
//! let theirs = curve("theirs", [(4.0, 4.35), (4.2, 4.75)]);
//! let fronts = [Front::of(&ours)?, Front::of(&theirs)?];
//! let comparison = Comparison::of(&fronts, Some(4.3), 11)?.expect("both cover 4.1 to 4.2");
//! assert!(comparison.gaps[1].mean > 0.0);
//! # Ok::<(), flm_eval::frontier::FrontierError>(())
//! ```

mod compare;
mod front;

pub use self::compare::{Comparison, Gap, Row};
pub use self::front::Front;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The measurements of one model at one setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Network evaluations, or steps of the sampler.
    pub steps: usize,
    /// Churn of the flow-map sampler, if it has one.
    #[serde(default)]
    pub gamma: Option<f64>,
    /// Temperature of the logits, if one was set.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// [Unigram entropy](crate::mean_unigram_entropy) of a sample, in nats.
    pub entropy: f64,
    /// Cross-entropy under a scorer in nats per token, such as
    /// [`GenPpl::nats_per_token`](crate::GenPpl): the logarithm of a perplexity.
    pub nats: f64,
}

/// The measured points of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The model's name.
    pub label: String,
    /// The points in any order. Use a single number of steps to compare models at equal cost.
    pub points: Vec<Point>,
}

/// An error for curves that cannot be compared.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FrontierError {
    /// A curve without points.
    #[error("expected at least one point of {label}, found none")]
    NoPoints {
        /// The curve's name.
        label: String,
    },
    /// A value that is not finite.
    #[error(
        "expected finite figures in point {index} of {label}, found an entropy of {entropy} and {nats} nats"
    )]
    NotFinite {
        /// The curve's name.
        label: String,
        /// The point's index, counted from 0.
        index: usize,
        /// The point's entropy.
        entropy: f64,
        /// The point's nats.
        nats: f64,
    },
    /// Fewer than two fronts.
    #[error("expected at least two models to compare, found {found}")]
    TooFew {
        /// The number of fronts.
        found: usize,
    },
}
