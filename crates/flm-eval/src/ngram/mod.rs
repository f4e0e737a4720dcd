//! Interpolated n-gram models with modified Kneser–Ney smoothing (Chen & Goodman 1998).
//!
//! The model needs no network and no download, and training takes seconds. It measures how well
//! local statistics fit, and nothing beyond its order. It is a distribution over all sequences
//! of a closed vocabulary. So every sample has a finite score, and scores of different models
//! are comparable.
//!
//! Let h be a context of k−1 tokens and h′ the same context without its first token. Then
//!
//! > p(w | h) = (a(hw) − D(a(hw))) / Σ_v a(hv) + γ(h)·p(w | h′), γ(h) = Σ_v D(a(hv)) / Σ_v a(hv),
//!
//! and p(w | h) = p(w | h′) for an unseen context. Unigrams are interpolated with the uniform
//! distribution over the V tokens and the end token.
//!
//! The count a of an n-gram of the full order is its number of occurrences in the text. The count
//! of a shorter n-gram is the number of *different* tokens that precede it: a word that only
//! follows one other word is unlikely elsewhere. A begin token precedes each sequence. N-grams that
//! start with it have no preceding token, so they count occurrences, as those of full order do.
//!
//! Every order has three discounts D, for counts of one, of two, and of three or more, estimated
//! from the counts of counts. Where these are insufficient, as in small corpora, the discounts are
//! ½, 1 and 1½.
//!
//! ```
//! use flm_eval::ngram::NGramCounts;
//!
//! let mut counts = NGramCounts::new(3, 256)?;
//! for line in ["the cat sat", "the cat ran", "a dog ran"] {
//!     let bytes: Vec<u32> = line.bytes().map(u32::from).collect();
//!     counts.add(&bytes, true)?;
//! }
//! let model = counts.estimate();
//! let nats = |text: &str| -> Result<f64, _> {
//!     let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
//!     model.nats(&bytes, true).map(|nats| nats.iter().sum())
//! };
//! assert!(nats("the dog sat")? < nats("tac eht tas")?);
//! # Ok::<(), flm_eval::ngram::NGramError>(())
//! ```

mod counts;
mod discount;
mod error;
mod level;
#[cfg(test)]
mod naive;
mod scorer;

use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

pub use self::counts::NGramCounts;
pub use self::error::NGramError;
pub use self::scorer::NGramScorer;

use self::counts::{begin, end};
use self::level::Level;

/// A distribution over sequences of token ids; see the [module documentation](self).
#[derive(Debug)]
pub struct NGramModel {
    vocab: u32,
    /// The levels by order, unigrams first.
    levels: Vec<Level>,
    identity: String,
}

/// The contexts of a token as n-grams of the levels: of no token, of one token, and so on, as far
/// as they were seen.
type Contexts = Vec<u32>;

impl NGramModel {
    /// The range of valid orders.
    pub const ORDERS: RangeInclusive<usize> = 1..=8;

    fn new(vocab: u32, levels: Vec<Level>) -> Self {
        let identity = identity(vocab, &levels);
        Self {
            vocab,
            levels,
            identity,
        }
    }

    /// Returns the length of the longest n-grams: one more than the length of the longest context.
    pub fn order(&self) -> usize {
        self.levels.len()
    }

    /// Returns the size of the vocabulary. Token ids are below it.
    pub fn vocab(&self) -> usize {
        self.vocab as usize
    }

    /// Returns the number of distinct seen n-grams of each order, unigrams first. Begin and end
    /// count as tokens.
    pub fn sizes(&self) -> Vec<usize> {
        self.levels.iter().map(Level::len).collect()
    }

    /// Returns the discounts of each order, unigrams first, for counts of one, two, and three
    /// or more.
    pub fn discounts(&self) -> Vec<[f64; 3]> {
        self.levels.iter().map(|level| level.discounts.0).collect()
    }

    /// Returns a name of the order and the contents, such as `kneser-ney-5-0123456789abcdef`.
    ///
    /// The digits are the start of the SHA-256 of vocabulary size, n-grams and counts. Models of
    /// the same sequences, in any order, have the same name.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns −ln p of each token in nats, from the beginning of a sequence.
    ///
    /// If `ends` is set, the result includes the end token after the last token. Leave it out for
    /// truncated text, such as samples of a fixed length.
    ///
    /// # Errors
    ///
    /// Returns [`NGramError::Token`] for an id outside the vocabulary.
    pub fn nats(&self, tokens: &[u32], ends: bool) -> Result<Vec<f64>, NGramError> {
        NGramError::check(tokens, self.vocab)?;
        let end = ends.then_some(end(self.vocab));
        let mut contexts = self.begin();
        let tokens = tokens.iter().copied().chain(end);
        Ok(tokens
            .map(|token| {
                let (probability, next) = self.read(&contexts, token);
                contexts = next;
                -probability.ln()
            })
            .collect())
    }

    /// Returns the distribution of the next token after the given tokens.
    ///
    /// The result has V+1 probabilities: those of the tokens by id, and last that of the end token.
    ///
    /// # Errors
    ///
    /// Returns [`NGramError::Token`] for an id outside the vocabulary.
    pub fn next(&self, tokens: &[u32]) -> Result<Vec<f64>, NGramError> {
        NGramError::check(tokens, self.vocab)?;
        let contexts = (tokens.iter()).fold(self.begin(), |contexts, &token| {
            self.read(&contexts, token).1
        });
        let tokens = 0..=end(self.vocab);
        Ok(tokens.map(|token| self.read(&contexts, token).0).collect())
    }

    /// Returns the contexts of the first token.
    fn begin(&self) -> Contexts {
        self.read(&vec![0], begin(self.vocab)).1
    }

    /// Returns the probability of a token in its contexts, and the contexts of the next token.
    fn read(&self, contexts: &Contexts, token: u32) -> (f64, Contexts) {
        let mut probability = 1.0 / (f64::from(self.vocab) + 1.0);
        let mut next = vec![0];
        for (level, &context) in self.levels.iter().zip(contexts) {
            let ngram = level.find(context, token);
            probability = level.interpolate(context, ngram, probability);
            // If an n-gram was seen, so were all its suffixes, so there are no gaps.
            next.extend(ngram);
        }
        next.truncate(self.order());
        (probability, next)
    }
}

fn identity(vocab: u32, levels: &[Level]) -> String {
    let mut hash = Sha256::new();
    let mut add = |numbers: &[u32]| {
        hash.update((numbers.len() as u64).to_le_bytes());
        for number in numbers {
            hash.update(number.to_le_bytes());
        }
    };
    add(&[vocab]);
    for level in levels {
        add(&level.starts);
        add(&level.tokens);
        add(&level.counts);
    }
    let digits: String = hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("kneser-ney-{}-{digits}", levels.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(order: usize, vocab: usize, sequences: &[(Vec<u32>, bool)]) -> NGramModel {
        let mut counts = NGramCounts::new(order, vocab).unwrap();
        for (tokens, ends) in sequences {
            counts.add(tokens, *ends).unwrap();
        }
        counts.estimate()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn values_computed_by_hand() {
        // The sequences are a b and a a. The unigrams a, b and end have 2, 1 and 2
        // distinct predecessors.
        let model = model(2, 2, &[(vec![0, 1], true), (vec![0, 0], true)]);
        // No count is 3 or 4, so the discounts are ½ and 1. So γ is (1 + ½ + 1)/5 for unigrams,
        // which are (1/5, 0.5/5, 1/5) + γ/3.
        assert_eq!(model.discounts(), [[0.5, 1.0, 1.5]; 2]);
        let unigrams = [11.0, 8.0, 11.0].map(|x| x / 30.0);
        // The begin token was followed by a twice, a by all three once, b by the end token once.
        let begin = [0.5, 0.0, 0.0].iter().zip(unigrams);
        let begin: Vec<f64> = begin.map(|(own, p)| own + 0.5 * p).collect();
        assert_close(&model.next(&[]).unwrap(), &begin);
        let a = unigrams.map(|p| 0.5 / 3.0 + 0.5 * p);
        assert_close(&model.next(&[0]).unwrap(), &a);
        let b = [11.0, 8.0, 41.0].map(|x| x / 60.0);
        assert_close(&model.next(&[0, 1]).unwrap(), &b);
        let nats = [begin[0], a[1], b[2]].map(|p| -p.ln());
        assert_close(&model.nats(&[0, 1], true).unwrap(), &nats);
        assert_close(&model.nats(&[0, 1], false).unwrap(), &nats[..2]);
    }

    #[test]
    fn without_text_all_is_equally_probable() {
        for order in NGramModel::ORDERS {
            let model = model(order, 3, &[]);
            assert_eq!(model.next(&[2, 0]).unwrap(), [0.25; 4]);
        }
    }

    #[test]
    fn the_identity_is_that_of_the_contents() {
        let (one, other) = ((vec![0, 1, 1], true), (vec![2], true));
        let of = |sequences: &[_]| model(3, 3, sequences).identity().to_owned();
        let identity = of(&[one.clone(), other.clone()]);
        assert!(identity.starts_with("kneser-ney-3-") && identity.len() == 13 + 16);
        assert_eq!(of(&[other.clone(), one.clone()]), identity);
        assert_ne!(of(&[one.clone(), other.clone(), other]), identity);
        assert_ne!(of(&[one]), identity);
    }

    fn sequences() -> impl Strategy<Value = Vec<(Vec<u32>, bool)>> {
        // Few of the five tokens are frequent, so all orders have large and small counts.
        let token = prop_oneof![6 => Just(0_u32), 3 => Just(1), 1 => 0_u32..5];
        let sequence = prop::collection::vec(token, 0..30);
        prop::collection::vec((sequence, any::<bool>()), 0..8)
    }

    proptest! {
        #[test]
        fn it_is_a_distribution_and_that_of_the_definition(
            sequences in sequences(),
            order in 1_usize..6,
            history in prop::collection::vec(0_u32..6, 0..8),
        ) {
            let model = model(order, 6, &sequences);
            let found = model.next(&history).unwrap();
            // Token 5 is never seen, but has positive probability.
            prop_assert!(found.iter().all(|&p| 0.0 < p && p <= 1.0));
            prop_assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let naive = naive::Naive::new(order, 6, &sequences);
            prop_assert_eq!(naive.discounts(), model.discounts());
            for (token, p) in (0..).zip(found) {
                prop_assert!((naive.probability(&history, token) - p).abs() < 1e-12);
            }
        }
    }
}
