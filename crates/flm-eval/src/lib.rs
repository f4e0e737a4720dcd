//! Judging text samples: an exact oracle where the law of the text is known, entropy and
//! diversity everywhere.
//!
//! A language model is usually judged by another language model. Where the corpus is drawn from
//! a [`Grammar`] that is not needed: the probability of every sentence is known, so one can say
//! which samples are possible at all, how probable they are, and what a perfect model would
//! reach. [`Grammar::small_english`] is such a corpus, made of the dependencies that are lost
//! when words are predicted independently of each other.
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
//! // Samples of a model beside the corpus itself, at the same number of samples.
//! let samples = ["the girl is happy today .", "the girls is happy today ."];
//! let model = Quality::of(&grammar, &samples)?;
//! let corpus = corpus_quality(&grammar, samples.len(), &mut rng)?;
//! assert_eq!((model.valid, corpus.valid), (0.5, 1.0));
//! # Ok::<(), flm_eval::NoSamples>(())
//! ```
//!
//! # The language of grammars
//!
//! ```
//! let grammar = flm_eval::Grammar::parse(
//!     "# A rule with a variable stands for one plain rule per value.
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
//! A grammar is a text of lines; `#` begins a comment where a token begins.
//!
//! | line | meaning |
//! | --- | --- |
//! | `feature num = sg pl` | a feature and its values; its name is a variable over them |
//! | `part human of gen = m f` | a variable over some values of a feature |
//! | `start Sentence` | the symbol derivations begin with; it has no features |
//! | `Head[sg,human] -> a B[human] @2 \| c` | a rule with two alternatives; rules for one head add up |
//! | `\| d E` | further alternatives of the rule above |
//!
//! Symbols begin with a capital letter and have the same features wherever they are written;
//! all else is a word, and `()` is no word. `@2` at the end weights an alternative (1e-6 to 1e6,
//! otherwise 1); weights are normalized over all alternatives of a symbol with given values.
//! Within an alternative and its head a variable has one value; `num'` and `num''` are further
//! variables over the same values. A variable that the head does not bind is drawn uniformly:
//! the alternative's weight is shared among its values.
//!
//! The language must be finite: recursion is an error, and so are symbols without a rule and
//! rules without a use ([`GrammarErrorKind`]).
//!
//! # Figures
//!
//! [`Quality`] holds the validity share, the [oracle cross-entropy](oracle_nats_per_token) with
//! its [floor for impossible sentences](Grammar::floored_log_prob), the
//! [entropy](unigram_entropy) and the share of distinct samples; [`Diversity`] what remains
//! without a grammar. All are pure functions of the samples, in nats.
//!
//! # What it leaves to others
//!
//! It knows no model and no tokenizer: samples come as text, or as ids for the functions that
//! are generic in the token. Randomness is passed in.

mod estimate;
mod grammar;
mod metrics;
pub mod ngram;
mod oracle;
mod quality;
mod scorer;

pub use estimate::Estimate;
pub use grammar::{Grammar, GrammarError, GrammarErrorKind};
pub use metrics::{
    Variety, distinct_ngrams, distinct_share, mean_length, mean_unigram_entropy, repetition,
    self_bleu, unigram_entropy,
};
pub use oracle::oracle_nats_per_token;
pub use quality::{Diversity, NoSamples, Quality, corpus_quality};
pub use scorer::{GenPpl, ScoreError, Scored, Scorer};
