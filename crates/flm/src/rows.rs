//! Rows of tokens to train on.

use crate::Result;
use flm_data::{Dataset, FnCorpus, Layout, Split, TextTokenizer};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Rows of tokens with their tokenizer and layout: those of a data folder, or of texts in memory.
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
    /// The rows of a data folder. All are read once to check them; then they stay on the disk until they are asked for.
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

    /// Texts as rows of `length` tokens, for training.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if a text is not of the vocabulary, or too long for a row of its own.
    pub fn from_texts(
        tokenizer: TextTokenizer,
        layout: Layout,
        length: usize,
        texts: &[impl AsRef<str>],
    ) -> Result<Self> {
        let train = Split::from_texts(texts, &tokenizer, layout, length)?;
        Self::in_memory(tokenizer, layout, train)
    }

    /// Rows of tokens, for training: whole rows, with their end tokens and padding.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if rows are of several lengths, or a token is beyond the vocabulary.
    pub fn from_tokens(
        tokenizer: TextTokenizer,
        layout: Layout,
        length: usize,
        rows: &[Vec<u32>],
    ) -> Result<Self> {
        let train = Split::from_rows(rows, length, tokenizer.vocab_size())?;
        Self::in_memory(tokenizer, layout, train)
    }

    /// Texts as rows of `length` tokens, of a vocabulary of their own words.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) if a text is too long for a row of its own, or has no words.
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

    /// With other texts for validation, at least as many as a micro-batch has rows.
    ///
    /// # Errors
    ///
    /// As those of [`from_texts`](Self::from_texts).
    pub fn with_validation(mut self, texts: &[impl AsRef<str>]) -> Result<Self> {
        let length = self.train.length();
        self.validation = Split::from_texts(texts, &self.tokenizer, self.layout, length)?;
        Ok(self)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// What a row holds.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Tokens in a row.
    pub fn length(&self) -> usize {
        self.train.length()
    }

    /// The rows to train on.
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// The rows set apart; possibly none.
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// What the rows are, for people.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Identity of the rows: a run is not resumed on others.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}
