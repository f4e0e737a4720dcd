//! Errors.

use std::io;
use std::path::{Path, PathBuf};

/// An I/O error.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// The operation, as a verb.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The source error.
    pub source: io::Error,
}

impl FileError {
    /// Returns a closure for `map_err` on file operations.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// An error from writing a folder.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The destination exists.
    #[error("{} exists already", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The destination is a folder of another kind.
    #[error("{} is a folder of another kind, so it is not replaced", path.display())]
    NotOurs {
        /// The destination.
        path: PathBuf,
    },
    /// Another process writes the same destination.
    #[error("another process writes {}", path.display())]
    Locked {
        /// The destination.
        path: PathBuf,
    },
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
}
