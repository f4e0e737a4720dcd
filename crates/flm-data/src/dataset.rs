//! Data folders: `dataset.json` and the rows that it describes.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::{Packer, row};
use crate::shard::{Shard, ShardMeta, ShardSpec};
use crate::{DataError, Layout, TextTokenizer};

/// The version of the data folder format.
pub const FORMAT_VERSION: u32 = 1;

/// The file that describes a data folder. A folder without it is not a data folder.
pub const META_FILE: &str = "dataset.json";
/// The tokenizer file of a data folder; model folders use the same name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const TRAIN: &str = "train";
pub(crate) const VALIDATION: &str = "validation";

/// The content of `dataset.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetMeta {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The description of the corpus.
    pub source: String,
    /// [`TextTokenizer::hash`] of the tokenizer in the folder.
    pub tokenizer_hash: String,
    /// The number of tokens in that tokenizer.
    pub vocabulary_size: usize,
    /// The number of tokens in a row.
    pub length: usize,
    /// The content of a row.
    pub layout: Layout,
    /// The name of the [`TextMap`](crate::TextMap) that was applied to the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_map: Option<String>,
    /// How the validation split was selected.
    #[serde(default, skip_serializing_if = "ValidationFrom::is_share")]
    pub validation_from: ValidationFrom,
    /// The requested validation share; 0 if the split was selected in another way.
    pub validation_share: f64,
    /// The training rows.
    pub train: SplitMeta,
    /// The validation rows; possibly none for a small corpus.
    pub validation: SplitMeta,
}

/// How the validation split of a data folder was selected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationFrom {
    /// A fraction of the corpus, spread evenly over it.
    #[default]
    Share,
    /// This many documents at the end of the corpus.
    Last(u64),
    /// A separate corpus, with its description.
    Corpus(String),
}

impl ValidationFrom {
    fn is_share(&self) -> bool {
        *self == Self::Share
    }
}

/// The content of one split, and counts of what was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitMeta {
    /// The number of rows in the shards.
    pub rows: u64,
    /// The number of tokens in these rows: begin and end tokens included, padding excluded.
    pub tokens: u64,
    /// The number of documents in this split. If blocks of continuous texts are split, all texts
    /// count for train.
    pub documents: u64,
    /// Documents dropped because they do not fit in a row.
    pub dropped_too_long: u64,
    /// Documents dropped because they have no tokens.
    pub dropped_empty: u64,
    /// Tokens dropped at the end of the packed stream because they do not fill a block.
    pub dropped_tokens: u64,
    /// The shard files, in row order.
    pub shards: Vec<ShardMeta>,
}

impl DatasetMeta {
    /// Reads and checks the `dataset.json` of a data folder.
    ///
    /// # Errors
    /// Returns an error if the file is missing, has another version, or contradicts itself.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let path = folder.join(META_FILE);
        let json = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound || folder.is_file() => {
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
        // The version is checked first, because other versions may have other fields.
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

    /// Returns the identity of the data in `folder`, which this metadata describes. It is a hash of
    /// the metadata without the corpus description, and of every shard header. A header contains a
    /// checksum of its rows.
    ///
    /// # Errors
    /// Returns [`DataError::Io`] if a shard cannot be read.
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

/// An open data folder. Its rows stay on disk until they are read.
#[derive(Debug)]
pub struct Dataset {
    meta: DatasetMeta,
    tokenizer: TextTokenizer,
    train: Split,
    validation: Split,
}

impl Dataset {
    /// Opens a data folder. Checks that all its parts exist and match each other, and that every
    /// shard has the expected size. [`verify`](Self::verify) checks the rows themselves.
    ///
    /// # Errors
    /// Returns an error that names the faulty file, the expected value and the value found.
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

    /// Returns the metadata, the tokenizer, and the splits: train, then validation.
    pub fn into_parts(self) -> (DatasetMeta, TextTokenizer, [Split; 2]) {
        (self.meta, self.tokenizer, [self.train, self.validation])
    }

    /// Returns the content of `dataset.json`.
    pub fn meta(&self) -> &DatasetMeta {
        &self.meta
    }

    /// Returns the tokenizer that encoded the rows.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Returns the training rows; at least one.
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// Returns the validation rows; possibly none.
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// Reads every shard and checks its checksum and tokens.
    ///
    /// # Errors
    /// Returns [`DataError::Checksum`] or [`DataError::TokenOutOfRange`] for the first faulty
    /// shard.
    pub fn verify(&self) -> Result<(), DataError> {
        self.train.verify()?;
        self.validation.verify()
    }
}

/// Returns the first half of a hash, in hexadecimal.
fn shortened(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The rows of one split, numbered from 0, in a data folder or in memory.
#[derive(Debug)]
pub struct Split {
    name: &'static str,
    length: usize,
    meta: SplitMeta,
    source: Source,
}

/// The storage of the rows.
#[derive(Debug)]
enum Source {
    Shards {
        shards: Vec<Shard>,
        /// For each shard, the number of rows up to its end.
        ends: Vec<usize>,
    },
    /// All rows, concatenated.
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
            // The shard is mapped, so its number of rows fits in a usize.
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

    /// Creates a split from rows in memory, each with `length` tokens. Its [`SplitMeta`] counts all
    /// tokens, padding included.
    ///
    /// # Errors
    /// Returns [`DataError::LengthTooSmall`], or [`DataError::Row`] for the first row that has
    /// another length or a token beyond the vocabulary.
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

    /// Creates a split in memory from texts, in the layout of a model. In a packed layout, tokens
    /// after the last complete block are dropped.
    ///
    /// # Errors
    /// Returns [`DataError::LengthTooSmall`], an error of the tokenizer, or [`DataError::Row`] for
    /// a text that does not fit in its row.
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

    /// Returns the identity of rows in memory: a hash of their tokens. For a data folder, returns
    /// `None`; see [`DatasetMeta::identity`].
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

    /// Returns "train" or "validation", or "in-memory" for rows in memory.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        match &self.source {
            Source::Shards { ends, .. } => ends.last().copied().unwrap_or(0),
            Source::Memory(tokens) => tokens.len() / self.length,
        }
    }

    /// Returns the number of tokens in a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the counts of rows and tokens and, for a data folder, the shards.
    pub fn meta(&self) -> &SplitMeta {
        &self.meta
    }

    /// Returns one row: `length` tokens.
    ///
    /// # Errors
    /// Returns [`DataError::NoSuchRow`] past the end, and [`DataError::TokenOutOfRange`] for a
    /// damaged row.
    pub fn row(&self, row: usize) -> Result<Vec<u32>, DataError> {
        self.batch(&[row])
    }

    /// Returns several rows, concatenated: `[rows.len() · length]` tokens.
    ///
    /// # Errors
    /// The same as [`row`](Self::row).
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
