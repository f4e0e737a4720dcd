//! Errors of n-gram models.

use thiserror::Error;

use super::NGramModel;

/// An error from counting or scoring n-grams.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NGramError {
    /// An order outside the supported range.
    #[error(
        "expected an order from {} to {}, found {found}",
        NGramModel::ORDERS.start(),
        NGramModel::ORDERS.end()
    )]
    Order {
        /// The requested order.
        found: usize,
    },
    /// A vocabulary that is too large.
    #[error("expected a vocabulary of less than 2^32 − 2 tokens, found one of {found}")]
    Vocab {
        /// The requested size.
        found: usize,
    },
    /// A token id outside the vocabulary.
    #[error("expected token ids below {vocab}, found {token} at position {place}")]
    Token {
        /// The id.
        token: u32,
        /// The position in the sequence, counted from 0.
        place: usize,
        /// The size of the vocabulary.
        vocab: u32,
    },
    /// More text than 32-bit positions can index.
    #[error("expected fewer than 2^32 − 1 tokens of text, including begin and end tokens")]
    TooLong,
}

impl NGramError {
    /// Checks that all ids are in the vocabulary.
    pub(super) fn check(tokens: &[u32], vocab: u32) -> Result<(), Self> {
        let is_beyond = |(_, token): &(usize, &u32)| **token >= vocab;
        match tokens.iter().enumerate().find(is_beyond) {
            None => Ok(()),
            Some((place, &token)) => Err(Self::Token {
                token,
                place,
                vocab,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ngram::NGramCounts;

    #[test]
    fn messages() {
        let order = NGramCounts::new(9, 2).unwrap_err();
        assert_eq!(order.to_string(), "expected an order from 1 to 8, found 9");
        let vocab = NGramCounts::new(2, u32::MAX as usize - 1).unwrap_err();
        assert_eq!(
            vocab.to_string(),
            "expected a vocabulary of less than 2^32 − 2 tokens, found one of 4294967294"
        );
        let mut counts = NGramCounts::new(2, 5).unwrap();
        let token = counts.add(&[4, 5], true).unwrap_err();
        assert_eq!(
            token.to_string(),
            "expected token ids below 5, found 5 at position 1"
        );
        // The rejected sequence was not added.
        let model = counts.estimate();
        assert_eq!(model.sizes(), [0, 0]);
        assert_eq!(
            model.nats(&[5], false),
            Err(NGramError::check(&[5], 5).unwrap_err())
        );
        assert!(model.next(&[7]).is_err());
    }
}
