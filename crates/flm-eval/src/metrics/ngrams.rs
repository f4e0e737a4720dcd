//! N-grams as numbers.

use std::collections::HashMap;
use std::hash::Hash;

/// The n-grams of every sample as numbers. Equal n-grams have equal numbers in all samples. Numbers
/// count from 0 in the order of first occurrence.
///
/// Numbers suffice for counting. The numbers of the first n tokens and of the last token identify
/// an (n+1)-gram. So the code hashes at most pairs, and all orders cost the same.
#[derive(Debug)]
pub(super) struct NGrams {
    /// `[sample][position]`. A sample of m tokens has m−n+1 positions, or none if it is shorter
    /// than n.
    pub(super) samples: Vec<Vec<u32>>,
    /// Number of distinct n-grams in all samples together.
    pub(super) distinct: usize,
}

impl NGrams {
    /// Computes the n-grams for n = 1, 2, …, `order`.
    pub(super) fn up_to<T: Eq + Hash, S: AsRef<[T]>>(order: usize, samples: &[S]) -> Vec<Self> {
        let tokens = || samples.iter().map(|sample| sample.as_ref().iter());
        let mut all: Vec<Self> = Vec::with_capacity(order);
        for n in 1..=order {
            let next = match all.last() {
                None => Self::number(tokens()),
                Some(shorter) => {
                    let places = shorter.samples.iter().zip(&all[0].samples);
                    Self::number(places.map(|(begins, tokens)| {
                        let ends = tokens.iter().skip(n - 1);
                        begins.iter().zip(ends)
                    }))
                }
            };
            all.push(next);
        }
        all
    }

    fn number<K: Eq + Hash>(samples: impl Iterator<Item = impl Iterator<Item = K>>) -> Self {
        let mut numbers: HashMap<K, u32> = HashMap::new();
        let samples = samples
            .map(|sample| {
                let number = |key| {
                    let next = numbers.len() as u32;
                    *numbers.entry(key).or_insert(next)
                };
                sample.map(number).collect()
            })
            .collect();
        let distinct = numbers.len();
        Self { samples, distinct }
    }

    /// Returns the number of n-grams, including repeated ones.
    pub(super) fn total(&self) -> usize {
        self.samples.iter().map(Vec::len).sum()
    }
}

/// Returns the distinct numbers of a sample with their counts, sorted by number.
pub(super) fn counts(ngrams: &[u32]) -> Vec<(u32, usize)> {
    let mut sorted = ngrams.to_vec();
    sorted.sort_unstable();
    let runs = sorted.chunk_by(PartialEq::eq);
    runs.map(|run| (run[0], run.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ngrams_have_equal_numbers_across_samples() {
        let all = NGrams::up_to(3, &[vec!["a", "b", "a", "b"], vec!["b", "a"], vec![]]);
        assert_eq!(all[0].samples, [vec![0, 1, 0, 1], vec![1, 0], vec![]]);
        assert_eq!(all[1].samples, [vec![0, 1, 0], vec![1], vec![]]);
        assert_eq!(all[2].samples, [vec![0, 1], vec![], vec![]]);
        let sizes: Vec<_> = all.iter().map(|n| (n.distinct, n.total())).collect();
        assert_eq!(sizes, [(2, 6), (2, 4), (2, 2)]);
    }

    #[test]
    fn counts_are_by_number() {
        assert_eq!(counts(&[3, 1, 3, 3]), [(1, 1), (3, 3)]);
        assert_eq!(counts(&[]), []);
    }
}
