//! The n-grams of one order.

use super::discount::Discounts;

/// All n-grams of one order that were seen, by context and last token.
///
/// An n-gram has a number, its place here, and its context is the number of its first n−1
/// tokens in the level below; the one context of unigrams is 0. So the levels are a trie, in
/// eight bytes an n-gram and twenty a context.
#[derive(Debug)]
pub(super) struct Level {
    /// The n-grams of context c are `starts[c]..starts[c + 1]`.
    pub(super) starts: Vec<u32>,
    /// The last tokens, rising within a context.
    pub(super) tokens: Vec<u32>,
    /// What Kneser & Ney count; see [the module](super).
    pub(super) counts: Vec<u32>,
    pub(super) discounts: Discounts,
    contexts: Vec<Context>,
}

#[derive(Debug, Clone, Copy)]
struct Context {
    /// The sum of its counts.
    total: f64,
    /// What the discounts leave to the shorter context, in [0, 1].
    left: f64,
}

impl Level {
    /// Reads n-grams as [keys](key), sorted and repeated as often as each was seen.
    pub(super) fn new(contexts: usize, keys: &[u64]) -> Self {
        let mut level = Self {
            starts: Vec::with_capacity(contexts + 1),
            tokens: Vec::new(),
            counts: Vec::new(),
            discounts: Discounts::estimate(&[]),
            contexts: Vec::new(),
        };
        for run in keys.chunk_by(PartialEq::eq) {
            let context = (run[0] >> 32) as usize;
            level.starts.resize(context + 1, level.tokens.len() as u32);
            level.tokens.push(run[0] as u32);
            level.counts.push(run.len() as u32);
        }
        level.starts.resize(contexts + 1, level.tokens.len() as u32);
        level
    }

    /// The number of n-grams.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The n-gram of this context and last token.
    pub(super) fn find(&self, context: u32, token: u32) -> Option<u32> {
        let start = self.starts[context as usize];
        let end = self.starts[context as usize + 1];
        let place = self.tokens[start as usize..end as usize].binary_search(&token);
        place.ok().map(|place| start + place as u32)
    }

    /// Estimates the discounts, when the counts are what they should be.
    pub(super) fn finish(&mut self) {
        self.discounts = Discounts::estimate(&self.counts);
        let context = |range: &[u32]| {
            let counts = &self.counts[range[0] as usize..range[1] as usize];
            let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
            let taken: f64 = counts.iter().map(|&count| self.discounts.of(count)).sum();
            let left = if total > 0.0 { taken / total } else { 1.0 };
            Context { total, left }
        };
        self.contexts = self.starts.windows(2).map(context).collect();
    }

    /// The probability of a token after a context, from that after the shorter context.
    pub(super) fn interpolate(&self, context: u32, ngram: Option<u32>, shorter: f64) -> f64 {
        let Context { total, left } = self.contexts[context as usize];
        let count = ngram.map_or(0, |ngram| self.counts[ngram as usize]);
        let own = match count {
            0 => 0.0,
            _ => (f64::from(count) - self.discounts.of(count)) / total,
        };
        own + left * shorter
    }
}

/// Context and last token in one number; keys sort by context first.
pub(super) fn key(context: u32, token: u32) -> u64 {
    u64::from(context) << 32 | u64::from(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_are_found_by_context_and_token() {
        let keys = [key(1, 4), key(1, 4), key(1, 7), key(3, 4)];
        let level = Level::new(5, &keys);
        assert_eq!(level.starts, [0, 0, 2, 2, 3, 3]);
        assert_eq!(level.counts, [2, 1, 1]);
        assert_eq!(level.find(1, 4), Some(0));
        assert_eq!(level.find(1, 7), Some(1));
        assert_eq!(level.find(3, 4), Some(2));
        for (context, token) in [(0, 4), (1, 5), (3, 7), (4, 4)] {
            assert_eq!(level.find(context, token), None);
        }
    }
}
