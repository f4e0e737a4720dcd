//! The options of a preparation.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::choice::is_share;
use crate::{Corpus, DataError, Layout, TextMap, TextTokenizer, ValidationFrom};

/// The source of the tokenizer of a data folder.
#[derive(Debug, Clone)]
pub enum TokenizerSource {
    /// The closed vocabulary of all words of the corpus: [`TextTokenizer::words`].
    Words,
    /// The closed vocabulary of all characters of the corpus: [`TextTokenizer::chars`].
    Chars,
    /// Byte pairs learned from the corpus, with this many tokens: [`TextTokenizer::train_bpe`].
    TrainBpe(usize),
    /// A `tokenizer.json`: [`TextTokenizer::load`].
    File(PathBuf),
    /// An existing tokenizer.
    Given(Box<TextTokenizer>),
}

/// The source of the validation split.
#[derive(Clone, Default)]
pub enum Validation {
    /// A fraction [`PrepareOptions::validation_share`] of the corpus, spread evenly over it.
    #[default]
    Share,
    /// This many documents at the end of the corpus. All earlier documents are for training.
    Last(u64),
    /// A separate corpus. All of the main corpus is for training.
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

/// Options of [`prepare`](crate::prepare).
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// The source of the tokenizer.
    pub tokenizer: TokenizerSource,
    /// The number of tokens in a row.
    pub length: usize,
    /// The content of a row.
    pub layout: Layout,
    /// The source of the validation split.
    pub validation: Validation,
    /// For [`Validation::Share`], the fraction of documents for validation: at least 0 and below 1,
    /// in whole millionths. For a continuous corpus, the fraction of blocks. See
    /// [`prepare`](crate::prepare).
    pub validation_share: f64,
    /// A transformation of every document before encoding; of every piece, if a text is read as a
    /// whole. It runs on all cores, together with the tokenizer.
    pub text_map: Option<TextMap>,
    /// The largest number of rows in one shard.
    pub rows_per_shard: u64,
    /// The number of bytes of text between saved states, from which an interrupted preparation can
    /// resume. It does not affect the files.
    pub checkpoint_bytes: u64,
    /// Additional files of the folder, as name and content. They appear together with the others.
    pub extra: Vec<(String, Vec<u8>)>,
}

impl PrepareOptions {
    /// Creates the default options: one document per row, 2 % of the documents for validation,
    /// 65,536 rows per shard (16 MiB for 128 tokens of 16 bits), and a saved state after every 64
    /// MiB of text.
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

    /// Returns the separate validation corpus.
    pub(super) fn own_validation(&self) -> Option<&dyn Corpus> {
        match &self.validation {
            Validation::Corpus(corpus) => Some(&**corpus),
            Validation::Share | Validation::Last(_) => None,
        }
    }

    /// Whether any rows are requested for validation.
    pub(super) fn wants_validation(&self) -> bool {
        match self.validation {
            Validation::Share => self.validation_share > 0.0,
            Validation::Last(count) => count > 0,
            Validation::Corpus(_) => true,
        }
    }

    /// Returns the validation fields of `dataset.json`: the selection method and the share.
    pub(super) fn validation_meta(&self) -> (ValidationFrom, f64) {
        match &self.validation {
            Validation::Share => (ValidationFrom::Share, self.validation_share),
            Validation::Last(count) => (ValidationFrom::Last(*count), 0.0),
            Validation::Corpus(corpus) => (ValidationFrom::Corpus(corpus.describe()), 0.0),
        }
    }
}
