//! Estimates an n-gram model from sequences.

use super::level::{Level, key};
use super::{NGramError, NGramModel};

/// Marks positions with too few tokens before them for an n-gram.
const NONE: u32 = u32::MAX;

/// The text from which an n-gram model is estimated.
///
/// The text takes four bytes a token, and the estimation takes another sixteen.
#[derive(Debug, Clone)]
pub struct NGramCounts {
    order: usize,
    vocab: u32,
    /// All sequences, each with a begin token before it, and an end token after it if it ends.
    stream: Vec<u32>,
}

impl NGramCounts {
    /// Creates an empty text for n-grams up to `order` and token ids below `vocab`.
    ///
    /// # Errors
    ///
    /// Returns [`NGramError::Order`] or [`NGramError::Vocab`] for an unsupported order
    /// or vocabulary.
    pub fn new(order: usize, vocab: usize) -> Result<Self, NGramError> {
        if !NGramModel::ORDERS.contains(&order) {
            return Err(NGramError::Order { found: order });
        }
        // Two more ids are reserved for the end and begin tokens.
        let vocab = (u32::try_from(vocab).ok())
            .filter(|vocab| *vocab < NONE - 1)
            .ok_or(NGramError::Vocab { found: vocab })?;
        Ok(Self {
            order,
            vocab,
            stream: Vec::new(),
        })
    }

    /// Adds a sequence. `ends` tells whether it ends there or was truncated.
    ///
    /// # Errors
    ///
    /// Returns [`NGramError::Token`] for an id outside the vocabulary, and [`NGramError::TooLong`]
    /// for too much text. Nothing is added in either case.
    pub fn add(&mut self, tokens: &[u32], ends: bool) -> Result<(), NGramError> {
        NGramError::check(tokens, self.vocab)?;
        if self.stream.len() + tokens.len() + 2 >= NONE as usize {
            return Err(NGramError::TooLong);
        }
        self.stream.push(begin(self.vocab));
        self.stream.extend_from_slice(tokens);
        self.stream.extend(ends.then_some(end(self.vocab)));
        Ok(())
    }

    /// Estimates the model.
    pub fn estimate(self) -> NGramModel {
        let Self {
            order,
            vocab,
            stream,
        } = self;
        let mut levels: Vec<Level> = Vec::with_capacity(order);
        // For each position of the stream, the n-gram of the last level that ends there.
        let mut ngrams: Vec<u32> = Vec::new();
        for _ in 0..order {
            let key_at = |place: usize| {
                let token = stream[place];
                if levels.is_empty() {
                    return Some(key(0, token));
                }
                let context = ngrams[place.checked_sub(1)?];
                (context != NONE && token != begin(vocab)).then(|| key(context, token))
            };
            let places = 0..stream.len();
            let mut keys: Vec<u64> = places.clone().filter_map(key_at).collect();
            keys.sort_unstable();
            let level = Level::new(levels.last().map_or(1, Level::len), &keys);
            let find = |key: u64| level.find((key >> 32) as u32, key as u32);
            let longer: Vec<u32> = places
                .map(|place| key_at(place).and_then(find).unwrap_or(NONE))
                .collect();
            if let Some(shorter) = levels.last_mut() {
                count_continuations(shorter, &ngrams, level.len(), &longer);
            }
            levels.push(level);
            ngrams = longer;
        }
        // The begin token is a context, but never predicted.
        if let Some(place) = levels[0].find(0, begin(vocab)) {
            levels[0].counts[place as usize] = 0;
        }
        levels.iter_mut().for_each(Level::finish);
        NGramModel::new(vocab, levels)
    }
}

/// Replaces counts by the numbers of distinct preceding tokens, except for n-grams that start with
/// a begin token.
fn count_continuations(shorter: &mut Level, ngrams: &[u32], longer_len: usize, longer: &[u32]) {
    let mut is_counted = vec![false; longer_len];
    let mut continuations = vec![0; shorter.len()];
    for (&ngram, &longer) in ngrams.iter().zip(longer) {
        if longer != NONE && !std::mem::replace(&mut is_counted[longer as usize], true) {
            continuations[ngram as usize] += 1;
        }
    }
    for (count, continuations) in shorter.counts.iter_mut().zip(continuations) {
        if continuations > 0 {
            *count = continuations;
        }
    }
}

/// Returns the id of the end token.
pub(super) fn end(vocab: u32) -> u32 {
    vocab
}

/// Returns the id of the begin token.
pub(super) fn begin(vocab: u32) -> u32 {
    vocab + 1
}
