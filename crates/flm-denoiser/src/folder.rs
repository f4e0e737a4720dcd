//! Model folders: `config.json`, `model.safetensors`, and the caller's extra files such as
//! a tokenizer.
//!
//! The tensors have the names and layouts of the reference's PyTorch checkpoints, in f32, so both
//! implementations can read them. A folder is written completely or not at all. Reading is strict:
//! a missing, extra, misshapen or non-finite tensor is an error that names it.
//!
//! A residual flow map is stored as the folder of its second network, marked in its configuration.
//! The subfolder `denoiser` is the model folder of its frozen denoiser.

mod read;
mod write;

pub use flm_files::Existing;
pub use read::{load, load_residual, read_config};
pub use write::{Content, check_config, save, save_residual};

use crate::{ConfigError, DitConfig, TensorError};
use std::io;
use std::path::PathBuf;

/// The file with the network's sizes and the format version.
pub const CONFIG_FILE: &str = "config.json";
/// The file with the parameters.
pub const TENSORS_FILE: &str = "model.safetensors";
/// The subfolder of a residual flow map's folder with its denoiser.
pub const DENOISER_FOLDER: &str = "denoiser";
/// The version of the format.
pub const FORMAT_VERSION: u32 = 1;

/// An error from writing or reading a model folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The failed operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The destination already exists.
    #[error("{} exists already", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The destination is not a model folder, so it cannot be replaced.
    #[error("{} is not a model folder, so it is not replaced", path.display())]
    NotAModel {
        /// The destination.
        path: PathBuf,
    },
    /// An extra file has a name that is not allowed in a model folder.
    #[error("{name:?} is not a valid name for an extra file in a model folder")]
    ExtraName {
        /// The given name.
        name: String,
    },
    /// The configuration does not match the network to be saved.
    #[error("the configuration has {key} = {config}, but the network has {model}")]
    Mismatch {
        /// The configuration key.
        key: &'static str,
        /// The value in the configuration.
        config: String,
        /// The value of the network.
        model: String,
    },
    /// The folder holds a residual flow map, but a single network was expected.
    #[error("{} holds a residual flow map (two networks), expected a single network", path.display())]
    Residual {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds a single network, but a residual flow map was expected.
    #[error("{} is not a residual flow map: its configuration has residual = false", path.display())]
    NotResidual {
        /// The folder.
        path: PathBuf,
    },
    /// The two networks do not form a residual flow map.
    #[error("the residual flow map has {key} = {second}, but its denoiser has {key} = {denoiser}")]
    Pair {
        /// The configuration key.
        key: &'static str,
        /// The value of the second network.
        second: String,
        /// The value of the denoiser.
        denoiser: String,
    },
    /// `config.json` is not a valid model configuration.
    #[error("{} is not a model configuration: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The parse error.
        source: serde_json::Error,
    },
    /// The format version is unsupported.
    #[error("{} has format version {found}, but only version {FORMAT_VERSION} is supported", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The sizes in the configuration are invalid.
    #[error("{}: {source}", path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// The invalid size.
        source: ConfigError,
    },
    /// The configuration describes a far larger network than the saved one.
    #[error(
        "{} describes a network of {described} parameters, but {TENSORS_FILE} holds {held}",
        path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// Number of parameters in the configuration.
        described: u128,
        /// Number of parameters in the tensor file.
        held: usize,
    },
    /// `model.safetensors` is not a valid safetensors file.
    #[error("{} is truncated, corrupt or not a safetensors file: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The parse error.
        reason: String,
    },
    /// A tensor has an unsupported type.
    #[error("{}: tensor {name} has type {found}, expected F32, F16 or BF16", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The tensors do not match the parameters of the network.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Checks that the two networks of a residual flow map have the same vocabulary, length
/// and schedule.
fn check_pair(second: &DitConfig, denoiser: &DitConfig) -> Result<(), FolderError> {
    for (key, second, denoiser) in [
        (
            "vocab_size",
            second.vocab_size.to_string(),
            denoiser.vocab_size.to_string(),
        ),
        (
            "length",
            second.length.to_string(),
            denoiser.length.to_string(),
        ),
        (
            "schedule_vocab",
            second.schedule_vocab.to_string(),
            denoiser.schedule_vocab.to_string(),
        ),
        (
            "clock",
            format!("{:?}", second.clock),
            format!("{:?}", denoiser.clock),
        ),
    ] {
        if second != denoiser {
            return Err(FolderError::Pair {
                key,
                second,
                denoiser,
            });
        }
    }
    Ok(())
}

/// Converts an I/O error, with the failed operation.
fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_path_buf();
    move |source| FolderError::Io {
        action,
        path,
        source,
    }
}

impl From<flm_files::FileError> for FolderError {
    fn from(error: flm_files::FileError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

impl From<flm_files::StagingError> for FolderError {
    fn from(error: flm_files::StagingError) -> Self {
        match error {
            flm_files::StagingError::Exists { path } => Self::Exists { path },
            flm_files::StagingError::NotOurs { path }
            | flm_files::StagingError::Locked { path } => Self::NotAModel { path },
            flm_files::StagingError::File(error) => error.into(),
        }
    }
}

/// Creates a hidden folder that replaces only model folders.
///
/// # Errors
///
/// [`FolderError::Exists`] or [`FolderError::NotAModel`] if the existing `place` must not be
/// replaced, [`FolderError::Io`] if a file operation fails.
pub fn staging(
    place: &std::path::Path,
    existing: Existing,
) -> Result<flm_files::Staging, FolderError> {
    let is_model = |folder: &std::path::Path| folder.join(CONFIG_FILE).is_file();
    Ok(flm_files::Staging::begin(place, existing, is_model)?)
}

/// `config.json`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile<Config> {
    format_version: u32,
    model: Config,
}

#[cfg(test)]
mod tests;
