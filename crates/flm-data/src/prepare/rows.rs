//! Converts documents into rows and assigns each to a split.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::PrepareOptions;
use super::choice::Choice;
use crate::dataset::{DatasetMeta, SplitMeta, TRAIN, VALIDATION};
use crate::layout::{Layout, Packer, row};
use crate::shard::{ShardWriter, WriterState};
use crate::{DataError, TextTokenizer};

/// Consumes the tokens of a corpus piece by piece and writes the shards of both splits.
pub(super) struct RowMaker<'a> {
    tokenizer: &'a TextTokenizer,
    layout: Layout,
    length: usize,
    choice: Choice,
    /// Whether blocks instead of documents are assigned to the splits.
    splits_blocks: bool,
    train: Side,
    validation: Side,
    /// Documents (or blocks) assigned to a split so far.
    placed: u64,
    /// Whether the last piece did not end its document.
    in_document: bool,
    /// Whether that document is for validation.
    in_validation: bool,
}

struct Side {
    writer: ShardWriter,
    packer: Packer,
    meta: SplitMeta,
}

/// The state of a [`RowMaker`] that is not in its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowState {
    train: SideState,
    validation: SideState,
    placed: u64,
    in_document: bool,
    in_validation: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SideState {
    meta: SplitMeta,
    writer: WriterState,
    /// Tokens of the stream that do not fill a block yet.
    pending: Vec<u32>,
}

impl Side {
    fn write(&mut self, row: &[u32], tokens: usize) -> Result<(), DataError> {
        self.writer.push(row)?;
        self.meta.rows += 1;
        self.meta.tokens += tokens as u64;
        Ok(())
    }

    fn save(&mut self) -> Result<SideState, DataError> {
        Ok(SideState {
            meta: self.meta.clone(),
            writer: self.writer.save()?,
            pending: self.packer.pending().to_vec(),
        })
    }

    fn resume(&mut self, state: SideState) -> Result<(), String> {
        if state.meta.rows != state.writer.rows() || !state.meta.shards.is_empty() {
            return Err(format!(
                "{} rows in shards, expected {}",
                state.writer.rows(),
                state.meta.rows
            ));
        }
        self.packer.resume(&state.pending)?;
        self.writer.resume(state.writer)?;
        self.meta = state.meta;
        Ok(())
    }

    fn finish(mut self) -> Result<SplitMeta, DataError> {
        self.meta.dropped_tokens = self.packer.pending().len() as u64;
        self.meta.shards = self.writer.finish()?;
        Ok(self.meta)
    }
}

impl<'a> RowMaker<'a> {
    pub(super) fn new(
        folder: &Path,
        tokenizer: &'a TextTokenizer,
        dataset: &DatasetMeta,
        options: &PrepareOptions,
        choice: Choice,
        splits_blocks: bool,
    ) -> Self {
        let side = |name| Side {
            writer: ShardWriter::new(
                folder.to_path_buf(),
                name,
                dataset.shard_spec(),
                options.rows_per_shard,
            ),
            packer: Packer::new(options.length, tokenizer),
            meta: SplitMeta::default(),
        };
        Self {
            tokenizer,
            layout: options.layout,
            length: options.length,
            choice,
            splits_blocks,
            train: side(TRAIN),
            validation: side(VALIDATION),
            placed: 0,
            in_document: false,
            in_validation: false,
        }
    }

    /// Resumes from a saved state and truncates the files to match it. The error describes how
    /// state and files disagree; after an error, `self` must not be used.
    pub(super) fn resume(&mut self, state: RowState) -> Result<(), String> {
        self.train.resume(state.train)?;
        self.validation.resume(state.validation)?;
        self.placed = state.placed;
        self.in_document = state.in_document;
        self.in_validation = state.in_validation;
        Ok(())
    }

    /// Returns the state, after all rows are on disk.
    pub(super) fn save(&mut self) -> Result<RowState, DataError> {
        Ok(RowState {
            train: self.train.save()?,
            validation: self.validation.save()?,
            placed: self.placed,
            in_document: self.in_document,
            in_validation: self.in_validation,
        })
    }

    /// Returns the number of rows written so far.
    pub(super) fn rows(&self) -> u64 {
        self.train.meta.rows + self.validation.meta.rows
    }

    /// Adds the tokens of the next piece. `own` marks pieces of the separate validation corpus.
    pub(super) fn push(
        &mut self,
        tokens: &[u32],
        ends_document: bool,
        own: bool,
    ) -> Result<(), DataError> {
        let begins_document = !self.in_document;
        self.in_document = !ends_document;
        if begins_document && !self.splits_blocks {
            self.in_validation = own || self.choice.is_validation(self.placed);
            self.placed += 1;
        }
        let side = if self.in_validation {
            &mut self.validation
        } else {
            &mut self.train
        };
        if begins_document && ends_document && tokens.is_empty() {
            side.meta.dropped_empty += 1;
            return Ok(());
        }
        match self.layout {
            Layout::Rows if !(begins_document && ends_document) => {
                Err(DataError::WholeNeedsPacking)
            }
            Layout::Rows => {
                match row(tokens, self.length, self.tokenizer) {
                    Some(row) => {
                        side.write(&row, tokens.len() + 1)?;
                        side.meta.documents += 1;
                    }
                    None => side.meta.dropped_too_long += 1,
                }
                Ok(())
            }
            Layout::Packed => {
                side.meta.documents += u64::from(ends_document);
                if self.splits_blocks {
                    self.pack_blocks(tokens, ends_document)
                } else {
                    pack_document(side, tokens, ends_document)
                }
            }
        }
    }

    /// Completes both splits and returns them: train, validation.
    pub(super) fn finish(self) -> Result<(SplitMeta, SplitMeta), DataError> {
        Ok((self.train.finish()?, self.validation.finish()?))
    }

    /// Packs one stream for both splits and assigns its blocks to them.
    fn pack_blocks(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        // Moves the packer out of its split, because blocks go to either split.
        let mut packer = std::mem::replace(
            &mut self.train.packer,
            Packer::new(self.length, self.tokenizer),
        );
        let mut emit = |block: &[u32]| {
            let side = if self.choice.is_validation(self.placed) {
                &mut self.validation
            } else {
                &mut self.train
            };
            self.placed += 1;
            side.write(block, block.len())
        };
        packer.push(tokens, &mut emit)?;
        if ends_document {
            packer.end_document(&mut emit)?;
        }
        self.train.packer = packer;
        Ok(())
    }
}

fn pack_document(side: &mut Side, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
    let Side {
        writer,
        packer,
        meta,
    } = side;
    let mut emit = |block: &[u32]| {
        meta.rows += 1;
        meta.tokens += block.len() as u64;
        writer.push(block)
    };
    packer.push(tokens, &mut emit)?;
    if ends_document {
        packer.end_document(&mut emit)?;
    }
    Ok(())
}
