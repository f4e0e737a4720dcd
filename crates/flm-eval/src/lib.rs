//! Measures the quality and diversity of text samples.
//!
//! The crate scores samples exactly where the distribution of the text is known, and with a
//! reference model where it is not. It also measures entropy and diversity, and compares quality at
//! equal entropy.
//!
//! # Known distributions
//!
//! A language model is usually scored by another language model. Text drawn from a [`Grammar`] does
//! not need one, because the probability of every sentence is known. The grammar tells which
//! samples are possible, how probable they are, and what score a perfect model reaches.
//! [`Grammar::small_english`] is such a corpus. It is built from the dependencies that are lost
//! when words are predicted independently.
//!
//! ```
//! use flm_eval::{Grammar, Quality, corpus_quality};
//! use rand_chacha::ChaCha8Rng;
//! use rand_chacha::rand_core::SeedableRng;
//!
//! let grammar = Grammar::small_english();
//! let mut rng = ChaCha8Rng::seed_from_u64(0);
//! let sentence = grammar.sample_sentence(&mut rng);
//! let tokens: Vec<&str> = sentence.split(' ').collect();
//! assert!(grammar.log_prob(&tokens).is_some());
//!
//! // Compare a model with the corpus itself, at the same number of samples.
//! let samples = ["the girl is happy today .", "the girls is happy today ."];
//! let model = Quality::of(&grammar, &samples)?;
//! let corpus = corpus_quality(&grammar, samples.len(), &mut rng)?;
//! assert_eq!((model.valid, corpus.valid), (0.5, 1.0));
//! # Ok::<(), flm_eval::NoSamples>(())
//! ```
//!
//! [`Grammar::rows`] gives the exact posterior of any noisy or incomplete row. It is the
//! distribution of sentences given a weight for every word at every position, with its marginals
//! and samples. This is the exact denoiser of a diffusion or flow model.
//!
//! # Unknown distributions
//!
//! Text from an unknown distribution is scored by a reference model. A [`Scorer`] returns the
//! negative log-likelihood of a text in nats, and [`GenPpl`] is the perplexity of all texts
//! together. One scorer needs only text: an [n-gram model](ngram) with modified Kneser–Ney
//! smoothing, estimated in seconds. It knows which words follow each other and nothing else. A
//! pretrained network implements the same trait.
//!
//! ```
//! use flm_eval::ngram::{NGramCounts, NGramScorer};
//! use flm_eval::{Diversity, GenPpl, Grammar};
//! use rand_chacha::ChaCha8Rng;
//! use rand_chacha::rand_core::SeedableRng;
//!
//! // The training text is sampled from the grammar. Tokens are bytes.
//! let (grammar, mut rng) = (Grammar::small_english(), ChaCha8Rng::seed_from_u64(0));
//! let bytes = |text: &str| -> Vec<u32> { text.bytes().map(u32::from).collect() };
//! let mut counts = NGramCounts::new(5, 256)?;
//! for _ in 0..1000 {
//!     counts.add(&bytes(&grammar.sample_sentence(&mut rng)), true)?;
//! }
//! let scorer = NGramScorer::new(counts.estimate(), "bytes", true, |text| Ok(bytes(text)));
//!
//! let good: Vec<String> = (0..20).map(|_| grammar.sample_sentence(&mut rng)).collect();
//! let reversed: Vec<String> = good.iter().map(|text| text.chars().rev().collect()).collect();
//! let judged = GenPpl::of(&scorer, &good)?;
//! assert!(judged.perplexity < 2.0 && GenPpl::of(&scorer, &reversed)?.perplexity > 30.0);
//!
//! // A model that always writes one likely sentence beats the corpus in perplexity.
//! let collapsed = ["the girl loses her book because she is tired ."; 20];
//! assert!(GenPpl::of(&scorer, &collapsed)?.perplexity < judged.perplexity);
//! // Entropy within a sample misses this too, but the metrics of the whole set detect it.
//! let (good, collapsed) = (Diversity::of(&good)?, Diversity::of(&collapsed)?);
//! assert!(collapsed.distinct < good.distinct);
//! assert!(collapsed.variety.self_bleu > good.variety.self_bleu);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Metrics
//!
//! | metric | meaning | unit |
//! | --- | --- | --- |
//! | [`Quality::valid`] | samples that are sentences of the grammar | fraction |
//! | [`oracle_nats_per_token`] | cross-entropy against the grammar, with a [floor](Grammar::floored_log_prob) for impossible sentences | nats per token |
//! | [`GenPpl`] | cross-entropy against a scorer, and its exponential | nats per token of the scorer |
//! | [`mean_unigram_entropy`] | entropy of the words within a sample | nats |
//! | [`distinct_share`] | distinct samples | fraction |
//! | [`distinct_ngrams`] | distinct n-grams over all samples | fraction |
//! | [`self_bleu`] | similarity of samples to each other | 0 to 1, high means similar |
//! | [`repetition`] | repeated n-grams within a sample | fraction |
//! | [`Mauve`] | closeness of samples to texts, in both directions, by features of a network | 0 to 1, 1 means equal |
//!
//! [`Quality`] holds the metrics of samples from a known grammar, and [`Diversity`] those that need
//! no grammar. All are pure functions of the samples. Metrics of whole sets (distinct shares,
//! Self-BLEU) depend on the number of samples and their length, so compare equal numbers.
//!
//! **Do not read one metric alone.** Less varied text needs fewer nats, so compare models at equal
//! entropy. [`frontier`] holds the measured points of a model's settings, their Pareto front, and
//! the gap between fronts over the entropies that both cover.
//!
//! # The language of grammars
//!
//! ```
//! let grammar = flm_eval::Grammar::parse(
//!     "# A rule with a variable expands to one plain rule per value.
//!      feature num = sg pl
//!      start Sentence
//!      Sentence -> the Noun[num] Verb[num] . @2
//!                | there Be[num] no Noun[num] .
//!      Noun[sg] -> dog | cat @0.5
//!      Noun[pl] -> dogs
//!      Verb[sg] -> sleeps
//!      Verb[pl] -> sleep
//!      Be[sg] -> is
//!      Be[pl] -> are",
//! )?;
//! assert!(grammar.contains(&["the", "dogs", "sleep", "."]));
//! assert!(!grammar.contains(&["the", "dogs", "sleeps", "."]));
//! # Ok::<(), flm_eval::GrammarError>(())
//! ```
//!
//! A grammar is a text of lines. A token that starts with `#` begins a comment.
//!
//! | line | meaning |
//! | --- | --- |
//! | `feature num = sg pl` | a feature and its values; the name is also a variable over the values |
//! | `part human of gen = m f` | a variable over some values of a feature |
//! | `start Sentence` | the start symbol, which has no features |
//! | `Head[sg,human] -> a B[human] @2 \| c` | a rule with two alternatives; several rules for one head are combined |
//! | `\| d E` | further alternatives of the rule above |
//!
//! Symbols begin with a capital letter, and a symbol has the same features everywhere. Every other
//! token is a word, and `()` is the empty string. A final `@2` is the weight of an alternative,
//! from 1e-6 to 1e6 with a default of 1. Weights are normalized over all alternatives of a symbol
//! with given feature values. Within an alternative and its head, a variable has one value; `num'`
//! and `num''` are further variables over the same values. A variable that the head does not bind
//! is drawn uniformly: the alternative's weight is split among its values.
//!
//! The language must be finite. Recursion, symbols without a rule and unused rules are
//! errors ([`GrammarErrorKind`]).
//!
//! # Limits
//!
//! The crate contains no generator and no tokenizer. Samples are text, or token ids for the
//! functions that are generic over tokens, and a scorer receives its tokenizer as a function.
//! Callers pass in the random number generator.

mod estimate;
pub mod frontier;
mod grammar;
#[cfg(feature = "judges")]
pub mod judge;
mod metrics;
pub mod ngram;
mod oracle;
mod quality;
mod scorer;

pub use estimate::Estimate;
pub use grammar::{
    FrameMatch, Frames, Grammar, GrammarError, GrammarErrorKind, GrammarRows, Posterior,
};
pub use metrics::{
    Copying, Mauve, Variety, distinct_ngrams, distinct_share, mean_length, mean_unigram_entropy,
    repetition, self_bleu, unigram_entropy,
};
pub use oracle::oracle_nats_per_token;
pub use quality::{Diversity, NoSamples, Quality, corpus_quality};
pub use scorer::{GenPpl, ScoreError, Scored, Scorer};

/// Compiles the code blocks of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
