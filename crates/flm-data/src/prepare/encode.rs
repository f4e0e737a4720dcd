//! The pass that encodes the corpus and saves its state at checkpoints.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use super::journal::{Consumed, Journal};
use super::rows::RowMaker;
use super::text::{AllText, Batch};
use super::{Progress, Stage, report};
use crate::dataset::SplitMeta;
use crate::{Corpus, DataError, TextMap, TextTokenizer};

/// The state of the encoding pass, apart from the text.
pub(super) struct Encoder<'a> {
    pub(super) tokenizer: &'a TextTokenizer,
    /// In the state that the journal records.
    pub(super) maker: RowMaker<'a>,
    pub(super) journal: Journal,
    /// The unfinished folder.
    pub(super) folder: &'a Path,
    pub(super) checkpoint_bytes: u64,
}

impl Encoder<'_> {
    /// Encodes all text that the journal does not record yet.
    pub(super) fn run(
        mut self,
        text: AllText<'_>,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<(SplitMeta, SplitMeta), DataError> {
        let mut batches = text.batches();
        self.skip(text, &mut batches, progress)?;
        let mut next = batches.next();
        while let Some(batch) = next.take() {
            let batch = batch?;
            // The corpus cannot leave the current thread. This thread reads the next batch while
            // the other threads encode the current one.
            let mut encoded = Vec::new();
            next = rayon::in_place_scope(|scope| {
                scope.spawn(|_| encoded = encode(self.tokenizer, text.map, &batch));
                batches.next()
            });
            for (piece, tokens) in batch.pieces.iter().zip(encoded) {
                self.maker.push(&tokens?, piece.ends_document, batch.own)?;
            }
            let stopped = report(progress, &self.counts(batch.read));
            let bytes = batch.read.bytes - self.journal.read.bytes;
            if bytes >= self.checkpoint_bytes || stopped.is_err() {
                self.save(batch.read)?;
            }
            stopped?;
            if next.is_none()
                && self
                    .journal
                    .total
                    .is_some_and(|all| all != batch.read.documents)
            {
                return Err(changed(text));
            }
        }
        self.maker.finish()
    }

    /// Saves a state whose rows contain all text up to `read`.
    pub(super) fn save(&mut self, read: Consumed) -> Result<(), DataError> {
        self.journal.rows = self.maker.save()?;
        self.journal.read = read;
        self.journal.write(self.folder)
    }

    /// Reads past the text that the journal records, and checks that it is unchanged. The same
    /// batch sizes apply, so the recorded text ends with a batch.
    fn skip(
        &self,
        text: AllText<'_>,
        batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<(), DataError> {
        let known = self.journal.read;
        let mut read = Consumed::default();
        while read.pieces < known.pieces {
            let Some(batch) = batches.next() else {
                return Err(changed(text));
            };
            read = batch?.read;
            report(progress, &self.counts(read))?;
        }
        if read != known {
            return Err(changed(text));
        }
        Ok(())
    }

    fn counts(&self, read: Consumed) -> Progress {
        Progress {
            stage: Stage::Encoding,
            documents: read.documents,
            bytes: read.bytes,
            rows: self.maker.rows(),
        }
    }
}

/// Returns the tokens of each piece, or its error, in order.
fn encode(
    tokenizer: &TextTokenizer,
    map: Option<&TextMap>,
    batch: &Batch,
) -> Vec<Result<Vec<u32>, DataError>> {
    let pieces = batch.pieces.par_iter();
    pieces
        .map(|piece| match map {
            Some(map) => tokenizer.encode(&map.apply(&piece.text)),
            None => tokenizer.encode(&piece.text),
        })
        .collect()
}

fn changed(text: AllText<'_>) -> DataError {
    DataError::CorpusChanged {
        corpus: text.describe(),
    }
}
