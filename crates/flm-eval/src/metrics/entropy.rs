//! Entropy of the tokens within a sample.

use std::collections::HashMap;
use std::hash::Hash;

use super::mean;

/// Returns the entropy in nats of the empirical distribution of a sample's tokens.
///
/// It is H = −Σ p·ln p over the relative frequencies p of the distinct tokens, and 0 for an empty
/// sample. It is at most ln n for n tokens, and falls when a sample repeats itself.
pub fn unigram_entropy<T: Eq + Hash>(tokens: &[T]) -> f64 {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    for token in tokens {
        *counts.entry(token).or_default() += 1;
    }
    // Sorted, so that rounding is independent of the map's iteration order.
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    let n = tokens.len() as f64;
    let share = |count: usize| count as f64 / n;
    (counts.into_iter().map(share)).fold(0.0, |entropy, p| entropy - p * p.ln())
}

/// Returns the mean of [`unigram_entropy`] over samples, in nats; `None` without samples.
pub fn mean_unigram_entropy<T: Eq + Hash, S: AsRef<[T]>>(samples: &[S]) -> Option<f64> {
    mean(
        samples
            .iter()
            .map(|sample| unigram_entropy(sample.as_ref())),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entropy_of_known_counts() {
        assert_eq!(unigram_entropy::<u32>(&[]), 0.0);
        assert_eq!(unigram_entropy(&[7, 7, 7]), 0.0);
        let halves = unigram_entropy(&["a", "b", "a", "b"]);
        assert!((halves - 2.0_f64.ln()).abs() < 1e-12);
        let skewed = unigram_entropy(&["a", "a", "a", "b"]);
        let expected = 4.0_f64.ln() - 0.75 * 3.0_f64.ln();
        assert!((skewed - expected).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn entropy_is_bounded_and_blind_to_order(mut tokens in prop::collection::vec(0_u32..6, 1..40)) {
            let entropy = unigram_entropy(&tokens);
            let distinct: HashSet<u32> = tokens.iter().copied().collect();
            prop_assert!((0.0..=(distinct.len() as f64).ln() + 1e-12).contains(&entropy));
            tokens.sort_unstable();
            prop_assert_eq!(unigram_entropy(&tokens), entropy);
        }
    }
}
