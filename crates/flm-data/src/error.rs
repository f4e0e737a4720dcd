//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// Everything that can go wrong between a corpus and a batch.
///
/// Each message is one lower-case sentence that names the place, what was expected and what was
/// found; a cause from outside (the operating system, a JSON reader) is the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to read or write.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "create", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
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

    /// A row of a column of text holds bytes that are not UTF-8.
    #[error("row {row} of the column `{column}` of {} is not UTF-8", path.display())]
    RowNotUtf8 {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The row in the file, from 1.
        row: u64,
    },

    /// One document is more than is held in memory.
    #[error(
        "{unit} {number} of {} is longer than {limit} bytes, the most that is read as one document",
        path.display()
    )]
    DocumentTooLong {
        /// The file.
        path: PathBuf,
        /// "line" or "row".
        unit: &'static str,
        /// The line or row, from 1.
        number: u64,
        /// The most bytes.
        limit: usize,
    },

    /// A file is not what its name says.
    #[error("{} is not a {kind} file: it begins with `{found}`, expected `{expected}`", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// "gzip", "zstd" or "parquet".
        kind: &'static str,
        /// How such a file begins.
        expected: String,
        /// The first bytes of the file, escaped.
        found: String,
    },

    /// A file is compressed in a way that is not read.
    #[error(
        "{} is compressed with {kind}, but gzip (.gz) and zstd (.zst) are what is read: decompress it first",
        path.display()
    )]
    OtherCompression {
        /// The file.
        path: PathBuf,
        /// "xz", "bzip2", …
        kind: &'static str,
    },

    /// A zstd file refers further back than is held in memory.
    #[error(
        "{} was compressed with a window of more than 128 MiB, the most that is read: decompress it first, by `zstd -d --long=31`",
        path.display()
    )]
    LargeWindow {
        /// The file.
        path: PathBuf,
    },

    /// A compressed file cannot be decompressed to its end.
    #[error("{} is cut short or damaged: it cannot be read on as {kind}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// "gzip" or "zstd".
        kind: &'static str,
        /// The decompressor's reason.
        source: std::io::Error,
    },

    /// A parquet file that is damaged, or made in a way that is not read here.
    #[error("{} cannot be read as parquet: {reason}", path.display())]
    BadParquet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A parquet file lacks the column that holds the text.
    #[error("{} has no column `{column}`: its columns are {columns}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column that was looked for.
        column: String,
        /// The columns there are.
        columns: String,
    },

    /// A column of a parquet file holds something else than text.
    #[error("the column `{column}` of {} holds {found}, expected text", path.display())]
    ColumnNotText {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The type it has.
        found: String,
    },

    /// A line of a JSON lines file is not JSON.
    #[error("line {line} of {} is not JSON", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The reader's reason.
        source: serde_json::Error,
    },

    /// A line of a JSON lines file lacks the text field, or the field is not a string.
    #[error("line {line} of {} has no string in the field `{field}`", path.display())]
    NoTextField {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The field that was looked for.
        field: String,
    },

    /// A folder given as a corpus holds no file.
    #[error("the folder {} holds no text file", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },

    /// The corpus yields no document with text in it.
    #[error("the corpus is empty: {corpus}")]
    EmptyCorpus {
        /// The corpus, as it describes itself.
        corpus: String,
    },

    /// The corpus yields documents, but not one training row.
    #[error(
        "the corpus is too small for one training row of {length} tokens ({layout}): {corpus} \
         gave {tokens} tokens, and {dropped} documents were too long"
    )]
    TooSmall {
        /// The corpus, as it describes itself.
        corpus: String,
        /// Tokens that were seen in documents that were not dropped.
        tokens: u64,
        /// Documents dropped because they do not fit in a row.
        dropped: u64,
        /// The row length that was asked for, in tokens.
        length: usize,
        /// "rows" or "packed".
        layout: &'static str,
    },

    /// A row length that leaves no room for text.
    #[error(
        "length {length} is too small: the layout `{layout}` needs at least {minimum} tokens a row"
    )]
    LengthTooSmall {
        /// The length that was asked for.
        length: usize,
        /// "rows" or "packed".
        layout: &'static str,
        /// The smallest length of this layout.
        minimum: usize,
    },

    /// A row length beyond what the format holds.
    #[error("length {length} is too large: a row holds fewer than 2^32 tokens")]
    LengthTooLarge {
        /// The length that was asked for.
        length: usize,
    },

    /// A continuous text was to be cut in one row a document.
    #[error("a text read as a whole has no sequences of its own: pack it, or read it by lines")]
    WholeNeedsPacking,

    /// The validation share is not a share, or finer than it is met.
    #[error(
        "the validation share must be at least 0 and below 1, with at most six decimals, found {found}"
    )]
    BadShare {
        /// The value that was asked for.
        found: f64,
    },

    /// The documents for validation would be all there are, or more.
    #[error(
        "the last {last} documents cannot be set apart for validation: the corpus has {documents}"
    )]
    LastTooMany {
        /// The number that was asked for.
        last: u64,
        /// Documents in the corpus.
        documents: u64,
    },

    /// Another process, or another thread, is preparing the same output.
    #[error("{} is being prepared by another process: wait for it, or choose another folder", path.display())]
    BeingPrepared {
        /// The output folder.
        path: PathBuf,
    },

    /// A corpus gave other documents when it was read again.
    #[error(
        "the corpus has changed since its preparation was begun, which has to begin afresh: {corpus}"
    )]
    CorpusChanged {
        /// The corpus, as it describes itself.
        corpus: String,
    },

    /// Shards of no rows were asked for.
    #[error("a shard must hold at least one row, found rows_per_shard 0")]
    BadShardSize,

    /// The output exists already and was not to be replaced.
    #[error("{} exists already: choose another folder, or force its replacement", path.display())]
    OutputExists {
        /// The output folder.
        path: PathBuf,
    },

    /// A replacement was forced, but what is there is not a data folder.
    #[error("{} is not a data folder (it holds no dataset.json) and is not replaced", path.display())]
    OutputNotOurs {
        /// The output folder.
        path: PathBuf,
    },

    /// The progress callback asked to stop.
    #[error("the preparation was stopped before it was complete")]
    Cancelled,

    /// A tokenizer file cannot be understood.
    #[error("{} is not a tokenizer: {reason}", path.display())]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        reason: String,
    },

    /// A tokenizer has no token that ends a text.
    #[error("the tokenizer {name} has no end token: none of its added tokens is one of {known}")]
    NoEndToken {
        /// The file, or what was built.
        name: String,
        /// The names that are looked for.
        known: String,
    },

    /// A word or character that the closed vocabulary lacks.
    #[error("`{word}` is not in the vocabulary of {vocabulary} tokens")]
    UnknownWord {
        /// The word or character, escaped as in Rust source.
        word: String,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// A word of the corpus or of a word list that cannot be in a vocabulary.
    #[error("`{word}` cannot be a word of the vocabulary: {reason}")]
    BadWord {
        /// The word, escaped as in Rust source.
        word: String,
        /// Why not.
        reason: &'static str,
    },

    /// A token number beyond the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The number.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// A byte-level vocabulary was asked for that cannot hold all bytes.
    #[error("a byte-level vocabulary needs at least {minimum} tokens, found {found}")]
    BpeTooSmall {
        /// The size that was asked for.
        found: usize,
        /// 256 bytes and the special tokens.
        minimum: usize,
    },

    /// The `tokenizers` crate failed in a way that has no better name here.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// The reason it gave.
        reason: String,
    },

    /// A folder is not a data folder.
    #[error("{} is not a data folder: it holds no dataset.json", path.display())]
    NotADataset {
        /// The folder.
        path: PathBuf,
    },

    /// A `dataset.json` cannot be understood.
    #[error("{} cannot be understood", path.display())]
    BadMeta {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        source: serde_json::Error,
    },

    /// A file of another version of this format.
    #[error("{} has format version {found}, expected version {expected}", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// The version that this library reads.
        expected: u32,
        /// The version in the file.
        found: u64,
    },

    /// The tokenizer in the folder is not the one the shards were made with.
    #[error("{} has hash {found}, expected {expected} from dataset.json", path.display())]
    TokenizerMismatch {
        /// The tokenizer file.
        path: PathBuf,
        /// The hash in `dataset.json`.
        expected: String,
        /// The hash of the file.
        found: String,
    },

    /// A number in one file contradicts `dataset.json`.
    #[error("{} has {field} {found}, expected {expected} from dataset.json", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs: "vocabulary size", "row length", "row count", …
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
        /// What is wrong.
        field: &'static str,
        /// What would be right.
        expected: String,
        /// What the file says.
        found: String,
    },

    /// A shard listed in `dataset.json` is not there.
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
        /// Bytes that header and rows need.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },

    /// A file that does not begin as a shard does.
    #[error("{} is not a token shard: it begins with `{found}`, expected `{expected}`", path.display())]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// The eight bytes of the format.
        expected: String,
        /// The first bytes of the file, escaped.
        found: String,
    },

    /// The rows of a shard are not what was written.
    #[error("shard {} is damaged: checksum {found:08x}, expected {expected:08x}", path.display())]
    Checksum {
        /// The shard.
        path: PathBuf,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the rows.
        found: u32,
    },

    /// A shard holds a token beyond the vocabulary.
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

    /// A row or a text in memory that cannot be a row of this length and vocabulary.
    #[error("{what} {number}: {reason}")]
    Row {
        /// "row" or "text".
        what: &'static str,
        /// Its number, from 0.
        number: usize,
        /// What is wrong.
        reason: String,
    },

    /// A row beyond the end of a split.
    #[error("row {row} does not exist: the {split} split has {rows} rows")]
    NoSuchRow {
        /// The row that was asked for.
        row: usize,
        /// "train" or "validation".
        split: &'static str,
        /// Rows there are.
        rows: usize,
    },

    /// Batches were asked of a split without rows.
    #[error("an order over no rows has no batches")]
    NoRows,
}

impl DataError {
    /// For `map_err`: an [`DataError::Io`] with its place.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// For errors of the `tokenizers` crate, which are boxed and may hold anything.
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
