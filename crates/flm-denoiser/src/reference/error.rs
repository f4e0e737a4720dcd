//! Errors of importing and exporting the reference's weights.

use crate::folder::FolderError;
use crate::tensor_file::Fault;
use crate::{ConfigError, TensorError};
use std::io;
use std::path::{Path, PathBuf};

/// An error from reading the reference's weights, or from writing weights for it.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The failed operation, as a verb.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file type is unsupported.
    #[error("{} is not a supported file: {expected}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The supported files.
        expected: &'static str,
    },
    /// The checkpoint is damaged or not a checkpoint.
    #[error("{} is not a readable checkpoint: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// A description of the fault.
        reason: String,
    },
    /// The file is damaged or not a safetensors file.
    #[error("{} is truncated, corrupt or not a safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parse error.
        reason: String,
    },
    /// `config.json` cannot be parsed.
    #[error("{} is not a configuration: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parse error.
        source: serde_json::Error,
    },
    /// The tensors do not form a network.
    #[error("{} has no tensor {name}, so it does not hold a network of this kind", path.display())]
    NoNetwork {
        /// The file.
        path: PathBuf,
        /// The missing tensor, which every network has.
        name: &'static str,
    },
    /// A tensor cannot be read.
    #[error("{}: tensor {name} {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// A description of the fault.
        reason: String,
    },
    /// The number of averages does not match the number of parameters.
    #[error("{} holds {parameters} parameters, but {averages} averages: select the live parameters", path.display())]
    Averages {
        /// The file.
        path: PathBuf,
        /// Number of parameters.
        parameters: usize,
        /// Number of averages.
        averages: usize,
    },
    /// The checkpoint has no averages.
    #[error("{} holds no averages of its parameters (ema.shadow_params): select the live parameters", path.display())]
    NoAverages {
        /// The file.
        path: PathBuf,
    },
    /// The live parameters were requested from a file with one set of weights.
    #[error("{} holds one set of weights and does not say whether they are averages: load them as they are", path.display())]
    OneSet {
        /// The file.
        path: PathBuf,
    },
    /// The model is of another family.
    #[error("{} holds a model of the kind `{algorithm}`, expected a flow language model or its flow map", path.display())]
    Family {
        /// The file.
        path: PathBuf,
        /// The name of its algorithm.
        algorithm: String,
    },
    /// Neither the tensors nor the settings of the file give a required size.
    #[error("{} does not specify the network's {key}: it must be given", path.display())]
    Untold {
        /// The file.
        path: PathBuf,
        /// The missing size.
        key: &'static str,
    },
    /// A hint contradicts the file.
    #[error("{} says that the network's {key} is {found}, but {given} is given", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The contradicted size.
        key: &'static str,
        /// The value in the file.
        found: usize,
        /// The value of the hint.
        given: usize,
    },
    /// The sizes are invalid.
    #[error("{}: {source}", path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// The invalid size.
        source: ConfigError,
    },
    /// The reference does not support a setting of the network.
    #[error(
        "the network has {key} = {found}, which the reference does not support: only {expected} can be exported"
    )]
    NotOfReference {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        found: String,
        /// The only supported value.
        expected: String,
    },
    /// The tensors do not match the parameters of the network.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The folder cannot be written.
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

    /// Converts an I/O error, for use with `map_err`.
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
