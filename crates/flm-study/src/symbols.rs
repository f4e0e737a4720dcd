//! The mapping between a tokenizer's tokens and a grammar's symbols.

use crate::{Error, Result};
use flm_data::TextTokenizer;
use flm_eval::GrammarRows;

/// A mapping between tokens and the symbols of [`GrammarRows`].
pub struct Symbols {
    /// The token of each symbol.
    tokens: Vec<u32>,
    /// The symbol of each token, if the grammar has one.
    symbols: Vec<Option<usize>>,
}

impl Symbols {
    /// Creates the mapping.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if a word of the grammar is not a token.
    pub fn new(rows: &GrammarRows<'_>, tokenizer: &TextTokenizer) -> Result<Self> {
        let mut tokens = Vec::with_capacity(rows.symbols());
        for word in rows.words() {
            tokens.push(tokenizer.token_id(word).ok_or_else(|| {
                Error::Input(format!(
                    "`{word}` of the grammar is not a token: exact distributions need one token per word"
                ))
            })?);
        }
        tokens.extend([tokenizer.eos_id(), tokenizer.pad_id()]);
        let mut symbols = vec![None; tokenizer.vocab_size()];
        for (symbol, &token) in tokens.iter().enumerate() {
            symbols[token as usize] = Some(symbol);
        }
        Ok(Self { tokens, symbols })
    }

    /// The token of each symbol.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Returns the symbol of a token, if it has one.
    pub fn symbol(&self, token: u32) -> Option<usize> {
        *self.symbols.get(token as usize)?
    }

    /// Converts a row of tokens to symbols; `None` if a token has no symbol.
    pub fn of(&self, tokens: &[u32]) -> Option<Vec<usize>> {
        tokens.iter().map(|&token| self.symbol(token)).collect()
    }
}
