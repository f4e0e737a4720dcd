//! The distribution of a data folder's rows, where they are sentences of a grammar.

use crate::{Error, Result};
use flm_data::TextTokenizer;
use flm_eval::GrammarRows;

/// Tokens and the symbols by which a grammar's rows call them.
pub struct Symbols {
    /// Of every symbol.
    tokens: Vec<u32>,
    /// Of every token, if it is one of the grammar.
    symbols: Vec<Option<usize>>,
}

impl Symbols {
    /// Fails where a word of the grammar is no token.
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

    /// The tokens of all symbols.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The symbol of a token, if it is one.
    pub fn symbol(&self, token: u32) -> Option<usize> {
        *self.symbols.get(token as usize)?
    }

    /// A row of tokens in symbols; none if a token is none.
    pub fn of(&self, tokens: &[u32]) -> Option<Vec<usize>> {
        tokens.iter().map(|&token| self.symbol(token)).collect()
    }
}
