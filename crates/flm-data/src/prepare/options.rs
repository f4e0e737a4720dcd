//! What a data folder is to be.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::choice::is_share;
use crate::{Corpus, DataError, Layout, TextMap, TextTokenizer, ValidationFrom};

/// Where the tokenizer of a data folder comes from.
#[derive(Debug, Clone)]
pub enum TokenizerSource {
    /// The closed vocabulary of all words of the corpus: [`TextTokenizer::words`].
    Words,
    /// The closed vocabulary of all characters of the corpus: [`TextTokenizer::chars`].
    Chars,
    /// Byte pairs learnt from the corpus, this many tokens: [`TextTokenizer::train_bpe`].
    TrainBpe(usize),
    /// A `tokenizer.json`: [`TextTokenizer::load`].
    File(PathBuf),
    /// One that is there already.
    Given(Box<TextTokenizer>),
}

/// Where the validation split comes from.
#[derive(Clone, Default)]
pub enum Validation {
    /// [`PrepareOptions::validation_share`] of the corpus, spread over all of it.
    #[default]
    Share,
    /// The last documents of the corpus, this many; all before them is for training.
    Last(u64),
    /// A corpus of its own; all of the other one is for training.
    Corpus(Arc<dyn Corpus + Send + Sync>),
}

impl fmt::Debug for Validation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share => formatter.write_str("Share"),
            Self::Last(count) => formatter.debug_tuple("Last").field(count).finish(),
            Self::Corpus(corpus) => {
                let corpus = corpus.describe();
                formatter.debug_tuple("Corpus").field(&corpus).finish()
            }
        }
    }
}

/// How to make a data folder.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerSource,
    /// Tokens in a row.
    pub length: usize,
    /// What a row holds.
    pub layout: Layout,
    /// Where the validation split comes from.
    pub validation: Validation,
    /// For [`Validation::Share`], the share of documents to set apart, at least 0 and below 1, in whole millionths; of
    /// blocks, if the corpus is continuous. See [`prepare`](crate::prepare).
    pub validation_share: f64,
    /// A change to every document before it is encoded; to every piece, where a text is read as a
    /// whole. It runs on all cores, beside the tokenizer.
    pub text_map: Option<TextMap>,
    /// The most rows in one shard.
    pub rows_per_shard: u64,
    /// Bytes of text after which the state is saved, so that an interrupted preparation can go on
    /// from there. It changes nothing in the folder.
    pub checkpoint_bytes: u64,
    /// Further files of the folder, name and content: they appear with the rest of it.
    pub extra: Vec<(String, Vec<u8>)>,
}

impl PrepareOptions {
    /// One document a row, two documents in a hundred for validation, 65,536 rows a shard (16 MiB
    /// for 128 tokens of 16 bits), the state saved after every 64 MiB of text.
    pub fn new(tokenizer: TokenizerSource, length: usize) -> Self {
        Self {
            tokenizer,
            length,
            layout: Layout::Rows,
            validation: Validation::Share,
            validation_share: 0.02,
            text_map: None,
            rows_per_shard: 1 << 16,
            checkpoint_bytes: 64 << 20,
            extra: Vec::new(),
        }
    }

    pub(super) fn check(&self, corpus: &dyn Corpus) -> Result<(), DataError> {
        self.layout.check_length(self.length)?;
        if u32::try_from(self.length).is_err() {
            return Err(DataError::LengthTooLarge {
                length: self.length,
            });
        }
        if !is_share(self.validation_share) {
            return Err(DataError::BadShare {
                found: self.validation_share,
            });
        }
        if self.rows_per_shard == 0 {
            return Err(DataError::BadShardSize);
        }
        let is_continuous =
            corpus.is_continuous() || self.own_validation().is_some_and(|own| own.is_continuous());
        if is_continuous && self.layout == Layout::Rows {
            return Err(DataError::WholeNeedsPacking);
        }
        Ok(())
    }

    /// The corpus that is all for validation.
    pub(super) fn own_validation(&self) -> Option<&dyn Corpus> {
        match &self.validation {
            Validation::Corpus(corpus) => Some(&**corpus),
            Validation::Share | Validation::Last(_) => None,
        }
    }

    /// Whether any row is to be set apart.
    pub(super) fn wants_validation(&self) -> bool {
        match self.validation {
            Validation::Share => self.validation_share > 0.0,
            Validation::Last(count) => count > 0,
            Validation::Corpus(_) => true,
        }
    }

    /// What `dataset.json` says of the validation split: how it was chosen, and the share.
    pub(super) fn validation_meta(&self) -> (ValidationFrom, f64) {
        match &self.validation {
            Validation::Share => (ValidationFrom::Share, self.validation_share),
            Validation::Last(count) => (ValidationFrom::Last(*count), 0.0),
            Validation::Corpus(corpus) => (ValidationFrom::Corpus(corpus.describe()), 0.0),
        }
    }
}
