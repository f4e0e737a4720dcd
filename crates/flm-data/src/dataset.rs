//! A data folder: what `dataset.json` says, and the rows behind it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::{Packer, row};
use crate::shard::{Shard, ShardMeta, ShardSpec};
use crate::{DataError, Layout, TextTokenizer};

/// The version of the format of data folders.
pub const FORMAT_VERSION: u32 = 1;

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
    /// [`FORMAT_VERSION`].
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
            && found != u64::from(FORMAT_VERSION)
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

    /// Identity of the data in a folder of this description: a hash of the description, without the corpus's name, and of every
    /// shard's header, which holds a checksum of its rows.
    ///
    /// # Errors
    /// [`DataError::Io`] if a shard cannot be read.
    pub fn identity(&self, folder: &Path) -> Result<String, DataError> {
        const HEADER: u64 = 128;
        let mut hash = Sha256::new();
        let nameless = Self {
            source: String::new(),
            ..self.clone()
        };
        hash.update(serde_json::to_vec(&nameless).expect("a description has only names for keys"));
        for shard in self.train.shards.iter().chain(&self.validation.shards) {
            let path = folder.join(&shard.file);
            let io = |source| DataError::Io {
                action: "read",
                path: path.clone(),
                source,
            };
            let mut header = Vec::new();
            let file = fs::File::open(&path).map_err(io)?;
            file.take(HEADER).read_to_end(&mut header).map_err(io)?;
            hash.update(header);
        }
        Ok(shortened(hash))
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

    /// The description, the tokenizer, and the rows for training and for validation.
    pub fn into_parts(self) -> (DatasetMeta, TextTokenizer, [Split; 2]) {
        (self.meta, self.tokenizer, [self.train, self.validation])
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
        self.train.verify()?;
        self.validation.verify()
    }
}

/// The first half of a hash, in hexadecimal.
fn shortened(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The rows of one split, numbered from 0: those of a data folder, or rows in memory.
#[derive(Debug)]
pub struct Split {
    name: &'static str,
    length: usize,
    meta: SplitMeta,
    source: Source,
}

/// Where rows are.
#[derive(Debug)]
enum Source {
    Shards {
        shards: Vec<Shard>,
        /// For each shard the number of rows in it and in all before it.
        ends: Vec<usize>,
    },
    /// One after the other.
    Memory(Vec<u32>),
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
            source: Source::Shards { shards, ends },
        })
    }

    /// Rows of `length` tokens in memory. Its description counts all tokens of a row, padding too.
    ///
    /// # Errors
    /// [`DataError::LengthTooSmall`], or [`DataError::Row`] for the first row of another length, or with a token beyond the vocabulary.
    pub fn from_rows(
        rows: &[Vec<u32>],
        length: usize,
        vocabulary: usize,
    ) -> Result<Self, DataError> {
        Layout::Rows.check_length(length)?;
        for (number, row) in rows.iter().enumerate() {
            let beyond = row.iter().find(|&&id| id as usize >= vocabulary);
            let reason = match beyond {
                _ if row.len() != length => format!("{} tokens, expected {length}", row.len()),
                Some(id) => format!("the token {id} is beyond a vocabulary of {vocabulary}"),
                None => continue,
            };
            return Err(DataError::Row {
                what: "row",
                number,
                reason,
            });
        }
        let tokens = rows.concat();
        Ok(Self {
            name: "in-memory",
            length,
            meta: SplitMeta {
                rows: rows.len() as u64,
                tokens: tokens.len() as u64,
                ..SplitMeta::default()
            },
            source: Source::Memory(tokens),
        })
    }

    /// Texts as rows in memory, in the layout of a model. What is left over after the last whole block of a packed layout is dropped.
    ///
    /// # Errors
    /// [`DataError::LengthTooSmall`], an error of the tokenizer, or [`DataError::Row`] for a text that is too long for a row of its own.
    pub fn from_texts(
        texts: &[impl AsRef<str>],
        tokenizer: &TextTokenizer,
        layout: Layout,
        length: usize,
    ) -> Result<Self, DataError> {
        layout.check_length(length)?;
        let mut rows = Vec::new();
        let mut packer = Packer::new(length, tokenizer);
        for (number, text) in texts.iter().enumerate() {
            let tokens = tokenizer.encode(text.as_ref())?;
            if layout == Layout::Packed {
                let mut emit = |block: &[u32]| {
                    rows.push(block.to_vec());
                    Ok(())
                };
                packer.push(&tokens, &mut emit)?;
                packer.end_document(&mut emit)?;
                continue;
            }
            let row = row(&tokens, length, tokenizer).ok_or_else(|| DataError::Row {
                what: "text",
                number,
                reason: format!(
                    "{} tokens, but a row of {length} has room for {}",
                    tokens.len(),
                    length - 1
                ),
            })?;
            rows.push(row);
        }
        Self::from_rows(&rows, length, tokenizer.vocab_size())
    }

    /// Identity of rows in memory: a hash of their tokens. Rows of a folder have [`DatasetMeta::identity`].
    pub fn identity(&self) -> Option<String> {
        let Source::Memory(tokens) = &self.source else {
            return None;
        };
        let mut hash = Sha256::new();
        hash.update((self.length as u64).to_le_bytes());
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        Some(shortened(hash))
    }

    fn verify(&self) -> Result<(), DataError> {
        match &self.source {
            Source::Shards { shards, .. } => shards.iter().try_for_each(Shard::verify),
            Source::Memory(_) => Ok(()),
        }
    }

    /// "train" or "validation"; "in-memory" of rows in memory.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match &self.source {
            Source::Shards { ends, .. } => ends.last().copied().unwrap_or(0),
            Source::Memory(tokens) => tokens.len() / self.length,
        }
    }

    /// Tokens in a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many rows and tokens there are and, of a data folder, in which shards.
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
            let missing = || DataError::NoSuchRow {
                row,
                split: self.name,
                rows: self.rows(),
            };
            match &self.source {
                Source::Shards { shards, ends } => {
                    let shard = ends.partition_point(|&end| end <= row);
                    let found = shards.get(shard).ok_or_else(missing)?;
                    let first = shard.checked_sub(1).map_or(0, |before| ends[before]);
                    found.read(row - first, &mut tokens)?;
                }
                Source::Memory(all) => {
                    let row = all.chunks_exact(self.length).nth(row);
                    tokens.extend_from_slice(row.ok_or_else(missing)?);
                }
            }
        }
        Ok(tokens)
    }
}
