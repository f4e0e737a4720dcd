//! Repetition within a sample.

use std::hash::Hash;

use super::mean;
use super::ngrams::{NGrams, counts};

/// Returns rep-n (Welleck et al. 2020, [arXiv:1908.04319](https://arxiv.org/abs/1908.04319), where
/// it is called seq-rep-n).
///
/// It is 1 − distinct n-grams / n-grams within a sample, averaged over samples, in [0, 1).
///
/// The mean skips samples too short for an n-gram; `None` if all are. Longer samples repeat more,
/// in human text too, so compare at equal lengths and with the data's value.
pub fn repetition<T: Eq + Hash, S: AsRef<[T]>>(samples: &[S], n: usize) -> Option<f64> {
    NGrams::up_to(n, samples).last().and_then(mean_repetition)
}

pub(super) fn mean_repetition(ngrams: &NGrams) -> Option<f64> {
    let samples = ngrams.samples.iter().filter(|sample| !sample.is_empty());
    mean(samples.map(|sample| 1.0 - counts(sample).len() as f64 / sample.len() as f64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repetition_of_known_samples() {
        // Bigrams: ab ba ab ba, two distinct of four; and cd, one of one. The last sample has none.
        let samples = [vec!["a", "b", "a", "b", "a"], vec!["c", "d"], vec!["e"]];
        assert_eq!(repetition(&samples, 2), Some(0.25));
        assert_eq!(repetition(&samples[..1], 3), Some(1.0 - 2.0 / 3.0));
        assert_eq!(repetition(&samples[2..], 2), None);
        // Repetition of another sample does not count.
        assert_eq!(repetition(&[vec![1, 2, 3], vec![1, 2, 3]], 2), Some(0.0));
    }

    proptest! {
        #[test]
        fn repetition_is_bounded_blind_to_order_and_as_counted_directly(
            mut samples in prop::collection::vec(prop::collection::vec(0_u32..3, 0..12), 0..8),
            n in 1_usize..5,
        ) {
            let direct = samples.iter().filter(|s| s.len() >= n).map(|s| {
                let distinct: HashSet<&[u32]> = s.windows(n).collect();
                1.0 - distinct.len() as f64 / (s.len() + 1 - n) as f64
            });
            let expected = mean(direct);
            let found = repetition(&samples, n);
            prop_assert_eq!(found, expected);
            prop_assert!(found.is_none_or(|share| (0.0..1.0).contains(&share)));
            samples.sort_unstable();
            let again = repetition(&samples, n);
            // Sums of up to 8 terms below 1, in another order.
            let close = |(a, b): (f64, f64)| (a - b).abs() < 1e-14;
            prop_assert!(found.zip(again).is_none_or(close));
        }
    }
}
