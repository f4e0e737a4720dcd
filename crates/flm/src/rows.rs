//! Training data: rows of tokens.

use crate::Result;
use flm_data::{Dataset, FnCorpus, Layout, Split, TextTokenizer};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Rows of tokens with their tokenizer and layout, from a data folder or from texts in memory.
#[derive(Debug)]
pub struct Rows {
    tokenizer: TextTokenizer,
    layout: Layout,
    train: Split,
    validation: Split,
    source: String,
    hash: String,
}

impl Rows {
    /// Opens a data folder.
    ///
    /// All rows are read once to verify them. After that they stay on disk and are read on demand.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if a part of the folder is missing or damaged.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let dataset = Dataset::open(folder)?;
        dataset.verify()?;
        let (meta, tokenizer, [train, validation]) = dataset.into_parts();
        Ok(Self {
            hash: meta.identity(folder)?,
            layout: meta.layout,
            source: meta.source,
            tokenizer,
            train,
            validation,
        })
    }

    /// Encodes texts as training rows of `length` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if a text has a word outside the vocabulary or does not
    /// fit into a row.
    pub fn from_texts(
        tokenizer: TextTokenizer,
        layout: Layout,
        length: usize,
        texts: &[impl AsRef<str>],
    ) -> Result<Self> {
        let train = Split::from_texts(texts, &tokenizer, layout, length)?;
        Self::in_memory(tokenizer, layout, train)
    }

    /// Creates training rows from tokens: complete rows, with end tokens and padding.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if a row does not have `length` tokens or a token is
    /// outside the vocabulary.
    pub fn from_tokens(
        tokenizer: TextTokenizer,
        layout: Layout,
        length: usize,
        rows: &[Vec<u32>],
    ) -> Result<Self> {
        let train = Split::from_rows(rows, length, tokenizer.vocab_size())?;
        Self::in_memory(tokenizer, layout, train)
    }

    /// Encodes texts as training rows of `length` tokens, with a vocabulary of their words.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if a text does not fit into a row, or there are
    /// no words.
    pub fn from_words(layout: Layout, length: usize, texts: &[impl AsRef<str>]) -> Result<Self> {
        let owned: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let corpus = FnCorpus::new("texts in memory", move || owned.clone().into_iter().map(Ok));
        Self::from_texts(TextTokenizer::words(&corpus)?, layout, length, texts)
    }

    fn in_memory(tokenizer: TextTokenizer, layout: Layout, train: Split) -> Result<Self> {
        let validation = Split::from_rows(&[], train.length(), tokenizer.vocab_size())?;
        let mut hash = Sha256::new();
        hash.update(train.identity().unwrap_or_default());
        hash.update(tokenizer.hash());
        hash.update(layout.name());
        let hash = hash.finalize();
        Ok(Self {
            hash: hash
                .iter()
                .take(16)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            source: format!("{} rows in memory", train.rows()),
            tokenizer,
            layout,
            train,
            validation,
        })
    }

    /// Sets texts for validation. Validation needs at least as many rows as a micro-batch.
    ///
    /// # Errors
    ///
    /// The errors of [`from_texts`](Self::from_texts).
    pub fn with_validation(mut self, texts: &[impl AsRef<str>]) -> Result<Self> {
        let length = self.train.length();
        self.validation = Split::from_texts(texts, &self.tokenizer, self.layout, length)?;
        Ok(self)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The layout of the rows.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of tokens in a row.
    pub fn length(&self) -> usize {
        self.train.length()
    }

    /// The training rows.
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// The validation rows; may be empty.
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// A description of the rows for people.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A hash that identifies the rows. A run is only resumed on rows with the same hash.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}
