//! Judging text samples: an exact oracle where the distribution of the text is known, models that judge
//! where it is not, entropy and diversity everywhere, and quality at equal entropy.
//!
//! # Where the distribution is known
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
//! And what a model that knows the distribution would say of any row, noisy or with holes: [`Grammar::rows`] has the distribution of sentences
//! given a weight for every word at every place, with its marginals and draws. That is the exact denoiser of a diffusion or a
//! flow.
//!
//! # Where it is not
//!
//! Then another distribution must judge: a [`Scorer`] says how many nats it pays for a text, and
//! [`GenPpl`] is the perplexity of all texts together. One scorer needs nothing but text, an
//! [n-gram model](ngram) with modified Kneser–Ney smoothing, estimated in seconds. It knows how
//! words follow each other and nothing else; a pretrained network stands behind the same trait.
//!
//! ```
//! use flm_eval::ngram::{NGramCounts, NGramScorer};
//! use flm_eval::{Diversity, GenPpl, Grammar};
//! use rand_chacha::ChaCha8Rng;
//! use rand_chacha::rand_core::SeedableRng;
//!
//! // Any text will do; this one is at hand. Tokens are bytes.
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
//! // A model that writes one likely sentence, always, beats the corpus in perplexity.
//! let collapsed = ["the girl loses her book because she is tired ."; 20];
//! assert!(GenPpl::of(&scorer, &collapsed)?.perplexity < judged.perplexity);
//! // Entropy within a sample does not see that either; figures of the whole set do.
//! let (good, collapsed) = (Diversity::of(&good)?, Diversity::of(&collapsed)?);
//! assert!(collapsed.distinct < good.distinct);
//! assert!(collapsed.variety.self_bleu > good.variety.self_bleu);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Figures
//!
//! | figure | says | unit |
//! | --- | --- | --- |
//! | [`Quality::valid`] | samples that are sentences of the grammar | share |
//! | [`oracle_nats_per_token`] | cross-entropy against the grammar, with a [floor](Grammar::floored_log_prob) for what is impossible | nats per token |
//! | [`GenPpl`] | cross-entropy against a scorer, and its exponential | nats per token of the scorer |
//! | [`mean_unigram_entropy`] | how varied the words of a sample are | nats |
//! | [`distinct_share`] | samples that differ | share |
//! | [`distinct_ngrams`] | n-grams that differ, of all samples together | share |
//! | [`self_bleu`] | how well samples foretell each other | 0 to 1, high means alike |
//! | [`repetition`] | n-grams that a sample repeats | share |
//! | [`Mauve`] | how near samples are to texts, both ways, by features of a network | 0 to 1, 1 means equal |
//!
//! [`Quality`] holds them with a grammar, [`Diversity`] those that remain without. All are pure
//! functions of the samples. Those of whole sets (distinct shares, self-BLEU) depend on how many
//! samples there are and how long they are: compare equal numbers.
//!
//! **No figure is to be read alone.** Fewer nats can be had by writing less varied text, so models
//! are compared at equal entropy: [`frontier`] holds the points of a model's settings, the front
//! they make, and the gap between fronts over the entropies that both cover.
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
//! # What it leaves to others
//!
//! It knows no model that writes and no tokenizer: samples come as text, or as ids for the
//! functions that are generic in the token, and a scorer is given the way to cut text. Randomness
//! is passed in.

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

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
