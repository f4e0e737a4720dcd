//! What an n-gram model refuses.

use thiserror::Error;

use super::NGramModel;

/// What cannot be counted or scored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NGramError {
    /// An order that is too small or too large.
    #[error(
        "expected an order from {} to {}, found {found}",
        NGramModel::ORDERS.start(),
        NGramModel::ORDERS.end()
    )]
    Order {
        /// The order asked for.
        found: usize,
    },
    /// A vocabulary whose ids do not fit.
    #[error("expected a vocabulary of less than 2^32 − 2 tokens, found one of {found}")]
    Vocab {
        /// The size asked for.
        found: usize,
    },
    /// An id beyond the vocabulary.
    #[error("expected token ids below {vocab}, found {token} at place {place}")]
    Token {
        /// The id.
        token: u32,
        /// Its place in the sequence, counted from 0.
        place: usize,
        /// The vocabulary's size.
        vocab: u32,
    },
    /// More text than places can be numbered.
    #[error("expected less than 2^32 − 1 tokens of text, begins and ends included")]
    TooLong,
}

impl NGramError {
    /// Checks that all ids are of the vocabulary.
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
            "expected token ids below 5, found 5 at place 1"
        );
        // What was refused left nothing behind.
        let model = counts.estimate();
        assert_eq!(model.sizes(), [0, 0]);
        assert_eq!(
            model.nats(&[5], false),
            Err(NGramError::check(&[5], 5).unwrap_err())
        );
        assert!(model.next(&[7]).is_err());
    }
}
