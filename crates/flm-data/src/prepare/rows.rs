//! Making rows of documents, and choosing their split.

use std::path::Path;

use super::PrepareOptions;
use crate::dataset::{DatasetMeta, SplitMeta, TRAIN, VALIDATION};
use crate::layout::{Layout, Packer, row};
use crate::mix::mix;
use crate::shard::ShardWriter;
use crate::{DataError, TextTokenizer};

/// Takes the tokens of a corpus piece by piece and writes the shards of both splits.
pub(super) struct RowMaker<'a> {
    tokenizer: &'a TextTokenizer,
    layout: Layout,
    length: usize,
    choice: Choice,
    /// Whether blocks are split instead of documents.
    splits_blocks: bool,
    train: Side,
    validation: Side,
    /// Documents (or blocks) that were given to a split.
    placed: u64,
    /// Whether the last piece left its document open.
    in_document: bool,
    /// Whether that document is one for validation.
    in_validation: bool,
}

struct Side {
    writer: ShardWriter,
    packer: Packer,
    meta: SplitMeta,
}

impl Side {
    fn write(&mut self, row: &[u32], tokens: usize) -> Result<(), DataError> {
        self.writer.push(row)?;
        self.meta.rows += 1;
        self.meta.tokens += tokens as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<SplitMeta, DataError> {
        self.meta.dropped_tokens = self.packer.remainder();
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
            choice: Choice::new(options.validation_share),
            splits_blocks,
            train: side(TRAIN),
            validation: side(VALIDATION),
            placed: 0,
            in_document: false,
            in_validation: false,
        }
    }

    /// Rows written so far.
    pub(super) fn rows(&self) -> u64 {
        self.train.meta.rows + self.validation.meta.rows
    }

    /// Takes the tokens of the next piece.
    pub(super) fn push(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        let begins_document = !self.in_document;
        self.in_document = !ends_document;
        if begins_document && !self.splits_blocks {
            self.in_validation = self.choice.is_validation(self.placed);
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

    /// Completes both splits: train, validation.
    pub(super) fn finish(self) -> Result<(SplitMeta, SplitMeta), DataError> {
        Ok((self.train.finish()?, self.validation.finish()?))
    }

    /// One stream for both splits, whose blocks are dealt out.
    fn pack_blocks(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        // Out of its side while blocks go to either side.
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

/// Chooses one of every `1 / share` places in a row.
#[derive(Debug, Clone, Copy)]
struct Choice {
    /// The share in millionths: whole numbers give the same choice on every machine.
    millionths: u128,
}

const MILLION: u128 = 1_000_000;

impl Choice {
    fn new(share: f64) -> Self {
        Self {
            millionths: (share * MILLION as f64).round() as u128,
        }
    }

    fn is_validation(self, place: u64) -> bool {
        if self.millionths == 0 {
            return false;
        }
        // Group g is the places with floor(place · share) = g; a hash of g chooses one of them.
        let group = u128::from(place) * self.millionths / MILLION;
        let first = (group * MILLION).div_ceil(self.millionths);
        let next = ((group + 1) * MILLION).div_ceil(self.millionths);
        let chosen = first + u128::from(mix(group as u64)) % (next - first);
        u128::from(place) == chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_one_place_for_validation() {
        let choice = Choice::new(0.02);
        for group in 0..1000 {
            let places = group * 50..(group + 1) * 50;
            let chosen = places.filter(|&place| choice.is_validation(place)).count();
            assert_eq!(chosen, 1, "group {group}");
        }
    }

    #[test]
    fn the_share_is_met_whatever_it_is() {
        for share in [0.0, 1e-6, 0.003, 0.1, 0.3, 0.5, 0.77, 0.999] {
            let choice = Choice::new(share);
            let chosen = (0..100_000)
                .filter(|&place| choice.is_validation(place))
                .count();
            // Only the last group may be incomplete.
            let error = chosen as f64 - share * 100_000.0;
            assert!(error.abs() <= 1.0, "share {share}: {chosen}");
        }
    }

    #[test]
    fn the_choice_has_no_period() {
        let choice = Choice::new(0.02);
        let mut places = [0_u32; 50];
        for place in 0..50 * 500 {
            if choice.is_validation(place) {
                places[place as usize % 50] += 1;
            }
        }
        // 500 draws among 50 places: chi-square with 49 degrees of freedom is above 98 with a
        // chance of 4e-5. The hash has no seed, so this passes always or never.
        let chi: f64 = places
            .iter()
            .map(|&n| (f64::from(n) - 10.0).powi(2) / 10.0)
            .sum();
        assert!(chi < 98.0, "chi-square {chi}");
    }
}
