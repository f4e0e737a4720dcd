//! N-gram metrics from one pass over the samples.

use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::distinct::share;
use super::ngrams::NGrams;
use super::repetition::mean_repetition;
use super::self_bleu::{ORDER, mean_self_bleu};

/// N-gram metrics of the variety within and between samples.
///
/// A metric is `None`, null in JSON, where it is undefined: samples are too short, or Self-BLEU has
/// fewer than two. Results written before these metrics existed are read as `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variety {
    /// Fraction of [distinct tokens](crate::distinct_ngrams), in (0, 1].
    pub distinct_1: Option<f64>,
    /// Fraction of [distinct bigrams](crate::distinct_ngrams), in (0, 1].
    pub distinct_2: Option<f64>,
    /// Fraction of [distinct trigrams](crate::distinct_ngrams), in (0, 1].
    pub distinct_3: Option<f64>,
    /// [Self-BLEU](crate::self_bleu), in [0, 1]; high means similar samples.
    pub self_bleu: Option<f64>,
    /// Fraction of [repeated bigrams](crate::repetition) within a sample, in [0, 1), averaged
    /// over samples.
    pub repetition_2: Option<f64>,
    /// Fraction of [repeated trigrams](crate::repetition) within a sample, in [0, 1), averaged
    /// over samples.
    pub repetition_3: Option<f64>,
    /// Fraction of [repeated 4-grams](crate::repetition) within a sample, in [0, 1), averaged
    /// over samples.
    pub repetition_4: Option<f64>,
}

impl Variety {
    /// Computes the metrics from n-grams of up to four tokens.
    pub fn of<T: Eq + Hash, S: AsRef<[T]>>(samples: &[S]) -> Self {
        let orders = NGrams::up_to(ORDER, samples);
        Self {
            distinct_1: share(&orders[0]),
            distinct_2: share(&orders[1]),
            distinct_3: share(&orders[2]),
            self_bleu: mean_self_bleu(&orders),
            repetition_2: mean_repetition(&orders[1]),
            repetition_3: mean_repetition(&orders[2]),
            repetition_4: mean_repetition(&orders[3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{distinct_ngrams, repetition, self_bleu};

    #[test]
    fn every_figure_is_that_of_its_function() {
        let samples = ["a b a b a b c", "c a b a b", "d"]
            .map(|sentence| sentence.split_whitespace().collect::<Vec<_>>());
        let expected = Variety {
            distinct_1: distinct_ngrams(&samples, 1),
            distinct_2: distinct_ngrams(&samples, 2),
            distinct_3: distinct_ngrams(&samples, 3),
            self_bleu: self_bleu(&samples),
            repetition_2: repetition(&samples, 2),
            repetition_3: repetition(&samples, 3),
            repetition_4: repetition(&samples, 4),
        };
        assert_eq!(Variety::of(&samples), expected);
        assert_eq!(expected.repetition_4, Some(0.125));
    }
}
