//! Generative perplexity by the conventions of the reference code.

use std::error::Error;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use super::{Causal, JudgeError};
use crate::{ScoreError, Scored, Scorer};

/// Splits a text into the model's tokens. A literal `<|endoftext|>` becomes the end token.
pub type Retokenize<'a> =
    dyn Fn(&str) -> Result<Vec<u32>, Box<dyn Error + Send + Sync>> + Send + Sync + 'a;

/// A causal language model as a [`Scorer`].
///
/// The scoring follows the paper's code (`metrics.py`):
///
/// - Texts are tokenized with the model's own tokenizer, truncated to `max_length` tokens, and
///   padded to the longest text with end tokens.
/// - The first token of a text is context only. Of the others, all tokens except end tokens count,
///   and so does the first end token.
/// - The first end token also counts if it is padding: a text without an end token pays for
///   stopping. The longest text of a call has no padding.
///
/// One difference: the reference drops the samples of an incomplete last batch, but here all
/// samples count.
pub struct CausalScorer<'a, B: Backend, M: ?Sized> {
    model: &'a M,
    encode: Box<Retokenize<'a>>,
    eos: u32,
    max_length: usize,
    batch: usize,
    device: B::Device,
    identity: String,
}

impl<'a, B: Backend, M: Causal<B> + ?Sized> CausalScorer<'a, B, M> {
    /// Creates a scorer from a model and its tokenizer.
    ///
    /// The hash `tokenizer` becomes part of the [identity](Scorer::identity). `eos` is the end
    /// token. Texts are truncated to `max_length` tokens. The `batch` size affects speed only.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Length`] if `max_length` is below two or exceeds the
    /// model's positions.
    pub fn new(
        model: &'a M,
        encode: Box<Retokenize<'a>>,
        tokenizer: &str,
        eos: u32,
        max_length: usize,
        batch: usize,
        device: B::Device,
    ) -> Result<Self, JudgeError> {
        let positions = model.positions();
        if !(2..=positions).contains(&max_length) {
            return Err(JudgeError::Length {
                positions,
                found: max_length,
            });
        }
        Ok(Self {
            identity: format!(
                "{}-{:.16}-{tokenizer:.12}-{max_length}",
                model.name(),
                model.hash()
            ),
            model,
            encode,
            eos,
            max_length,
            batch: batch.max(1),
            device,
        })
    }

    /// Returns the tokens of a text, truncated to `max_length`.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ScoreError> {
        let mut tokens = (self.encode)(text).map_err(|source| self.failed(source))?;
        tokens.truncate(self.max_length);
        let vocabulary = self.model.vocabulary();
        match tokens.iter().find(|token| **token as usize >= vocabulary) {
            Some(&token) => Err(self.failed(Box::new(JudgeError::Token { token, vocabulary }))),
            None => Ok(tokens),
        }
    }

    fn failed(&self, source: Box<dyn Error + Send + Sync>) -> ScoreError {
        ScoreError::Failed {
            scorer: self.identity.clone(),
            source,
        }
    }

    /// Returns the hidden state at the last token of each text, a vector of the model's width.
    ///
    /// These are the features of [`Mauve`](crate::Mauve). An empty text is read as one end token.
    ///
    /// # Errors
    ///
    /// Returns [`ScoreError::Failed`] if a text cannot be tokenized.
    pub fn features(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ScoreError> {
        let mut features = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.batch) {
            let tokens = texts.iter().map(|text| self.tokens(text));
            let mut tokens = tokens.collect::<Result<Vec<_>, _>>()?;
            let empty = tokens.iter_mut().filter(|tokens| tokens.is_empty());
            empty.for_each(|tokens| tokens.push(self.eos));
            let width = tokens.iter().map(Vec::len).max().unwrap_or(0);
            let filled = filled(&tokens, width, self.eos);
            let filled = TensorData::new(filled, [tokens.len(), width]);
            let filled = Tensor::<B, 2, Int>::from_data(filled, &self.device);
            let hidden = self.model.hidden(filled);
            for (row, tokens) in tokens.iter().enumerate() {
                let last = hidden
                    .clone()
                    .slice([row..row + 1, tokens.len() - 1..tokens.len()]);
                features.push(last.into_data().iter::<f32>().collect());
            }
        }
        Ok(features)
    }

    /// Scores a batch of texts. `longest` is the length of the longest text of the call.
    fn score_batch(&self, texts: &[Vec<u32>], longest: usize) -> Vec<Scored> {
        // One more than the longest text of the batch, so that every shorter text of the call is
        // charged for its end.
        let here = texts.iter().map(Vec::len).max().unwrap_or(0);
        let width = (here + 1).min(longest);
        if width < 2 {
            return vec![Scored::of(&[]); texts.len()];
        }
        let filled = filled(texts, width, self.eos);
        let tokens = Tensor::<B, 2, Int>::from_data(
            TensorData::new(filled.clone(), [texts.len(), width]),
            &self.device,
        );
        let nats: Vec<f32> = self.model.nats(tokens).into_data().iter::<f32>().collect();
        (filled.chunks(width).zip(nats.chunks(width - 1)))
            .map(|(tokens, nats)| {
                let counted = counted(tokens, i64::from(self.eos));
                let nats: Vec<f64> = (nats.iter().zip(counted))
                    .filter(|(_, counts)| *counts)
                    .map(|(nats, _)| f64::from(*nats))
                    .collect();
                Scored::of(&nats)
            })
            .collect()
    }
}

impl<B: Backend, M: Causal<B> + ?Sized> Scorer for CausalScorer<'_, B, M> {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn score(&self, texts: &[&str]) -> Result<Vec<Scored>, ScoreError> {
        let texts = texts.iter().map(|text| self.tokens(text));
        let texts: Vec<Vec<u32>> = texts.collect::<Result<_, _>>()?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        Ok((texts.chunks(self.batch))
            .flat_map(|texts| self.score_batch(texts, longest))
            .collect())
    }
}

/// Returns texts padded with end tokens to `width`, concatenated.
fn filled(texts: &[Vec<u32>], width: usize, eos: u32) -> Vec<i64> {
    let row = |tokens: &Vec<u32>| {
        let padding = std::iter::repeat_n(eos, width - tokens.len());
        let tokens = tokens.clone().into_iter();
        tokens.chain(padding).map(i64::from)
    };
    texts.iter().flat_map(row).collect()
}

/// Returns which tokens after the first count: all except end tokens, and the first end token.
fn counted(tokens: &[i64], eos: i64) -> impl Iterator<Item = bool> + '_ {
    let first = tokens.iter().position(|token| *token == eos);
    (1..tokens.len()).map(move |i| tokens[i] != eos || first == Some(i))
}
