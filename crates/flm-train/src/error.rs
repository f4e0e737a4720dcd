//! Training errors.

use crate::config::TrainConfigError;
use flm_data::DataError;
use std::path::PathBuf;

/// An error that stops a run before its last step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The settings are invalid.
    #[error(transparent)]
    Config(#[from] TrainConfigError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The loss, the gradient or the weights became infinite or NaN.
    #[error(
        "{what} at step {step} (losses: {parts}): start again with lower learning rates or a longer warm-up, because resuming repeats this; {checkpoint}"
    )]
    Diverged {
        /// The step in which it happened, counted from 1.
        step: u64,
        /// The quantity and its value.
        what: String,
        /// The losses by name.
        parts: String,
        /// The last checkpoint with finite weights.
        checkpoint: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The attempted action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A checkpoint cannot be resumed.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The reason, with the expected and found values.
        reason: String,
    },
    /// There is no checkpoint to resume from.
    #[error("no checkpoint in {path} to resume from")]
    NothingToResume {
        /// The folder that was searched.
        path: PathBuf,
    },
}

impl TrainError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<flm_files::FileError> for TrainError {
    fn from(error: flm_files::FileError) -> Self {
        Self::io(error.action, error.path)(error.source)
    }
}

impl From<flm_files::StagingError> for TrainError {
    fn from(error: flm_files::StagingError) -> Self {
        match error {
            flm_files::StagingError::File(error) => error.into(),
            flm_files::StagingError::Exists { path }
            | flm_files::StagingError::NotOurs { path }
            | flm_files::StagingError::Locked { path } => {
                Self::io("replace", path)(std::io::ErrorKind::AlreadyExists.into())
            }
        }
    }
}
