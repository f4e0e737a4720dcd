//! The text of a preparation: all documents of all corpora in sequence.

use super::PrepareOptions;
use super::journal::Consumed;
use crate::corpus::{Documents, Piece, Pieces};
use crate::pieces::batches;
use crate::{Corpus, DataError, TextMap};

/// The corpus, followed by the separate validation corpus if there is one.
#[derive(Clone, Copy)]
pub(super) struct AllText<'a> {
    pub(super) corpus: &'a dyn Corpus,
    pub(super) validation: Option<&'a dyn Corpus>,
    pub(super) map: Option<&'a TextMap>,
}

/// Pieces that were read together, before the text map.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) pieces: Vec<Piece>,
    /// Whether the pieces belong to the separate validation corpus.
    pub(super) own: bool,
    /// All text read up to the end of this batch.
    pub(super) read: Consumed,
}

impl<'a> AllText<'a> {
    pub(super) fn new(corpus: &'a dyn Corpus, options: &'a PrepareOptions) -> Self {
        Self {
            corpus,
            validation: options.own_validation(),
            map: options.text_map.as_ref(),
        }
    }

    fn parts(self) -> impl Iterator<Item = (&'a dyn Corpus, bool)> {
        let validation = self.validation.map(|corpus| (corpus, true));
        std::iter::once((self.corpus, false)).chain(validation)
    }

    /// Returns all pieces in batches, before the text map.
    pub(super) fn batches(self) -> impl Iterator<Item = Result<Batch, DataError>> + 'a {
        let mut read = Consumed::default();
        self.parts()
            .flat_map(|(corpus, own)| {
                batches(or_error(corpus.pieces())).map(move |pieces| (pieces, own))
            })
            .map(move |(pieces, own)| {
                let pieces = pieces?;
                pieces.iter().for_each(|piece| read.add(piece));
                Ok(Batch { pieces, own, read })
            })
    }
}

/// The corpus from which a vocabulary is built: the text after its map.
impl Corpus for AllText<'_> {
    fn documents(&self) -> Result<Documents<'_>, DataError> {
        let pieces = self.pieces()?;
        Ok(Box::new(pieces.map(|piece| piece.map(|piece| piece.text))))
    }

    fn pieces(&self) -> Result<Pieces<'_>, DataError> {
        let pieces = self
            .parts()
            .flat_map(|(corpus, _)| or_error(corpus.pieces()));
        Ok(match self.map {
            None => Box::new(pieces),
            Some(map) => Box::new(pieces.map(|piece| {
                let piece = piece?;
                Ok(Piece {
                    text: map.apply(&piece.text),
                    ..piece
                })
            })),
        })
    }

    fn describe(&self) -> String {
        self.corpus.describe()
    }
}

fn or_error(pieces: Result<Pieces<'_>, DataError>) -> Pieces<'_> {
    pieces.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
}
