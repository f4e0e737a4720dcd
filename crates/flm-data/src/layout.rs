//! Arranges the tokens of documents in rows of one length.

use serde::{Deserialize, Serialize};

use crate::{DataError, TextTokenizer};

/// The content of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One document: its tokens, an end token, then padding. A document of more than `length − 1`
    /// tokens is dropped as a whole and counted. Truncated documents would teach the model false
    /// endings.
    Rows,
    /// A begin token, `length − 2` tokens of a stream, and an end token. The stream contains all
    /// documents in sequence, each followed by an end token. The remainder at the end of the stream
    /// is dropped and counted.
    ///
    /// The paper's code packs LM1B and OpenWebText in the same way, except that it packs every
    /// 1,000 documents separately and drops a remainder each time.
    Packed,
}

impl Layout {
    /// Returns the name in `dataset.json` and in messages: "rows" or "packed".
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Packed => "packed",
        }
    }

    /// Returns the smallest length, in tokens, with room for one token of text.
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

/// Returns the row of one document, or `None` if the document is too long.
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

/// Splits a stream of tokens into blocks of one length.
#[derive(Debug)]
pub(crate) struct Packer {
    length: usize,
    bos: u32,
    eos: u32,
    block: Vec<u32>,
}

impl Packer {
    /// Creates a packer for blocks of `length` tokens. The layout must have accepted this length.
    pub(crate) fn new(length: usize, tokenizer: &TextTokenizer) -> Self {
        let bos = tokenizer.bos_id();
        Self {
            length,
            bos,
            eos: tokenizer.eos_id(),
            block: vec![bos],
        }
    }

    /// Adds tokens to the stream and calls `emit` with every completed block.
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

    /// Adds the end token of a document to the stream.
    pub(crate) fn end_document(
        &mut self,
        emit: impl FnMut(&[u32]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        self.push(&[self.eos], emit)
    }

    /// Returns the tokens of the stream that do not fill a block yet.
    pub(crate) fn pending(&self) -> &[u32] {
        &self.block[1..]
    }

    /// Restores the pending tokens of another packer. Returns the reason if they are invalid.
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
