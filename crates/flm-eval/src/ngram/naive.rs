//! A direct implementation of the definition for tests. Every count scans the whole text.

use super::discount::Discounts;

pub(super) struct Naive {
    order: usize,
    vocab: u32,
    /// Each sequence has a begin token, V+1, before it, and an end token, V, after it if it ends.
    sequences: Vec<Vec<u32>>,
}

impl Naive {
    pub(super) fn new(order: usize, vocab: u32, sequences: &[(Vec<u32>, bool)]) -> Self {
        let whole = |(tokens, ends): &(Vec<u32>, bool)| {
            let end: &[u32] = if *ends { &[vocab] } else { &[] };
            [&[vocab + 1], tokens.as_slice(), end].concat()
        };
        Self {
            order,
            vocab,
            sequences: sequences.iter().map(whole).collect(),
        }
    }

    /// Returns the distinct seen n-grams that do not end in a begin token.
    fn ngrams(&self, n: usize) -> Vec<&[u32]> {
        let mut all: Vec<&[u32]> = self.sequences.iter().flat_map(|s| s.windows(n)).collect();
        all.retain(|ngram| ngram[n - 1] <= self.vocab);
        all.sort_unstable();
        all.dedup();
        all
    }

    fn count(&self, ngram: &[u32]) -> u32 {
        let n = ngram.len();
        if n == self.order || ngram[0] == self.vocab + 1 {
            let windows = self.sequences.iter().flat_map(|s| s.windows(n));
            return windows.filter(|window| *window == ngram).count() as u32;
        }
        let longer = self.ngrams(n + 1);
        longer.iter().filter(|longer| &longer[1..] == ngram).count() as u32
    }

    fn discounts_of(&self, n: usize) -> Discounts {
        let counts: Vec<u32> = self.ngrams(n).iter().map(|g| self.count(g)).collect();
        Discounts::estimate(&counts)
    }

    pub(super) fn discounts(&self) -> Vec<[f64; 3]> {
        (1..=self.order).map(|n| self.discounts_of(n).0).collect()
    }

    /// Returns the probability of a token after the first tokens of a sequence.
    pub(super) fn probability(&self, tokens: &[u32], token: u32) -> f64 {
        let history = [&[self.vocab + 1], tokens].concat();
        let from = (history.len() + 1).saturating_sub(self.order);
        self.after(&history[from..], token)
    }

    fn after(&self, context: &[u32], token: u32) -> f64 {
        let shorter = match context {
            [] => 1.0 / f64::from(self.vocab + 1),
            [_, rest @ ..] => self.after(rest, token),
        };
        let discounts = self.discounts_of(context.len() + 1);
        let (mut own, mut total, mut taken) = (0.0, 0.0, 0.0);
        for next in 0..=self.vocab {
            let count = self.count(&[context, &[next]].concat());
            total += f64::from(count);
            taken += discounts.of(count);
            if next == token {
                own = f64::from(count) - discounts.of(count);
            }
        }
        if total == 0.0 {
            return shorter;
        }
        own / total + taken / total * shorter
    }
}
