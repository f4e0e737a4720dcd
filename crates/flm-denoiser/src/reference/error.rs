//! Why a file of another program's is not taken.

use crate::folder::FolderError;
use crate::tensor_file::Fault;
use crate::{ConfigError, TensorError};
use std::io;
use std::path::{Path, PathBuf};

/// Why weights of another program's cannot be read, or written for it.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is of none of the kinds that are read.
    #[error("{} is not a supported file: {expected}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What would be read.
        expected: &'static str,
    },
    /// A checkpoint is damaged, or no checkpoint at all.
    #[error("{} is not a readable checkpoint: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A file of tensors is damaged, or no such file.
    #[error("{} is truncated or corrupt, or no safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A `config.json` cannot be read.
    #[error("{} is not a configuration: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// Tensors of something else.
    #[error("{} holds no tensor {name}: it is not a network of this kind", path.display())]
    NoNetwork {
        /// The file.
        path: PathBuf,
        /// A tensor that every network has.
        name: &'static str,
    },
    /// A tensor cannot be read as numbers.
    #[error("{}: tensor {name} {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The averages of a checkpoint are not those of its parameters.
    #[error("{} holds {parameters} parameters, but averages of {averages}: take the parameters themselves", path.display())]
    Averages {
        /// The file.
        path: PathBuf,
        /// Number of parameters.
        parameters: usize,
        /// Number of averages.
        averages: usize,
    },
    /// There are no averages.
    #[error("{} holds no averages of its parameters (ema.shadow_params): take the parameters themselves", path.display())]
    NoAverages {
        /// The file.
        path: PathBuf,
    },
    /// The parameters of the last step are asked for where only one set of weights is.
    #[error("{} holds one set of weights, and does not say whether they are averages: take it as it is", path.display())]
    OneSet {
        /// The file.
        path: PathBuf,
    },
    /// A model of another family.
    #[error("{} holds a model of the kind `{algorithm}`, expected a flow language model or its flow map", path.display())]
    Family {
        /// The file.
        path: PathBuf,
        /// What it calls itself.
        algorithm: String,
    },
    /// Something about the network is not told by its tensors, and the file does not say it.
    #[error("{} does not tell the network's {key}: it has to be given", path.display())]
    Untold {
        /// The file.
        path: PathBuf,
        /// What is missing.
        key: &'static str,
    },
    /// What is given differs from what the file says.
    #[error("{} says that the network's {key} is {found}, but {given} is given", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What differs.
        key: &'static str,
        /// What the file says.
        found: usize,
        /// What is given.
        given: usize,
    },
    /// No network has these sizes.
    #[error("{}: {source}", path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// Which size.
        source: ConfigError,
    },
    /// The reference's network has no such part.
    #[error(
        "the network has {key} = {found}, which the reference's network cannot have: only {expected} can be written for it"
    )]
    NotOfReference {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        found: String,
        /// The only value that can be written.
        expected: String,
    },
    /// The tensors are not the parameters of the network.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A folder cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl ReferenceError {
    pub(super) fn of(fault: Fault, path: &Path) -> Self {
        let path = path.to_path_buf();
        match fault {
            Fault::Corrupt(reason) => Self::Safetensors { path, reason },
            Fault::Type { name, found } => Self::Unreadable {
                path,
                name,
                reason: format!("has type {found}, expected F32, F16 or BF16"),
            },
        }
    }

    /// For `map_err` on file operations.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<flm_files::FileError> for ReferenceError {
    fn from(error: flm_files::FileError) -> Self {
        Self::io(error.action, &error.path)(error.source)
    }
}
