//! Distinct shares: of whole samples, and of n-grams of all samples together.

use std::collections::HashSet;
use std::hash::Hash;

use super::ngrams::NGrams;

/// Returns the fraction of distinct sequences, in (0, 1]; `None` without samples.
pub fn distinct_share<T: Eq + Hash, S: AsRef<[T]>>(samples: &[S]) -> Option<f64> {
    let distinct: HashSet<&[T]> = samples.iter().map(AsRef::as_ref).collect();
    (!samples.is_empty()).then(|| distinct.len() as f64 / samples.len() as f64)
}

/// Returns distinct-n (Li et al. 2016, [arXiv:1510.03055](https://arxiv.org/abs/1510.03055)).
///
/// It is the number of distinct n-grams over the number of n-grams of all samples, in (0, 1];
/// `None` if there are no n-grams. N-grams do not cross sample boundaries.
///
/// **Only comparable between equal numbers of samples of equal length.** The more text there is,
/// the fewer of its n-grams are new, so the same model has a lower share for 1,000 samples than
/// for 100.
pub fn distinct_ngrams<T: Eq + Hash, S: AsRef<[T]>>(samples: &[S], n: usize) -> Option<f64> {
    NGrams::up_to(n, samples).last().and_then(share)
}

pub(super) fn share(ngrams: &NGrams) -> Option<f64> {
    let total = ngrams.total();
    (total > 0).then(|| ngrams.distinct as f64 / total as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn distinct_counts_whole_sequences() {
        let samples = [vec![1, 2], vec![2, 1], vec![1, 2], vec![1]];
        assert_eq!(distinct_share(&samples), Some(0.75));
    }

    #[test]
    fn distinct_ngrams_are_those_of_all_samples_together() {
        // Unigrams: a, b, c of five. Bigrams: a·b and b·c of three. Trigrams: one of one.
        let samples = [vec!["a", "b"], vec!["a", "b", "c"]];
        assert_eq!(distinct_ngrams(&samples, 1), Some(3.0 / 5.0));
        assert_eq!(distinct_ngrams(&samples, 2), Some(2.0 / 3.0));
        assert_eq!(distinct_ngrams(&samples, 3), Some(1.0));
        assert_eq!(distinct_ngrams(&samples, 4), None);
        assert_eq!(distinct_ngrams(&samples, 0), None);
    }

    proptest! {
        #[test]
        fn distinct_ngrams_are_bounded_blind_to_order_and_as_counted_directly(
            mut samples in prop::collection::vec(prop::collection::vec(0_u32..4, 0..12), 0..8),
            n in 1_usize..5,
        ) {
            let direct: HashSet<&[u32]> = samples.iter().flat_map(|s| s.windows(n)).collect();
            let total = samples.iter().flat_map(|s| s.windows(n)).count();
            let expected = (total > 0).then(|| direct.len() as f64 / total as f64);
            let found = distinct_ngrams(&samples, n);
            prop_assert_eq!(found, expected);
            prop_assert!(found.is_none_or(|share| 0.0 < share && share <= 1.0));
            samples.sort_unstable();
            prop_assert_eq!(distinct_ngrams(&samples, n), found);
        }
    }
}
