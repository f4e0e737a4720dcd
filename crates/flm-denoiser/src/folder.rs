//! A model as a folder: `config.json`, `model.safetensors`, and files of the caller's such as a tokenizer.
//!
//! The tensors carry the names and layouts of the reference's PyTorch checkpoints, in f32, so that either side can read
//! the other. A folder appears whole or not at all, and is read strictly: whatever is missing, left over, misshapen or not finite
//! is an error with its name.
//!
//! A residual flow map is the folder of its second network, whose configuration says so, with the folder of its frozen denoiser in
//! it, `denoiser`.

mod read;
mod write;

pub use flm_files::Existing;
pub use read::{load, load_residual, read_config};
pub use write::{Content, check_config, save, save_residual};

use crate::{ConfigError, DitConfig, TensorError};
use std::io;
use std::path::PathBuf;

/// The file with the sizes of the network and the format's version.
pub const CONFIG_FILE: &str = "config.json";
/// The file with the parameters.
pub const TENSORS_FILE: &str = "model.safetensors";
/// In the folder of a residual flow map: the folder of its denoiser.
pub const DENOISER_FOLDER: &str = "denoiser";
/// The version of the format.
pub const FORMAT_VERSION: u32 = 1;

/// Why a model folder cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is already where the folder should go.
    #[error("{} exists already", path.display())]
    Exists {
        /// The place asked for.
        path: PathBuf,
    },
    /// What should be replaced is not a model folder.
    #[error("{} is not a model folder, so it is not replaced", path.display())]
    NotAModel {
        /// The place asked for.
        path: PathBuf,
    },
    /// A file of the caller's has a name that a model folder cannot hold.
    #[error("{name:?} cannot be the name of a further file in a model folder")]
    ExtraName {
        /// The name given.
        name: String,
    },
    /// The configuration is not the one of the network to be saved.
    #[error("the configuration has {key} = {config}, the network {model}")]
    Mismatch {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        config: String,
        /// The network's.
        model: String,
    },
    /// A residual flow map where one network was expected.
    #[error("{} holds a residual flow map, two networks, where one is expected", path.display())]
    Residual {
        /// The folder.
        path: PathBuf,
    },
    /// One network where a residual flow map was expected.
    #[error("{} holds no residual flow map: its configuration does not say residual", path.display())]
    NotResidual {
        /// The folder.
        path: PathBuf,
    },
    /// Two networks that cannot make a residual flow map.
    #[error("a residual flow map of {key} {second} has a denoiser of {key} {denoiser}")]
    Pair {
        /// The configuration key.
        key: &'static str,
        /// Its value for the second network.
        second: String,
        /// Its value for the denoiser.
        denoiser: String,
    },
    /// `config.json` is not what it should be.
    #[error("{} is not a model configuration: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// The folder was written by another version.
    #[error("{} has format version {found}, but only version {FORMAT_VERSION} is known", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// No network has these sizes.
    #[error("{}: {source}", path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// Which size.
        source: ConfigError,
    },
    /// The network described is far larger than the one that was saved.
    #[error(
        "{} describes a network of {described} parameters, but {TENSORS_FILE} holds {held}",
        path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// Parameters that it describes.
        described: u128,
        /// Parameters in the file of tensors.
        held: usize,
    },
    /// `model.safetensors` cannot be read as such a file.
    #[error("{} is truncated or corrupt, or no safetensors file: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A tensor has a type that is not read.
    #[error("{}: tensor {name} has type {found}, expected F32, F16 or BF16", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The tensors are not the parameters of the network.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Checks that the two networks of a residual flow map see the same sequences at the same times.
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

/// An error of the operating system's, with what was tried.
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

/// A hidden folder that replaces model folders only.
///
/// # Errors
///
/// [`FolderError::Exists`] or [`FolderError::NotAModel`] if what is there may not be replaced, [`FolderError::Io`] if the system refuses.
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
