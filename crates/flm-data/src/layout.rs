//! How the tokens of documents become rows of one length.

use serde::{Deserialize, Serialize};

use crate::{DataError, TextTokenizer};

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One document: its tokens, an end token, padding. A document of more than `length − 1`
    /// tokens is dropped whole, since a cut one would teach the model endings that are none, and
    /// counted.
    Rows,
    /// A begin token, `length − 2` tokens of the stream in which all documents follow one another
    /// with an end token after each, and an end token. What is left at the end of the stream is
    /// dropped and counted.
    ///
    /// This is how the paper's code wraps LM1B and OpenWebText, but for one thing: it wraps
    /// every 1,000 documents on their own and drops a remainder each time.
    Packed,
}

impl Layout {
    /// The name in `dataset.json` and in messages: "rows" or "packed".
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Packed => "packed",
        }
    }

    /// The smallest length, in tokens, with room for one token of text.
    pub fn minimum_length(self) -> usize {
        match self {
            Self::Rows => 2,
            Self::Packed => 3,
        }
    }

    pub(crate) fn check_length(self, length: usize) -> Result<(), DataError> {
        if length < self.minimum_length() {
            return Err(DataError::LengthTooSmall {
                length,
                layout: self.name(),
                minimum: self.minimum_length(),
            });
        }
        Ok(())
    }
}

/// The row of one document, or `None` when it is too long.
pub(crate) fn row(tokens: &[u32], length: usize, tokenizer: &TextTokenizer) -> Option<Vec<u32>> {
    if tokens.len() + 1 > length {
        return None;
    }
    let mut row = Vec::with_capacity(length);
    row.extend_from_slice(tokens);
    row.push(tokenizer.eos_id());
    row.resize(length, tokenizer.pad_id());
    Some(row)
}

/// Cuts a stream of tokens into blocks of one length.
#[derive(Debug)]
pub(crate) struct Packer {
    length: usize,
    bos: u32,
    eos: u32,
    block: Vec<u32>,
}

impl Packer {
    /// A packer of blocks of `length`, which the layout must have accepted.
    pub(crate) fn new(length: usize, tokenizer: &TextTokenizer) -> Self {
        let bos = tokenizer.bos_id();
        Self {
            length,
            bos,
            eos: tokenizer.eos_id(),
            block: vec![bos],
        }
    }

    /// Adds tokens to the stream and hands every block that is complete to `emit`.
    pub(crate) fn push(
        &mut self,
        mut tokens: &[u32],
        mut emit: impl FnMut(&[u32]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        while !tokens.is_empty() {
            let room = self.length - 1 - self.block.len();
            let (now, later) = tokens.split_at(room.min(tokens.len()));
            self.block.extend_from_slice(now);
            tokens = later;
            if self.block.len() == self.length - 1 {
                self.block.push(self.eos);
                emit(&self.block)?;
                self.block.clear();
                self.block.push(self.bos);
            }
        }
        Ok(())
    }

    /// Adds the end of a document to the stream.
    pub(crate) fn end_document(
        &mut self,
        emit: impl FnMut(&[u32]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        self.push(&[self.eos], emit)
    }

    /// Tokens of the stream that are in no complete block.
    pub(crate) fn pending(&self) -> &[u32] {
        &self.block[1..]
    }

    /// Takes the pending tokens of another packer, or says why they are none.
    pub(crate) fn resume(&mut self, pending: &[u32]) -> Result<(), String> {
        let room = self.length - 2;
        if pending.len() >= room.max(1) {
            return Err(format!(
                "{} pending tokens in blocks of {room}",
                pending.len()
            ));
        }
        self.block.truncate(1);
        self.block.extend_from_slice(pending);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> TextTokenizer {
        TextTokenizer::from_words(["a", "b", "c"]).unwrap()
    }

    #[test]
    fn a_row_is_a_document_its_end_and_padding() {
        let tokenizer = tokenizer();
        assert_eq!(row(&[3, 4], 5, &tokenizer).unwrap(), [3, 4, 2, 0, 0]);
        assert_eq!(row(&[3, 4, 5, 3], 5, &tokenizer).unwrap(), [3, 4, 5, 3, 2]);
        assert_eq!(row(&[3, 4, 5, 3, 4], 5, &tokenizer), None);
    }

    #[test]
    fn blocks_hold_the_stream_between_begin_and_end() {
        let mut packer = Packer::new(5, &tokenizer());
        let mut blocks = Vec::new();
        for document in [&[3, 4][..], &[5, 5, 5, 5, 5], &[3]] {
            let mut emit = |block: &[u32]| {
                blocks.push(block.to_vec());
                Ok(())
            };
            packer.push(document, &mut emit).unwrap();
            packer.end_document(&mut emit).unwrap();
        }
        assert_eq!(blocks, [[1, 3, 4, 2, 2], [1, 5, 5, 5, 2], [1, 5, 5, 2, 2]]);
        assert_eq!(packer.pending(), [3, 2]);
    }

    #[test]
    fn blocks_do_not_depend_on_how_the_stream_arrives() {
        let stream: Vec<u32> = (0..100).map(|n| 3 + n % 3).collect();
        let pack = |pieces: usize| {
            let mut packer = Packer::new(7, &tokenizer());
            let mut blocks = Vec::new();
            for piece in stream.chunks(pieces) {
                packer
                    .push(piece, |block| {
                        blocks.extend_from_slice(block);
                        Ok(())
                    })
                    .unwrap();
            }
            (blocks, packer.pending().len())
        };
        let whole = pack(100);
        assert_eq!(whole.0.len() / 7 * 5 + whole.1, 100);
        for pieces in [1, 2, 5, 6, 33] {
            assert_eq!(pack(pieces), whole);
        }
    }
}
