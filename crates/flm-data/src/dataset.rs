//! A data folder: what `dataset.json` says, and the rows behind it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::shard::{Shard, ShardSpec};
use crate::{DataError, Layout, TextTokenizer};

/// The version of the format of data folders that this library writes. Version 1, which knew one
/// way to choose the validation split and no text map, is read as well.
pub const FORMAT_VERSION: u32 = 2;

/// In a data folder: what it holds. A folder without it is none.
pub const META_FILE: &str = "dataset.json";
/// In a data folder: the tokenizer. Model folders have it by the same name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const TRAIN: &str = "train";
pub(crate) const VALIDATION: &str = "validation";

/// The content of `dataset.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetMeta {
    /// [`FORMAT_VERSION`], or the older one that was read.
    pub format_version: u32,
    /// The corpus, as it described itself.
    pub source: String,
    /// [`TextTokenizer::hash`] of the tokenizer in the folder.
    pub tokenizer_hash: String,
    /// Number of tokens of that tokenizer.
    pub vocabulary_size: usize,
    /// Tokens in a row.
    pub length: usize,
    /// What a row holds.
    pub layout: Layout,
    /// Name of the [`TextMap`](crate::TextMap) that the text went through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_map: Option<String>,
    /// How the validation split was chosen.
    #[serde(default, skip_serializing_if = "ValidationFrom::is_share")]
    pub validation_from: ValidationFrom,
    /// The share that was set apart for validation, as asked for; 0 where the split was chosen in
    /// another way.
    pub validation_share: f64,
    /// The rows to train on.
    pub train: SplitMeta,
    /// The rows that were set apart. A small corpus may leave none.
    pub validation: SplitMeta,
}

/// How the validation split of a data folder was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationFrom {
    /// A share of the corpus, spread over all of it.
    #[default]
    Share,
    /// The last documents of the corpus, this many.
    Last(u64),
    /// A corpus of its own, as it described itself.
    Corpus(String),
}

impl ValidationFrom {
    fn is_share(&self) -> bool {
        *self == Self::Share
    }
}

/// What one split holds and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitMeta {
    /// Rows in the shards.
    pub rows: u64,
    /// Tokens in these rows: with begin and end tokens, without padding.
    pub tokens: u64,
    /// Documents that went into this split. Where blocks of continuous texts are split, all texts
    /// are counted under train.
    pub documents: u64,
    /// Documents dropped because they do not fit in a row.
    pub dropped_too_long: u64,
    /// Documents dropped because they have no token.
    pub dropped_empty: u64,
    /// Tokens dropped at the end of the packed stream, too few for a block.
    pub dropped_tokens: u64,
    /// The files, in the order of their rows.
    pub shards: Vec<ShardMeta>,
}

/// One shard of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMeta {
    /// File name in the data folder.
    pub file: String,
    /// Rows in it.
    pub rows: u64,
}

impl DatasetMeta {
    /// Reads and checks the `dataset.json` of a data folder.
    ///
    /// # Errors
    /// When the folder holds none, or one that is of another version or contradicts itself.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let path = folder.join(META_FILE);
        let json = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DataError::NotADataset {
                    path: folder.to_path_buf(),
                });
            }
            json => json.map_err(DataError::io("read", &path))?,
        };
        let bad = |source| DataError::BadMeta {
            path: path.clone(),
            source,
        };
        // The version comes first: another one may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&json).map_err(bad)?;
        if let Some(found) = value.get("format_version").and_then(|found| found.as_u64())
            && !(1..=u64::from(FORMAT_VERSION)).contains(&found)
        {
            return Err(DataError::WrongVersion {
                path,
                expected: FORMAT_VERSION,
                found,
            });
        }
        let meta: Self = serde_json::from_value(value).map_err(bad)?;
        meta.check(&path)?;
        Ok(meta)
    }

    fn check(&self, path: &Path) -> Result<(), DataError> {
        self.layout.check_length(self.length)?;
        for (field, number) in [
            ("length", self.length),
            ("vocabulary_size", self.vocabulary_size),
        ] {
            if u32::try_from(number).is_err() {
                return Err(DataError::BadField {
                    path: path.to_path_buf(),
                    field,
                    expected: "a number below 2^32".to_owned(),
                    found: number.to_string(),
                });
            }
        }
        for (field, split) in [
            ("train.rows", &self.train),
            ("validation.rows", &self.validation),
        ] {
            let rows = split
                .shards
                .iter()
                .map(|shard| u128::from(shard.rows))
                .sum::<u128>();
            if rows != u128::from(split.rows) {
                return Err(DataError::BadField {
                    path: path.to_path_buf(),
                    field,
                    expected: format!("{rows}, the sum over its shards"),
                    found: split.rows.to_string(),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn shard_spec(&self) -> ShardSpec {
        ShardSpec {
            vocabulary: self.vocabulary_size as u32,
            length: self.length as u32,
            tokenizer_hash: self.tokenizer_hash.clone(),
        }
    }
}

/// A data folder, open for reading. Its rows stay on disk until they are asked for.
#[derive(Debug)]
pub struct Dataset {
    meta: DatasetMeta,
    tokenizer: TextTokenizer,
    train: Split,
    validation: Split,
}

impl Dataset {
    /// Opens a data folder: checks that all its parts are there and belong together, and that every
    /// shard has the size it should have. The rows themselves are checked by
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// One that names the file at fault, what was expected and what was found.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let meta = DatasetMeta::read(folder)?;
        let path = folder.join(TOKENIZER_FILE);
        let tokenizer = TextTokenizer::load(&path)?;
        if tokenizer.vocab_size() != meta.vocabulary_size {
            return Err(DataError::Mismatch {
                path,
                field: "vocabulary size",
                expected: meta.vocabulary_size.to_string(),
                found: tokenizer.vocab_size().to_string(),
            });
        }
        if tokenizer.hash() != meta.tokenizer_hash {
            return Err(DataError::TokenizerMismatch {
                path,
                expected: meta.tokenizer_hash.clone(),
                found: tokenizer.hash().to_owned(),
            });
        }
        Ok(Self {
            train: Split::open(folder, TRAIN, &meta, &meta.train)?,
            validation: Split::open(folder, VALIDATION, &meta, &meta.validation)?,
            meta,
            tokenizer,
        })
    }

    /// What `dataset.json` says.
    pub fn meta(&self) -> &DatasetMeta {
        &self.meta
    }

    /// The tokenizer the rows were made with.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The rows to train on; at least one.
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// The rows set apart; possibly none.
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// Reads every shard: its checksum must be right and its tokens in the vocabulary.
    ///
    /// # Errors
    /// [`DataError::Checksum`] or [`DataError::TokenOutOfRange`] for the first that is not.
    pub fn verify(&self) -> Result<(), DataError> {
        let shards = self.train.shards.iter().chain(&self.validation.shards);
        shards.into_iter().try_for_each(Shard::verify)
    }
}

/// The rows of one split, numbered from 0 over all its shards.
#[derive(Debug)]
pub struct Split {
    name: &'static str,
    length: usize,
    meta: SplitMeta,
    shards: Vec<Shard>,
    /// For each shard the number of rows in it and in all before it.
    ends: Vec<usize>,
}

impl Split {
    fn open(
        folder: &Path,
        name: &'static str,
        dataset: &DatasetMeta,
        meta: &SplitMeta,
    ) -> Result<Self, DataError> {
        let spec = dataset.shard_spec();
        let mut shards = Vec::new();
        let mut ends = Vec::new();
        let mut rows = 0;
        for shard in &meta.shards {
            let path: PathBuf = folder.join(&shard.file);
            let shard = Shard::open(path, &spec, shard.rows)?;
            // The shard is mapped, so its rows fit in memory and in a usize.
            rows += shard.rows() as usize;
            shards.push(shard);
            ends.push(rows);
        }
        Ok(Self {
            name,
            length: dataset.length,
            meta: meta.clone(),
            shards,
            ends,
        })
    }

    /// "train" or "validation".
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Tokens in a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// What `dataset.json` says of this split.
    pub fn meta(&self) -> &SplitMeta {
        &self.meta
    }

    /// One row: `length` tokens.
    ///
    /// # Errors
    /// [`DataError::NoSuchRow`] beyond the end, [`DataError::TokenOutOfRange`] for a damaged row.
    pub fn row(&self, row: usize) -> Result<Vec<u32>, DataError> {
        self.batch(&[row])
    }

    /// Some rows, one after the other: `[rows.len() · length]` tokens, row by row.
    ///
    /// # Errors
    /// As [`row`](Self::row).
    pub fn batch(&self, rows: &[usize]) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::with_capacity(rows.len() * self.length);
        for &row in rows {
            let shard = self.ends.partition_point(|&end| end <= row);
            let Some(found) = self.shards.get(shard) else {
                return Err(DataError::NoSuchRow {
                    row,
                    split: self.name,
                    rows: self.rows(),
                });
            };
            let first = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
            found.read(row - first, &mut tokens)?;
        }
        Ok(tokens)
    }
}
