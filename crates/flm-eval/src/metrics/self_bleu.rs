//! Self-BLEU: the similarity of every sample to the others.

use std::hash::Hash;

use super::mean;
use super::ngrams::{NGrams, counts};

/// The largest length of compared n-grams.
pub(super) const ORDER: usize = 4;

/// Number of matches assigned to an order without a match.
const EPSILON: f64 = 0.1;

/// Returns the Self-BLEU of Texygen (Zhu et al. 2018,
/// [arXiv:1802.01886](https://arxiv.org/abs/1802.01886)).
///
/// It is the mean BLEU-4 of each sample with all others as its references, in [0, 1]; `None` for
/// fewer than two samples.
///
/// High values mean similar samples. As in Texygen, orders 1 to 4 have equal weight. An order
/// without a match is smoothed by method 1 of Chen & Cherry (2014): 0.1 matches instead of none,
/// regardless of the sample's length. So even equal samples of three tokens have 0.1^¼ = 0.56;
/// compare short samples with others as short. A sample that shares no token with another has 0.
/// The value rises with the number of samples (more references), so compare equal numbers.
///
/// The result is exact over all pairs of samples, in time nearly linear in the number of
/// tokens. The largest count of an n-gram in any *other* sample is its first or second maximum
/// over samples.
pub fn self_bleu<T: Eq + Hash, S: AsRef<[T]>>(samples: &[S]) -> Option<f64> {
    mean_self_bleu(&NGrams::up_to(ORDER, samples))
}

/// Computes Self-BLEU from the n-grams for n = 1 to [`ORDER`].
pub(super) fn mean_self_bleu(orders: &[NGrams]) -> Option<f64> {
    let lengths: Vec<usize> = orders.first()?.samples.iter().map(Vec::len).collect();
    if lengths.len() < 2 {
        return None;
    }
    let matches: Vec<Vec<usize>> = orders.iter().map(matches).collect();
    let references = Lengths::new(&lengths);
    mean(lengths.iter().enumerate().map(|(sample, &length)| {
        if matches[0][sample] == 0 {
            return 0.0;
        }
        let log_precision = |n: usize| {
            let found = match matches[n][sample] {
                0 => EPSILON,
                found => found as f64,
            };
            let all = orders[n].samples[sample].len().max(1);
            (found / all as f64).ln()
        };
        let mean_log = (0..orders.len()).map(log_precision).sum::<f64>() / orders.len() as f64;
        let reference = references.closest_other(length);
        let brevity = f64::min(0.0, 1.0 - reference as f64 / length as f64);
        (brevity + mean_log).exp()
    }))
}

/// The two largest counts of an n-gram in a sample, and the sample with the largest.
#[derive(Clone, Copy, Default)]
struct Maxima {
    first: usize,
    owner: usize,
    second: usize,
}

/// Returns the matches of every sample: its n-grams, each clipped at its largest count in any
/// other sample.
fn matches(ngrams: &NGrams) -> Vec<usize> {
    let counts: Vec<_> = ngrams.samples.iter().map(|s| counts(s)).collect();
    let mut maxima = vec![Maxima::default(); ngrams.distinct];
    for (owner, counts) in counts.iter().enumerate() {
        for &(ngram, count) in counts {
            let of = &mut maxima[ngram as usize];
            if count > of.first {
                of.second = of.first;
                (of.first, of.owner) = (count, owner);
            } else {
                of.second = of.second.max(count);
            }
        }
    }
    let clipped = |sample: usize, &(ngram, count): &(u32, usize)| {
        let of = maxima[ngram as usize];
        count.min(if of.owner == sample {
            of.second
        } else {
            of.first
        })
    };
    (counts.iter().enumerate())
        .map(|(sample, counts)| counts.iter().map(|count| clipped(sample, count)).sum())
        .collect()
}

/// The lengths of all samples, sorted.
struct Lengths(Vec<usize>);

impl Lengths {
    fn new(lengths: &[usize]) -> Self {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// Returns the length closest to `length` among the other samples, the shorter one in a tie.
    /// `length` must be the length of a sample, and there must be at least two samples.
    fn closest_other(&self, length: usize) -> usize {
        let below = self.0.partition_point(|&other| other < length);
        let above = self.0.partition_point(|&other| other <= length);
        if above - below > 1 {
            return length;
        }
        let neighbours = [below.checked_sub(1), Some(above)];
        (neighbours.into_iter().flatten())
            .filter_map(|at| self.0.get(at).copied())
            .min_by_key(|&other| (other.abs_diff(length), other))
            .unwrap_or(length)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Computes Self-BLEU by its definition, sample by sample.
    fn naive(samples: &[Vec<u32>]) -> f64 {
        let count = |sample: &[u32], n| {
            let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
            for window in sample.windows(n) {
                *counts.entry(window.to_vec()).or_default() += 1;
            }
            counts
        };
        let bleu = |at: usize| {
            let sample = &samples[at];
            let others = || (samples.iter().enumerate()).filter(|(i, _)| *i != at);
            let mut product = 1.0;
            for n in 1..=4 {
                let mut matches = 0;
                for (window, own) in count(sample, n) {
                    let most = others().map(|(_, o)| count(o, n).get(&window).copied());
                    matches += own.min(most.flatten().max().unwrap_or(0));
                }
                if n == 1 && matches == 0 {
                    return 0.0;
                }
                let all = (sample.len() + 1).saturating_sub(n).max(1);
                let matches = if matches == 0 { 0.1 } else { matches as f64 };
                product *= matches / all as f64;
            }
            let (_, reference) = others()
                .map(|(_, o)| (o.len().abs_diff(sample.len()), o.len()))
                .min()
                .unwrap();
            let short = (1.0 - reference as f64 / sample.len() as f64).min(0.0);
            product.powf(0.25) * short.exp()
        };
        (0..samples.len()).map(bleu).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn values_of_nltk() {
        // Means of nltk 3.10.4's sentence_bleu(others, sample, (.25,)*4,
        // smoothing_function=SmoothingFunction().method1), which Texygen calls.
        let cases: [(&[&str], f64); 4] = [
            (
                &[
                    "the girl is happy today .",
                    "the girls are happy today .",
                    "two of the boys walk to the market .",
                    "the girl is happy today because she is late .",
                ],
                0.3893431892276589,
            ),
            (&["a b", "a b"], 0.316227766016838),
            (&["a b c d", "e f g h"], 0.0),
            (&["a", "", "a b c a b c a b", "a b c"], 0.21941001909257446),
        ];
        for (sentences, expected) in cases {
            let samples: Vec<Vec<&str>> = (sentences.iter())
                .map(|sentence| sentence.split_whitespace().collect())
                .collect();
            let found = self_bleu(&samples).unwrap();
            assert!((found - expected).abs() < 1e-12, "{sentences:?}: {found}");
        }
    }

    #[test]
    fn equal_samples_of_four_tokens_are_wholly_foretold() {
        assert_eq!(self_bleu(&[[1, 2, 3, 4], [1, 2, 3, 4]]), Some(1.0));
        assert_eq!(self_bleu(&[[1, 2, 3, 4]]), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition_and_is_bounded_and_blind_to_order(
            mut samples in prop::collection::vec(prop::collection::vec(0_u32..4, 0..10), 2..8),
        ) {
            let found = self_bleu(&samples).unwrap();
            prop_assert!((0.0..=1.0).contains(&found));
            prop_assert!((found - naive(&samples)).abs() < 1e-12);
            samples.sort_unstable();
            prop_assert!((found - self_bleu(&samples).unwrap()).abs() < 1e-12);
        }
    }
}
