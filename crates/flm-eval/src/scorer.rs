//! Perplexity of samples under any reference model.

use std::error::Error;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::NoSamples;

/// A text distribution that scores samples, such as an n-gram model or a pretrained network.
///
/// A scorer uses its own tokenizer, whatever tokens the samples were written in, so it treats all
/// models alike. Each scorer defines and documents which of its tokens count. The reference counts
/// all tokens up to and including the first end token, and treats the rest as padding.
pub trait Scorer {
    /// Returns a name for results that covers everything a score depends on.
    ///
    /// Scorers with equal names give equal scores. The name has a short label and a hash of the
    /// contents, such as `kneser-ney-5-0123456789abcdef-words`.
    fn identity(&self) -> &str;

    /// Scores texts and returns the scores in the same order.
    ///
    /// # Errors
    ///
    /// Returns [`ScoreError::Failed`], with the cause, if tokenization or the computation fails.
    fn score(&self, texts: &[&str]) -> Result<Vec<Scored>, ScoreError>;
}

/// The negative log-likelihood of one text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Sum of −ln p over all counted tokens, in nats.
    pub nats: f64,
    /// Number of counted tokens.
    pub tokens: usize,
}

impl Scored {
    /// Sums the nats of a text's tokens.
    pub fn of(nats: &[f64]) -> Self {
        Self {
            nats: nats.iter().sum(),
            tokens: nats.len(),
        }
    }
}

/// An error that prevents texts from being scored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// There are no texts.
    #[error(transparent)]
    NoSamples(#[from] NoSamples),
    /// There are texts, but none has a counted token.
    #[error("expected at least one token to score, found none in {samples} samples")]
    NoTokens {
        /// The number of texts.
        samples: usize,
    },
    /// The scorer failed.
    #[error("the scorer {scorer} failed")]
    Failed {
        /// The scorer's [identity](Scorer::identity).
        scorer: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Generative perplexity: the perplexity of samples under a scorer.
///
/// It is exp(Σ nats / Σ tokens) over all samples, as in the reference. Every token has the same
/// weight, regardless of its sample or batch. Read it next to [entropy](crate::Diversity), because
/// repetitive samples lower the perplexity ([`frontier`](crate::frontier)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenPpl {
    /// The [identity](Scorer::identity) of the scorer. Perplexities of different scorers are
    /// not comparable.
    pub scorer: String,
    /// exp([`nats_per_token`](Self::nats_per_token)).
    pub perplexity: f64,
    /// Cross-entropy against the scorer, in nats per token of the scorer.
    pub nats_per_token: f64,
    /// Standard error of `nats_per_token`, in nats; `None` for a single sample.
    ///
    /// Samples are independent draws, but tokens within a sample are not. It is the standard
    /// error of a ratio of sums over samples, √(n/(n−1)·Σ(nats − r·tokens)²) / Σ tokens, where r
    /// is the ratio.
    pub std_err: Option<f64>,
    /// Number of counted tokens in all samples.
    pub tokens: usize,
    /// Number of samples.
    pub samples: usize,
}

impl GenPpl {
    /// Scores texts and computes their perplexity.
    ///
    /// # Errors
    ///
    /// Returns the errors of the scorer and of [`of_scored`](Self::of_scored).
    pub fn of<S: AsRef<str>>(
        scorer: &(impl Scorer + ?Sized),
        texts: &[S],
    ) -> Result<Self, ScoreError> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        Self::of_scored(scorer.identity(), &scorer.score(&texts)?)
    }

    /// Computes the perplexity from scores of a scorer with this identity.
    ///
    /// The scores may come from several batches.
    ///
    /// # Errors
    ///
    /// Returns [`ScoreError::NoSamples`] without samples, or [`ScoreError::NoTokens`] if no sample
    /// has a counted token.
    pub fn of_scored(identity: &str, scored: &[Scored]) -> Result<Self, ScoreError> {
        let samples = scored.len();
        let tokens: usize = scored.iter().map(|sample| sample.tokens).sum();
        match (samples, tokens) {
            (0, _) => return Err(NoSamples.into()),
            (_, 0) => return Err(ScoreError::NoTokens { samples }),
            _ => {}
        }
        let ratio = scored.iter().map(|sample| sample.nats).sum::<f64>() / tokens as f64;
        let squares: f64 = (scored.iter())
            .map(|sample| (sample.nats - ratio * sample.tokens as f64).powi(2))
            .sum();
        let n = samples as f64;
        Ok(Self {
            scorer: identity.to_owned(),
            perplexity: ratio.exp(),
            nats_per_token: ratio,
            std_err: (samples > 1).then(|| (n / (n - 1.0) * squares).sqrt() / tokens as f64),
            tokens,
            samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Estimate;

    /// A scorer that charges two nats per letter and fails on a dash.
    struct TwoNats;

    impl Scorer for TwoNats {
        fn identity(&self) -> &str {
            "two-nats"
        }

        fn score(&self, texts: &[&str]) -> Result<Vec<Scored>, ScoreError> {
            let score = |text: &&str| match text.contains('-') {
                false => Ok(Scored::of(&vec![2.0; text.len()])),
                true => Err(ScoreError::Failed {
                    scorer: self.identity().to_owned(),
                    source: "a dash".into(),
                }),
            };
            texts.iter().map(score).collect()
        }
    }

    #[test]
    fn tokens_weigh_the_same_in_all_samples() {
        let scored = [
            Scored::of(&[1.0]),
            Scored::of(&[3.0, 3.0, 3.0]),
            Scored::of(&[]),
        ];
        let figure = GenPpl::of_scored("x", &scored).unwrap();
        assert_eq!(figure.nats_per_token, 2.5);
        assert_eq!(figure.perplexity, 2.5_f64.exp());
        assert_eq!((figure.tokens, figure.samples), (4, 3));
        // Deviations from the ratio: 1 − 2.5, 9 − 7.5 and 0.
        let expected = (1.5 * (2.25 + 2.25_f64)).sqrt() / 4.0;
        assert!((figure.std_err.unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn of_samples_of_equal_length_the_standard_error_is_the_means() {
        let scored = [3.0, 5.0, 10.0].map(|nats| Scored { nats, tokens: 5 });
        let figure = GenPpl::of_scored("x", &scored).unwrap();
        let estimate = Estimate::of(scored.map(|sample| sample.nats / 5.0));
        assert!((figure.nats_per_token - estimate.mean).abs() < 1e-12);
        assert!((figure.std_err.unwrap() - estimate.std_err).abs() < 1e-12);
    }

    #[test]
    fn any_scorer_will_do() {
        let scorer: &dyn Scorer = &TwoNats;
        let figure = GenPpl::of(scorer, &["ab", "c"]).unwrap();
        assert_eq!((figure.nats_per_token, figure.tokens), (2.0, 3));
        assert_eq!(figure.scorer, "two-nats");
        let error = GenPpl::of(scorer, &["a-b"]).unwrap_err();
        assert_eq!(error.to_string(), "the scorer two-nats failed");
        assert_eq!(error.source().unwrap().to_string(), "a dash");
    }

    #[test]
    fn nothing_to_score_is_an_error() {
        let error = |texts: &[&str]| GenPpl::of(&TwoNats, texts).unwrap_err().to_string();
        assert_eq!(error(&[]), "expected at least one sample, found none");
        assert_eq!(
            error(&["", ""]),
            "expected at least one token to score, found none in 2 samples"
        );
    }
}
