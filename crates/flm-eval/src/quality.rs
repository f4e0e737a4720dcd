//! Metrics of a set of samples.

use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::metrics::{Variety, distinct_share, mean_length, mean_unigram_entropy};
use crate::{Grammar, oracle_nats_per_token};

/// The error for an empty set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected at least one sample, found none")]
pub struct NoSamples;

/// Metrics of samples that need no knowledge of their distribution.
///
/// Do not read one metric alone: a model that repeats one good sentence has a low cross-entropy,
/// and noise has a high entropy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Diversity {
    /// Number of samples.
    pub samples: usize,
    /// Mean [unigram entropy](crate::unigram_entropy) of a sample, in nats.
    pub entropy: f64,
    /// Fraction of distinct samples, in (0, 1]. Only comparable between equal numbers of samples.
    pub distinct: f64,
    /// Mean number of tokens in a sample.
    pub mean_length: f64,
    /// N-gram metrics within and between samples. They are flattened into the same JSON object.
    #[serde(flatten)]
    pub variety: Variety,
}

impl Diversity {
    /// Measures sentences whose tokens are separated by whitespace.
    ///
    /// # Errors
    ///
    /// Returns [`NoSamples`] if there are no sentences.
    pub fn of<S: AsRef<str>>(sentences: &[S]) -> Result<Self, NoSamples> {
        Self::of_tokens(&split(sentences))
    }

    fn of_tokens(samples: &[Vec<&str>]) -> Result<Self, NoSamples> {
        Ok(Self {
            samples: samples.len(),
            entropy: mean_unigram_entropy(samples).ok_or(NoSamples)?,
            distinct: distinct_share(samples).ok_or(NoSamples)?,
            mean_length: mean_length(samples).ok_or(NoSamples)?,
            variety: Variety::of(samples),
        })
    }
}

/// Metrics of samples from a known grammar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Number of samples.
    pub samples: usize,
    /// Fraction of samples that are sentences of the language, in [0, 1].
    pub valid: f64,
    /// [Cross-entropy](oracle_nats_per_token) against the grammar, in nats per token.
    pub oracle_nats_per_token: f64,
    /// [Divergence](crate::FrameMatch::divergence) of the valid samples' sentence frames from the
    /// grammar's, in nats; `None` if no sample is valid.
    #[serde(default)]
    pub frame_divergence: Option<f64>,
    /// [Recall](crate::FrameMatch::recall) of the sentence frames, in \[0, 1\]; `None` if no sample
    /// is valid.
    #[serde(default)]
    pub frame_recall: Option<f64>,
    /// Mean unigram entropy; see [`Diversity::entropy`].
    pub entropy: f64,
    /// Fraction of distinct samples; see [`Diversity::distinct`].
    pub distinct: f64,
    /// Mean number of tokens in a sample.
    pub mean_length: f64,
    /// N-gram metrics; see [`Diversity::variety`].
    #[serde(flatten)]
    pub variety: Variety,
}

impl Quality {
    /// Measures sentences against a grammar. Tokens are separated by whitespace.
    ///
    /// # Errors
    ///
    /// Returns [`NoSamples`] if there are no sentences.
    pub fn of<S: AsRef<str>>(grammar: &Grammar, sentences: &[S]) -> Result<Self, NoSamples> {
        Self::of_tokens(grammar, &split(sentences))
    }

    fn of_tokens(grammar: &Grammar, samples: &[Vec<&str>]) -> Result<Self, NoSamples> {
        let Diversity {
            samples: count,
            entropy,
            distinct,
            mean_length,
            variety,
        } = Diversity::of_tokens(samples)?;
        let valid = samples.iter().filter(|s| grammar.contains(s)).count();
        let frames = grammar.frames().compare(samples);
        Ok(Self {
            samples: count,
            valid: valid as f64 / count as f64,
            oracle_nats_per_token: oracle_nats_per_token(grammar, samples).ok_or(NoSamples)?,
            frame_divergence: frames.map(|frames| frames.divergence),
            frame_recall: frames.map(|frames| frames.recall),
            entropy,
            distinct,
            mean_length,
            variety,
        })
    }
}

/// Measures `n` sentences drawn from the grammar itself: the result of a perfect model.
///
/// # Errors
///
/// Returns [`NoSamples`] if `n` is 0.
pub fn corpus_quality<R: Rng + ?Sized>(
    grammar: &Grammar,
    n: usize,
    rng: &mut R,
) -> Result<Quality, NoSamples> {
    let samples: Vec<Vec<&str>> = (0..n).map(|_| grammar.sample(rng)).collect();
    Quality::of_tokens(grammar, &samples)
}

fn split<S: AsRef<str>>(sentences: &[S]) -> Vec<Vec<&str>> {
    (sentences.iter())
        .map(|sentence| sentence.as_ref().split_whitespace().collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn figures_of_a_small_set() {
        let grammar = Grammar::parse("start S\nS -> a b | b").unwrap();
        let sentences = ["a  b", "a b", "b", "b b b"];
        let quality = Quality::of(&grammar, &sentences).unwrap();
        assert_eq!(quality.samples, 4);
        assert_eq!(quality.valid, 0.75);
        assert_eq!(quality.distinct, 0.75);
        assert_eq!(quality.mean_length, 2.0);
        assert!((quality.entropy - 2.0_f64.ln() / 2.0).abs() < 1e-12);
        let diversity = Diversity::of(&sentences).unwrap();
        assert_eq!(diversity.entropy, quality.entropy);
        assert_eq!(diversity.distinct, quality.distinct);
    }

    #[test]
    fn figures_lie_flat_in_json_and_old_results_still_read() {
        let diversity = Diversity::of(&["a b a b", "a b"]).unwrap();
        let json = serde_json::to_value(diversity).unwrap();
        let keys: Vec<&str> = (json.as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        assert_eq!(
            keys,
            [
                "distinct",
                "distinct_1",
                "distinct_2",
                "distinct_3",
                "entropy",
                "mean_length",
                "repetition_2",
                "repetition_3",
                "repetition_4",
                "samples",
                "self_bleu",
            ]
        );
        assert!(json["repetition_4"] == 0.0 && json["distinct_1"].is_f64());
        assert_eq!(
            serde_json::from_value::<Diversity>(json).unwrap(),
            diversity
        );

        let old = r#"{"samples":2,"valid":1.0,"oracle_nats_per_token":1.2,"entropy":0.7,"distinct":1.0,"mean_length":3.0}"#;
        let quality: Quality = serde_json::from_str(old).unwrap();
        assert_eq!(quality.valid, 1.0);
        assert_eq!(quality.variety, Variety::default());
    }

    #[test]
    fn no_samples_is_an_error() {
        let grammar = Grammar::parse("start S\nS -> a").unwrap();
        assert_eq!(Quality::of::<&str>(&grammar, &[]), Err(NoSamples));
        assert_eq!(Diversity::of::<&str>(&[]), Err(NoSamples));
    }

    #[test]
    fn an_empty_sample_is_judged_like_any_other() {
        let grammar = Grammar::parse("start S\nS -> a").unwrap();
        let quality = Quality::of(&grammar, &[""]).unwrap();
        assert_eq!(
            (quality.valid, quality.entropy, quality.mean_length),
            (0.0, 0.0, 0.0)
        );
        assert!(quality.oracle_nats_per_token.is_finite());
    }

    #[test]
    fn the_corpus_is_valid_and_near_its_own_entropy() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let quality = corpus_quality(&grammar, 2000, &mut rng).unwrap();
        assert_eq!(quality.valid, 1.0);
        // −ln p of a sentence and its length have standard deviations below 4. So the ratio's
        // standard error is below (4 + 1.3·4)/13.5/√2000 = 0.016. The tolerance is six of them: one
        // false alarm in 5e8 (normal tail).
        let expected = grammar.derivation_entropy() / (grammar.mean_len() + 1.0);
        assert!((quality.oracle_nats_per_token - expected).abs() < 0.1);
    }
}
