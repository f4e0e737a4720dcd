//! The n-grams of one order.

use super::discount::Discounts;

/// All seen n-grams of one order, by context and last token.
///
/// The id of an n-gram is its index here. Its context is the id of its first n−1 tokens in the
/// level below, and the only context of unigrams is 0. So the levels form a trie, with eight bytes
/// per n-gram and twenty per context.
#[derive(Debug)]
pub(super) struct Level {
    /// The n-grams of context c are `starts[c]..starts[c + 1]`.
    pub(super) starts: Vec<u32>,
    /// The last tokens, increasing within a context.
    pub(super) tokens: Vec<u32>,
    /// The Kneser–Ney counts; see the [module documentation](super).
    pub(super) counts: Vec<u32>,
    pub(super) discounts: Discounts,
    contexts: Vec<Context>,
}

#[derive(Debug, Clone, Copy)]
struct Context {
    /// The sum of the context's counts.
    total: f64,
    /// The weight of the shorter context, in [0, 1].
    left: f64,
}

impl Level {
    /// Builds a level from n-grams as sorted [keys](key). Each key is repeated for
    /// every occurrence.
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

    /// Returns the number of n-grams.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns the id of the n-gram of this context and last token.
    pub(super) fn find(&self, context: u32, token: u32) -> Option<u32> {
        let start = self.starts[context as usize];
        let end = self.starts[context as usize + 1];
        let place = self.tokens[start as usize..end as usize].binary_search(&token);
        place.ok().map(|place| start + place as u32)
    }

    /// Estimates the discounts and sums up the contexts once the counts are final.
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

    /// Returns the probability of a token after a context, given that after the shorter context.
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

/// Packs context and last token into one number. Keys sort by context first.
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
