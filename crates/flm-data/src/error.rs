//! The error type of the crate.

use std::path::{Path, PathBuf};

/// An error in the pipeline from a corpus to a batch.
///
/// Each message is one lower-case sentence that names the location, the expected value and the
/// value found. An external cause (the operating system, a JSON parser) is the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system cannot read or write a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action, as a verb: "read", "create", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },

    /// A text file holds bytes that are not UTF-8.
    #[error("{} is not UTF-8: line {line}, byte {offset} of the file", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte, from 1.
        line: u64,
        /// Offset of the first bad byte in the file, from 0.
        offset: u64,
    },

    /// A row of a text column contains bytes that are not UTF-8.
    #[error("row {row} of the column `{column}` of {} is not UTF-8", path.display())]
    RowNotUtf8 {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The row in the file, from 1.
        row: u64,
    },

    /// A document exceeds the size limit in memory.
    #[error(
        "{unit} {number} of {} is longer than {limit} bytes, the size limit for a single document",
        path.display()
    )]
    DocumentTooLong {
        /// The file.
        path: PathBuf,
        /// "line" or "row".
        unit: &'static str,
        /// The line or row, from 1.
        number: u64,
        /// The limit in bytes.
        limit: usize,
    },

    /// The first bytes of a file do not match the kind that its name indicates.
    #[error("{} is not a {kind} file: it begins with `{found}`, expected `{expected}`", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// "gzip", "zstd" or "parquet".
        kind: &'static str,
        /// The expected first bytes, escaped.
        expected: String,
        /// The first bytes of the file, escaped.
        found: String,
    },

    /// A file has an unsupported compression format.
    #[error(
        "{} is compressed with {kind}, but only gzip (.gz) and zstd (.zst) are supported: decompress it first",
        path.display()
    )]
    OtherCompression {
        /// The file.
        path: PathBuf,
        /// "xz", "bzip2", …
        kind: &'static str,
    },

    /// A zstd file has a window beyond the memory limit.
    #[error(
        "{} was compressed with a window of more than 128 MiB, the supported limit: decompress it first with `zstd -d --long=31`",
        path.display()
    )]
    LargeWindow {
        /// The file.
        path: PathBuf,
    },

    /// A compressed file is truncated or damaged.
    #[error("{} is truncated or damaged: it cannot be decompressed as {kind}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// "gzip" or "zstd".
        kind: &'static str,
        /// The decompressor's error.
        source: std::io::Error,
    },

    /// A parquet file is damaged or uses unsupported features.
    #[error("{} cannot be read as parquet: {reason}", path.display())]
    BadParquet {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },

    /// A parquet file lacks the text column.
    #[error("{} has no column `{column}`: its columns are {columns}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The requested column.
        column: String,
        /// The columns of the file.
        columns: String,
    },

    /// A column of a parquet file does not contain text.
    #[error("the column `{column}` of {} holds {found}, expected text", path.display())]
    ColumnNotText {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The type of the column.
        found: String,
    },

    /// A line of a JSON lines file is not JSON.
    #[error("line {line} of {} is not JSON", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The parser's error.
        source: serde_json::Error,
    },

    /// A line of a JSON lines file lacks the text field, or the field is not a string.
    #[error("line {line} of {} has no string in the field `{field}`", path.display())]
    NoTextField {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The requested field.
        field: String,
    },

    /// A folder given as a corpus contains no files.
    #[error("the folder {} holds no text file", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },

    /// The corpus yields no document with text.
    #[error("the corpus is empty: {corpus}")]
    EmptyCorpus {
        /// The description of the corpus.
        corpus: String,
    },

    /// The corpus yields documents, but not a single training row.
    #[error(
        "the corpus is too small for one training row of {length} tokens ({layout}): {corpus} \
         gave {tokens} tokens, and {dropped} documents were too long"
    )]
    TooSmall {
        /// The description of the corpus.
        corpus: String,
        /// Tokens in the documents that were not dropped.
        tokens: u64,
        /// Documents dropped because they do not fit in a row.
        dropped: u64,
        /// The requested row length in tokens.
        length: usize,
        /// "rows" or "packed".
        layout: &'static str,
    },

    /// The row length leaves no room for text.
    #[error(
        "length {length} is too small: the layout `{layout}` needs at least {minimum} tokens a row"
    )]
    LengthTooSmall {
        /// The requested length.
        length: usize,
        /// "rows" or "packed".
        layout: &'static str,
        /// The smallest length of this layout.
        minimum: usize,
    },

    /// The row length exceeds the format's limit.
    #[error("length {length} is too large: a row holds fewer than 2^32 tokens")]
    LengthTooLarge {
        /// The requested length.
        length: usize,
    },

    /// A continuous text cannot have one row per document.
    #[error("a text read as a whole has no separate sequences: pack it, or read it by lines")]
    WholeNeedsPacking,

    /// The validation share is out of range or has too many decimals.
    #[error(
        "the validation share must be at least 0 and below 1, with at most six decimals, found {found}"
    )]
    BadShare {
        /// The requested value.
        found: f64,
    },

    /// The requested validation documents would leave none for training.
    #[error(
        "the last {last} documents cannot be set apart for validation: the corpus has {documents}"
    )]
    LastTooMany {
        /// The requested number.
        last: u64,
        /// Documents in the corpus.
        documents: u64,
    },

    /// Another process or thread is preparing the same output.
    #[error("{} is being prepared by another process: wait for it, or choose another folder", path.display())]
    BeingPrepared {
        /// The output folder.
        path: PathBuf,
    },

    /// A corpus yields different documents when it is read again.
    #[error(
        "the corpus has changed since its preparation started; run it again to start over: {corpus}"
    )]
    CorpusChanged {
        /// The description of the corpus.
        corpus: String,
    },

    /// The number of rows per shard is 0.
    #[error("a shard must hold at least one row, found rows_per_shard 0")]
    BadShardSize,

    /// The output exists and must not be replaced.
    #[error("{} exists already: choose another folder, or force its replacement", path.display())]
    OutputExists {
        /// The output folder.
        path: PathBuf,
    },

    /// A replacement was requested, but the existing output is not a data folder.
    #[error("{} is not a data folder (it holds no dataset.json) and is not replaced", path.display())]
    OutputNotOurs {
        /// The output folder.
        path: PathBuf,
    },

    /// The progress callback asked to stop.
    #[error("the preparation was stopped before it was complete")]
    Cancelled,

    /// A tokenizer file cannot be parsed.
    #[error("{} is not a tokenizer: {reason}", path.display())]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        reason: String,
    },

    /// The tokenizer has no token that ends a text.
    #[error("the tokenizer {name} has no end token: none of its added tokens is one of {known}")]
    NoEndToken {
        /// The file, or the description of a built tokenizer.
        name: String,
        /// The known names of end tokens.
        known: String,
    },

    /// A word or character is not in the closed vocabulary.
    #[error("`{word}` is not in the vocabulary of {vocabulary} tokens")]
    UnknownWord {
        /// The word or character, escaped as in Rust source.
        word: String,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// A word of the corpus or of a word list cannot be in a vocabulary.
    #[error("`{word}` cannot be a word of the vocabulary: {reason}")]
    BadWord {
        /// The word, escaped as in Rust source.
        word: String,
        /// The reason.
        reason: &'static str,
    },

    /// A token number is beyond the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The number.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// The requested byte-level vocabulary is too small to contain all bytes.
    #[error("a byte-level vocabulary needs at least {minimum} tokens, found {found}")]
    BpeTooSmall {
        /// The requested size.
        found: usize,
        /// 256 bytes plus the special tokens.
        minimum: usize,
    },

    /// The `tokenizers` crate failed for another reason.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// The crate's error.
        reason: String,
    },

    /// A folder does not exist or is not a data folder.
    #[error("{}", no_dataset(path))]
    NotADataset {
        /// The folder.
        path: PathBuf,
    },

    /// A `dataset.json` cannot be parsed.
    #[error("{} is damaged, prepare the data again", path.display())]
    BadMeta {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },

    /// A file has another version of this format.
    #[error("{} has format version {found}, expected version {expected}", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// The version that this library reads.
        expected: u32,
        /// The version in the file.
        found: u64,
    },

    /// The tokenizer in the folder differs from the one that encoded the shards.
    #[error("{} has hash {found}, expected {expected} from dataset.json", path.display())]
    TokenizerMismatch {
        /// The tokenizer file.
        path: PathBuf,
        /// The hash in `dataset.json`.
        expected: String,
        /// The hash of the file.
        found: String,
    },

    /// A number in a file contradicts `dataset.json`.
    #[error("{} has {field} {found}, expected {expected} from dataset.json", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The property that differs: "vocabulary size", "row length", "row count", …
        field: &'static str,
        /// The value in `dataset.json`.
        expected: String,
        /// The value in the file.
        found: String,
    },

    /// `dataset.json` contradicts itself.
    #[error("{} says {field} {found}, expected {expected}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// The faulty field.
        field: &'static str,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
    },

    /// A shard listed in `dataset.json` does not exist.
    #[error("shard {} is missing, expected from dataset.json", path.display())]
    MissingShard {
        /// The shard.
        path: PathBuf,
    },

    /// A shard is shorter or longer than its header says.
    #[error("shard {} has {found} bytes, expected {expected}", path.display())]
    WrongSize {
        /// The shard.
        path: PathBuf,
        /// The size of header and rows in bytes.
        expected: u64,
        /// The size of the file in bytes.
        found: u64,
    },

    /// The first bytes of a file are not those of a shard.
    #[error("{} is not a token shard: it begins with `{found}`, expected `{expected}`", path.display())]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// The eight magic bytes of the format.
        expected: String,
        /// The first bytes of the file, escaped.
        found: String,
    },

    /// The rows of a shard do not match its checksum.
    #[error("shard {} is damaged: checksum {found:08x}, expected {expected:08x}", path.display())]
    Checksum {
        /// The shard.
        path: PathBuf,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the rows.
        found: u32,
    },

    /// A shard contains a token beyond the vocabulary.
    #[error("shard {} has token {found} in row {row}, expected below {vocabulary}", path.display())]
    TokenOutOfRange {
        /// The shard.
        path: PathBuf,
        /// The row in this shard, from 0.
        row: u64,
        /// The token.
        found: u32,
        /// Size of the vocabulary.
        vocabulary: u32,
    },

    /// A row or text in memory does not fit the row length or the vocabulary.
    #[error("{what} {number}: {reason}")]
    Row {
        /// "row" or "text".
        what: &'static str,
        /// Its number, from 0.
        number: usize,
        /// The reason.
        reason: String,
    },

    /// A row number is beyond the end of a split.
    #[error("row {row} does not exist: the {split} split has {rows} rows")]
    NoSuchRow {
        /// The requested row.
        row: usize,
        /// "train" or "validation".
        split: &'static str,
        /// The number of rows in the split.
        rows: usize,
    },

    /// A batch order was requested for a split without rows.
    #[error("a batch order needs at least one row")]
    NoRows,
}

/// Says why a path is not a data folder.
fn no_dataset(path: &Path) -> String {
    let shown = path.display();
    if path.is_file() {
        format!(
            "{shown} is a file, expected a data folder: prepare one with `flm data prepare --input {shown}`"
        )
    } else if path.exists() {
        format!("{shown} is not a data folder: it holds no dataset.json")
    } else {
        format!("there is no data folder {shown}")
    }
}

impl DataError {
    /// For `map_err`: returns a [`DataError::Io`] for an action and a path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Converts an error of the `tokenizers` crate, which is boxed and untyped.
pub(crate) fn tokenizer_error(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer {
        reason: error.to_string(),
    }
}

impl From<flm_files::FileError> for DataError {
    fn from(error: flm_files::FileError) -> Self {
        Self::io(error.action, &error.path)(error.source)
    }
}

impl From<flm_files::StagingError> for DataError {
    fn from(error: flm_files::StagingError) -> Self {
        match error {
            flm_files::StagingError::Exists { path } => Self::OutputExists { path },
            flm_files::StagingError::NotOurs { path } => Self::OutputNotOurs { path },
            flm_files::StagingError::Locked { path } => Self::BeingPrepared { path },
            flm_files::StagingError::File(error) => error.into(),
        }
    }
}
