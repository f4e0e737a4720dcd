//! Why a file or folder is no judge.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a language model cannot be read, or cannot score.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file of settings cannot be read.
    #[error("{} cannot be read as the configuration of a language model: {source}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A setting of another architecture.
    #[error("{}: {key} must be {expected}, found {found}", path.display())]
    Setting {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A file of tensors is damaged.
    #[error("{} is truncated or corrupt: {reason}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A tensor is missing, left over, or not what it should be.
    #[error("{}: tensor {name} {reason}", path.display())]
    Tensor {
        /// Which file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Texts cannot be cut to this length.
    #[error("texts must be cut to 2 to {positions} tokens for this model, found {found}")]
    Length {
        /// Positions that the model has.
        positions: usize,
        /// The length asked for.
        found: usize,
    },
    /// The tokenizer gives tokens that the model does not have.
    #[error(
        "the tokenizer gives token {token}, but the model has {vocabulary}: it is another model's"
    )]
    Token {
        /// The token.
        token: u32,
        /// Tokens that the model has.
        vocabulary: usize,
    },
}

impl JudgeError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
