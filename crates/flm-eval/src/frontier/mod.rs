//! Quality against entropy: models compared where they are equally varied.
//!
//! Cross-entropy alone is gamed. A temperature below one, or a model that has collapsed, makes
//! samples more predictable, and a judge that measures how predictable they are prefers them ever
//! more, down to the one word that is repeated for ever. So a model is not a number but a curve:
//! the nats a token that it reaches at each entropy, as its settings (temperature, churn γ) vary.
//! Of two models the better is the one with fewer nats **at the same entropy**, and of all
//! entropies the data's own is the one to write at.
//!
//! - A [`Curve`] holds a model's [`Point`]s, one per setting that was measured.
//! - Its [`Front`] are the points that no other beats in both figures, and the line through them.
//!   A mixture of the samples of two settings has the mixture of their entropies (a mean over
//!   samples), and that of their nats if they are as long: what is on the line can be had.
//! - [`Comparison`] puts the fronts of several models beside each other, over the entropies that
//!   all of them cover. **Nothing is extrapolated**: where a model was not measured, it has no figure.
//!
//! Two things it does not see. Entropy within a sample grows with its length, so compare samples of
//! one length. And it knows nothing of the other samples, so a model that always writes one varied
//! text looks well: hold [`distinct_share`](crate::distinct_share) and
//! [`self_bleu`](crate::self_bleu) beside it.
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
//! // The second is better at any setting that was tried, but only for being less varied.
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

/// The figures of one model at one setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Evaluations of the network, or steps of whatever writes.
    pub steps: usize,
    /// Churn of the flow-map sampler, if it has one.
    #[serde(default)]
    pub gamma: Option<f64>,
    /// Temperature of the logits, if it was set.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// [Unigram entropy](crate::mean_unigram_entropy) of a sample, in nats.
    pub entropy: f64,
    /// Cross-entropy against a judge in nats per token, such as
    /// [`GenPpl::nats_per_token`](crate::GenPpl): the logarithm of a perplexity.
    pub nats: f64,
}

/// What was measured of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The model's name.
    pub label: String,
    /// Its points, in any order. Of one number of steps, if models are compared at equal cost.
    pub points: Vec<Point>,
}

/// Curves that cannot be compared.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FrontierError {
    /// A curve without points.
    #[error("expected at least one point of {label}, found none")]
    NoPoints {
        /// The curve's name.
        label: String,
    },
    /// A figure that is no number.
    #[error(
        "expected finite figures in point {index} of {label}, found an entropy of {entropy} and {nats} nats"
    )]
    NotFinite {
        /// The curve's name.
        label: String,
        /// The point's place, counted from 0.
        index: usize,
        /// Its entropy.
        entropy: f64,
        /// Its nats.
        nats: f64,
    },
    /// Less than two fronts.
    #[error("expected at least two models to compare, found {found}")]
    TooFew {
        /// How many there are.
        found: usize,
    },
}
