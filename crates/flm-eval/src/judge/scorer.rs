//! Generative perplexity by the reference's conventions.

use std::error::Error;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use super::{Causal, JudgeError};
use crate::{ScoreError, Scored, Scorer};

/// Cuts a text into the model's tokens, reading a spelt `<|endoftext|>` as the end token.
pub type Retokenize<'a> =
    dyn Fn(&str) -> Result<Vec<u32>, Box<dyn Error + Send + Sync>> + Send + Sync + 'a;

/// A causal language model as a [`Scorer`].
///
/// As the paper's code does it (`metrics.py`): texts are cut into the model's own tokens, at most `max_length` of them, and filled up to
/// the longest with end tokens. The first token of a text is only given. Of the others count those that are no end token, and the
/// first end token, also where it is one that fills up: a text that just stops is charged for stopping there. The longest text of a call has nothing that fills it up.
///
/// One thing differs: the reference drops samples that fill no whole batch, here all of them count.
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
    /// A scorer with the model's tokenizer, whose hash `tokenizer` stands in the [identity](Scorer::identity) and whose end token is `eos`.
    ///
    /// Texts are cut to `max_length` tokens. `batch` of them are scored at a time, which changes the speed and no figure.
    ///
    /// # Errors
    ///
    /// [`JudgeError::Length`] if the model has fewer positions than that, or fewer than two tokens are asked for.
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

    /// The tokens of a text, as many as are scored.
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

    /// What the model makes of each text at its last token, a vector of its width: the features of [`Mauve`](crate::Mauve). Of an empty text it reads the
    /// end token.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Failed`] if a text cannot be cut into tokens.
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

    /// Scores some texts of at most `longest` tokens together.
    fn score_batch(&self, texts: &[Vec<u32>], longest: usize) -> Vec<Scored> {
        // One more than the longest here, so that every text that stops short is seen to stop.
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

/// Texts filled up with end tokens to this width, one after the other.
fn filled(texts: &[Vec<u32>], width: usize, eos: u32) -> Vec<i64> {
    let row = |tokens: &Vec<u32>| {
        let padding = std::iter::repeat_n(eos, width - tokens.len());
        let tokens = tokens.clone().into_iter();
        tokens.chain(padding).map(i64::from)
    };
    texts.iter().flat_map(row).collect()
}

/// Which of the tokens after the first count: all that are no end token, and the first that is one.
fn counted(tokens: &[i64], eos: i64) -> impl Iterator<Item = bool> + '_ {
    let first = tokens.iter().position(|token| *token == eos);
    (1..tokens.len()).map(move |i| tokens[i] != eos || first == Some(i))
}
