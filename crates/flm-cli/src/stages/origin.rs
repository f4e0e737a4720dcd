//! Where a model comes from, as far as it matters for the text that its tokens are.

use super::train::card;
use crate::error::{CliError, Result};
use flm_data::{Layout, TOKENIZER_FILE, TextTokenizer};
use serde::Deserialize;
use std::path::Path;

/// What the card of a model says of its text, whether a run made the model or it was converted.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Origin {
    /// What a row of tokens holds.
    pub(crate) layout: Layout,
    /// Of the tokenizer that the model was trained with.
    #[serde(default)]
    tokenizer_hash: Option<String>,
}

impl Origin {
    /// That of a model folder. One without a card is taken for a model of rows.
    pub(crate) fn read(model: &Path) -> Result<Self> {
        Ok(card::parse(model)?.unwrap_or(Self {
            layout: Layout::Rows,
            tokenizer_hash: None,
        }))
    }

    /// The tokenizer of the model folder, which must be the one that the model was trained with.
    pub(crate) fn tokenizer(&self, model: &Path) -> Result<TextTokenizer> {
        let path = model.join(TOKENIZER_FILE);
        if !path.is_file() {
            return Err(CliError::input(format!(
                "the model folder {} has no {TOKENIZER_FILE}: its tokens cannot be read as text",
                model.display()
            )));
        }
        let tokenizer = TextTokenizer::load(&path)?;
        match self.tokenizer_hash.as_deref() {
            Some(trained) if trained != tokenizer.hash() => Err(CliError::input(format!(
                "{} has the hash {:.12}, but the model was trained with the tokenizer {trained:.12}",
                path.display(),
                tokenizer.hash(),
            ))),
            _ => Ok(tokenizer),
        }
    }
}
