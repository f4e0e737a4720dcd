//! What stops a run.

use crate::config::TrainConfigError;
use flm_data::DataError;
use std::path::PathBuf;

/// What stops a run before its last step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Impossible settings.
    #[error(transparent)]
    Config(#[from] TrainConfigError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The loss, its gradient or the weights are no numbers any more.
    #[error("{what} at step {step} (losses: {parts}); {checkpoint}")]
    Diverged {
        /// The step in which it happened, counted from 1 as everywhere.
        step: u64,
        /// What became what.
        what: String,
        /// The losses by name.
        parts: String,
        /// Where the last good state is.
        checkpoint: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A checkpoint that cannot be continued.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// Nothing to continue.
    #[error("no checkpoint in {path} to resume from")]
    NothingToResume {
        /// Where checkpoints were looked for.
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
