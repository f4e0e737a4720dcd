//! Errors of language models that score text.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error from loading a language model or scoring with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A configuration file cannot be parsed.
    #[error("{} is not a valid configuration of a language model: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The parse error.
        source: serde_json::Error,
    },
    /// A setting is missing or has an unsupported value.
    #[error("{}: {key} must be {expected}, found {found}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The expected value.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// A weight file is damaged.
    #[error("{} is truncated or corrupt: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The defect.
        reason: String,
    },
    /// A tensor is missing, unexpected or invalid.
    #[error("{}: tensor {name} {reason}", path.display())]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// The name of the tensor.
        name: String,
        /// The defect.
        reason: String,
    },
    /// The maximum text length is unsupported.
    #[error("the maximum text length must be from 2 to {positions} tokens, found {found}")]
    Length {
        /// Number of positions of the model.
        positions: usize,
        /// The requested length.
        found: usize,
    },
    /// The tokenizer returned a token outside the model's vocabulary.
    #[error(
        "token {token} is not in the vocabulary of {vocabulary}: the tokenizer is for another model"
    )]
    Token {
        /// The token.
        token: u32,
        /// Size of the model's vocabulary.
        vocabulary: usize,
    },
}

impl JudgeError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
