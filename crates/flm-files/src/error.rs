//! Errors.

use std::io;
use std::path::{Path, PathBuf};

/// The operating system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// With which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err` on file operations.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// Why a folder cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// Something is at its place.
    #[error("{} exists already", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// What should be replaced is a folder of another kind.
    #[error("{} is a folder of another kind, so it is not replaced", path.display())]
    NotOurs {
        /// The place.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("another process writes {}", path.display())]
    Locked {
        /// The place.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}
