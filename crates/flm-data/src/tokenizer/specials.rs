//! Finds the tokens that begin, end and pad a row.

use tokenizers::{AddedToken, Tokenizer};

use crate::DataError;

/// The padding token of tokenizers built here: token 0.
pub const PAD: &str = "[PAD]";
/// The begin token of tokenizers built here, for packed blocks: token 1.
pub const BOS: &str = "[BOS]";
/// The end token of tokenizers built here: token 2.
pub const EOS: &str = "[EOS]";

/// The special tokens of tokenizers built here, in numeric order.
pub(crate) const SPECIALS: [&str; 3] = [PAD, BOS, EOS];

pub(super) const RESERVED: &str = "it is the name of a special token";

// The names in published tokenizers, after the names used here. `[SEP]` and `[CLS]` come last: a
// tokenizer that also has an end token uses them for another purpose.
const ENDS: [&str; 6] = [
    EOS,
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "[SEP]",
];
const BEGINS: [&str; 5] = [BOS, "<s>", "<bos>", "<|begin_of_text|>", "[CLS]"];
const PADS: [&str; 4] = [PAD, "<pad>", "<|pad|>", "<|padding|>"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpecialIds {
    pub(super) pad: u32,
    pub(super) bos: u32,
    pub(super) eos: u32,
}

impl SpecialIds {
    /// Finds the tokens among the added special tokens; `name` is for the error.
    pub(super) fn find(tokenizer: &Tokenizer, name: &str) -> Result<Self, DataError> {
        let added = tokenizer.get_added_tokens_decoder();
        let find = |names: &[&str]| {
            names.iter().find_map(|name| {
                let token = added
                    .iter()
                    .find(|(_, token)| token.special && token.content == *name);
                token.map(|(&id, _)| id)
            })
        };
        let eos = find(&ENDS).ok_or_else(|| DataError::NoEndToken {
            name: name.to_owned(),
            known: ENDS.join(", "),
        })?;
        Ok(Self {
            pad: find(&PADS).unwrap_or(eos),
            bos: find(&BEGINS).unwrap_or(eos),
            eos,
        })
    }
}

/// Returns the special tokens in the form that the `tokenizers` crate adds.
pub(super) fn added_tokens() -> Vec<AddedToken> {
    SPECIALS
        .iter()
        .map(|&name| AddedToken::from(name, true))
        .collect()
}
