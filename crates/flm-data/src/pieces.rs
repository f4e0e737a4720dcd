//! Groups the pieces of a corpus into batches that are large enough for parallel work.

use crate::DataError;
use crate::corpus::{Piece, Pieces};

/// The largest number of pieces in a batch.
const PIECES: usize = 1000;
/// A batch is full at this many bytes of text; the last piece may exceed it.
const BYTES: usize = 4 << 20;

/// Returns the pieces in order, in batches of at least one.
pub(crate) fn batches(
    mut pieces: Pieces<'_>,
) -> impl Iterator<Item = Result<Vec<Piece>, DataError>> {
    std::iter::from_fn(move || {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < PIECES && bytes < BYTES {
            match pieces.next() {
                Some(Ok(piece)) => {
                    bytes += piece.text.len();
                    batch.push(piece);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        (!batch.is_empty()).then_some(Ok(batch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(texts: Vec<String>) -> Pieces<'static> {
        Box::new(texts.into_iter().map(|text| {
            Ok(Piece {
                text,
                ends_document: true,
            })
        }))
    }

    fn sizes(texts: Vec<String>) -> Vec<usize> {
        batches(pieces(texts))
            .map(|batch| batch.unwrap().len())
            .collect()
    }

    #[test]
    fn a_batch_is_bounded_in_pieces_and_in_bytes() {
        assert_eq!(sizes(vec![String::new(); 2001]), [1000, 1000, 1]);
        assert_eq!(sizes(vec!["x".repeat(BYTES / 2); 5]), [2, 2, 1]);
        assert_eq!(sizes(vec!["x".repeat(3 * BYTES); 2]), [1, 1]);
        assert!(sizes(vec![]).is_empty());
    }
}
