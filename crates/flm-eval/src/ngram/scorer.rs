//! An n-gram model as a scorer of texts.

use std::error::Error;

use super::NGramModel;
use crate::{ScoreError, Scored, Scorer};

/// Scores texts with an [`NGramModel`] and a tokenizer.
///
/// All tokens of a text count, and also the end token if the scorer is created with `ends`. The
/// tokenizer must drop padding and everything after an end token.
pub struct NGramScorer<F> {
    model: NGramModel,
    ends: bool,
    cut: F,
    identity: String,
}

impl<F> NGramScorer<F>
where
    F: Fn(&str) -> Result<Vec<u32>, Box<dyn Error + Send + Sync>>,
{
    /// Creates a scorer from a model and the tokenizer `cut`.
    ///
    /// `units` names the tokens for the identity, such as characters or a tokenizer's hash.
    /// If `ends` is set, texts are complete and their ends are scored; otherwise texts may
    /// be truncated.
    pub fn new(model: NGramModel, units: &str, ends: bool, cut: F) -> Self {
        let end = if ends { "-end" } else { "" };
        let identity = format!("{}-{units}{end}", model.identity());
        Self {
            model,
            ends,
            cut,
            identity,
        }
    }

    /// Returns the n-gram model.
    pub fn model(&self) -> &NGramModel {
        &self.model
    }

    fn score_one(&self, text: &str) -> Result<Scored, Box<dyn Error + Send + Sync>> {
        let tokens = (self.cut)(text)?;
        Ok(Scored::of(&self.model.nats(&tokens, self.ends)?))
    }
}

impl<F> Scorer for NGramScorer<F>
where
    F: Fn(&str) -> Result<Vec<u32>, Box<dyn Error + Send + Sync>>,
{
    fn identity(&self) -> &str {
        &self.identity
    }

    fn score(&self, texts: &[&str]) -> Result<Vec<Scored>, ScoreError> {
        let failed = |source| ScoreError::Failed {
            scorer: self.identity.clone(),
            source,
        };
        (texts.iter())
            .map(|text| self.score_one(text).map_err(failed))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GenPpl;
    use crate::ngram::NGramCounts;

    fn letters(text: &str) -> Result<Vec<u32>, Box<dyn Error + Send + Sync>> {
        Ok(text.bytes().map(|byte| u32::from(byte) - 97).collect())
    }

    fn model() -> NGramModel {
        let mut counts = NGramCounts::new(2, 2).unwrap();
        for text in ["ab", "aa"] {
            counts.add(&letters(text).unwrap(), true).unwrap();
        }
        counts.estimate()
    }

    #[test]
    fn texts_have_the_nats_of_the_model() {
        let whole = NGramScorer::new(model(), "letters", true, letters);
        let cut = NGramScorer::new(model(), "letters", false, letters);
        assert_eq!(cut.identity(), format!("{}-letters", model().identity()));
        assert_eq!(whole.identity(), format!("{}-end", cut.identity()));
        // The values of the model's own test: p(a), then p(b | a), then the end token after b.
        let nats = -(41.0 / 60.0 * 18.0 / 60.0_f64).ln();
        let figure = GenPpl::of(&cut, &["ab"]).unwrap();
        assert!((figure.nats_per_token - nats / 2.0).abs() < 1e-12);
        let figure = GenPpl::of(&whole, &["ab"]).unwrap();
        let nats = nats - (41.0 / 60.0_f64).ln();
        assert!((figure.nats_per_token - nats / 3.0).abs() < 1e-12);
        assert_eq!((figure.tokens, figure.samples), (3, 1));
    }

    #[test]
    fn a_text_that_is_no_text_of_the_vocabulary_is_named() {
        let scorer = NGramScorer::new(model(), "letters", true, letters);
        let error = scorer.score(&["a", "ac"]).unwrap_err();
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "expected token ids below 2, found 2 at position 1");
    }
}
