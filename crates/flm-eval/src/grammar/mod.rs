//! Finite probabilistic grammars: sampling, membership, exact probabilities and entropies.

#[cfg(test)]
mod enumerate;
mod error;
mod expand;
mod frames;
mod inside;
mod lengths;
mod posterior;
mod rows;
mod small_english;
mod source;
mod weight;

use std::collections::HashMap;

use rand::{Rng, RngExt};

pub use self::error::{GrammarError, GrammarErrorKind};
pub use self::frames::{FrameMatch, Frames};
pub use self::posterior::Posterior;
pub use self::rows::GrammarRows;
pub(crate) use self::weight::log_add;

use self::expand::{Alternative, Item, Plain};
use self::inside::Starters;
use self::lengths::Summary;
use self::source::Source;
use crate::Estimate;

/// A probability distribution over a finite set of sentences, defined by weighted rules.
///
/// The syntax is described at the top of [`Grammar::SMALL_ENGLISH`] and on the
/// [crate page](crate#the-language-of-grammars).
#[derive(Debug)]
pub struct Grammar {
    text: String,
    words: Vec<String>,
    ids: HashMap<String, u32>,
    /// Children first, the start node last.
    nodes: Vec<Vec<Alternative>>,
    starters: Starters,
    summary: Summary,
}

impl Grammar {
    /// Parses and checks a grammar.
    ///
    /// # Errors
    ///
    /// Returns the first error found, with its line: see [`GrammarErrorKind`]. Recursion,
    /// undefined symbols and unreachable rules are errors, so a valid grammar is finite and uses
    /// all its rules.
    pub fn parse(text: &str) -> Result<Self, GrammarError> {
        let last_line = text.lines().count().max(1);
        let source = Source::parse(text)?;
        let plain = Plain::expand(&source, last_line)?;
        let start_line = source.start.as_ref().map_or(last_line, |start| start.line);
        let summary = Summary::new(&plain.nodes, start_line)?;
        let starters = Starters::new(&plain);
        let Plain { words, nodes } = plain;
        let ids = words.iter().cloned().zip(0..).collect();
        let text = text.to_owned();
        Ok(Self {
            text,
            words,
            ids,
            nodes,
            starters,
            summary,
        })
    }

    /// Returns the source text of the grammar.
    pub fn source(&self) -> &str {
        &self.text
    }

    /// Returns the distinct words in sorted order, including punctuation.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Returns whether `word` is one of [`words`](Self::words).
    pub fn has_word(&self, word: &str) -> bool {
        self.ids.contains_key(word)
    }

    /// Returns the number of tokens in the shortest sentence.
    pub fn min_len(&self) -> usize {
        self.summary.min
    }

    /// Returns the number of tokens in the longest sentence.
    pub fn max_len(&self) -> usize {
        self.summary.max
    }

    /// Returns the exact expected number of tokens in a sentence.
    pub fn mean_len(&self) -> f64 {
        self.summary.mean
    }

    /// Returns the exact entropy of a derivation in nats.
    ///
    /// For a node with alternatives of probability p and children c, H = Σ p·(−ln p + Σ H(c)).
    ///
    /// It equals the entropy of a sentence if no sentence has two derivations, and exceeds
    /// it otherwise.
    pub fn derivation_entropy(&self) -> f64 {
        self.summary.entropy
    }

    /// Draws a sentence.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<&str> {
        self.derive(rng).0
    }

    /// Draws a sentence and joins its tokens with spaces.
    pub fn sample_sentence<R: Rng + ?Sized>(&self, rng: &mut R) -> String {
        self.sample(rng).join(" ")
    }

    /// Draws a derivation and returns its words and its log-probability in nats.
    fn derive<R: Rng + ?Sized>(&self, rng: &mut R) -> (Vec<&str>, f64) {
        let mut words = Vec::new();
        let mut log_p = 0.0;
        let mut stack = vec![Item::Node(self.nodes.len() as u32 - 1)];
        while let Some(item) = stack.pop() {
            match item {
                Item::Word(word) => words.push(self.words[word as usize].as_str()),
                Item::Node(node) => {
                    let alternative = pick(&self.nodes[node as usize], rng.random());
                    log_p += alternative.log_p;
                    stack.extend(alternative.items.iter().rev());
                }
            }
        }
        (words, log_p)
    }

    /// Returns whether the tokens are a sentence of the language.
    pub fn contains<S: AsRef<str>>(&self, tokens: &[S]) -> bool {
        self.log_prob(tokens).is_some()
    }

    /// Returns the log-probability of a sentence in nats, summed over its derivations.
    ///
    /// Returns `None` if the language does not contain the sentence.
    pub fn log_prob<S: AsRef<str>>(&self, tokens: &[S]) -> Option<f64> {
        inside::log_prob(&self.nodes, &self.starters, &self.ids_of(tokens)?)
    }

    /// Returns the ids of the words; `None` if a word is unknown or no sentence has this length.
    fn ids_of<S: AsRef<str>>(&self, tokens: &[S]) -> Option<Vec<u32>> {
        if !(self.summary.min..=self.summary.max).contains(&tokens.len()) {
            return None;
        }
        let ids = tokens.iter().map(|token| self.ids.get(token.as_ref()));
        ids.map(Option::<&u32>::copied).collect()
    }

    /// Estimates the entropy of a sentence in nats as the mean of −log p over `n` drawn sentences.
    pub fn entropy_estimate<R: Rng + ?Sized>(&self, n: usize, rng: &mut R) -> Estimate {
        Estimate::of((0..n).map(|_| {
            let (words, log_p) = self.derive(rng);
            // A drawn sentence is in the language, so the fallback is never used. It would be an
            // upper bound.
            -self.log_prob(&words).unwrap_or(log_p)
        }))
    }
}

/// Returns the alternative at `u` in [0, 1) of the cumulative distribution.
fn pick(alternatives: &[Alternative], mut u: f64) -> &Alternative {
    let (last, before) = alternatives
        .split_last()
        .expect("every node has an alternative");
    for alternative in before {
        u -= alternative.p;
        if u < 0.0 {
            return alternative;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn the_sampler_follows_the_distribution() {
        let text = "start S\nS -> A A @3 | a a a\nA -> a @2 | a b | b";
        let grammar = Grammar::parse(text).unwrap();
        let expected = enumerate::strings(&grammar);
        let n = 200_000;
        let mut counts: HashMap<Vec<&str>, usize> = HashMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..n {
            *counts.entry(grammar.sample(&mut rng)).or_default() += 1;
        }
        // Hoeffding: one string deviates by more with probability 2·exp(−2nδ²); all together 1e-9.
        let delta = ((2.0 * expected.len() as f64 / 1e-9).ln() / (2.0 * f64::from(n))).sqrt();
        for (string, p) in &expected {
            let words: Vec<&str> = string.iter().map(String::as_str).collect();
            let share = counts.remove(&words).unwrap_or(0) as f64 / f64::from(n);
            assert!((share - p).abs() < delta, "{words:?}: {share} against {p}");
        }
        assert!(counts.is_empty(), "not in the language: {counts:?}");
    }

    #[test]
    fn sampled_surprise_matches_the_entropy_of_derivations() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let estimate = grammar.entropy_estimate(10_000, &mut rng);
        let error = (estimate.mean - grammar.derivation_entropy()).abs();
        // Six standard errors: one false alarm in 5e8 (normal tail), at an error of 0.25 nats.
        assert!(error < 6.0 * estimate.std_err, "{estimate:?}");
        assert!(estimate.std_err < 0.05);
    }

    #[test]
    fn an_ambiguous_string_has_less_entropy_than_its_derivations() {
        let grammar = Grammar::parse("start S\nS -> A | B\nA -> a\nB -> a").unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        assert!((grammar.derivation_entropy() - 2.0_f64.ln()).abs() < 1e-12);
        assert!(grammar.entropy_estimate(10, &mut rng).mean.abs() < 1e-12);
    }

    #[test]
    fn the_same_seed_gives_the_same_sentences() {
        let grammar = Grammar::small_english();
        let draw = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..20)
                .map(|_| grammar.sample_sentence(&mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(8), draw(8));
        assert_ne!(draw(8), draw(9));
    }

    #[test]
    fn strings_that_cannot_be_are_none() {
        let grammar = Grammar::parse("start S\nS -> a b | b").unwrap();
        assert!(grammar.has_word("a") && !grammar.has_word("c"));
        for tokens in [&[][..], &["a"], &["c"], &["b", "a"], &["a", "b", "b"]] {
            assert_eq!(grammar.log_prob(tokens), None, "{tokens:?}");
        }
    }
}
