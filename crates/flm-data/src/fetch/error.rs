//! Why a data set could not be fetched.

use std::path::{Path, PathBuf};

use crate::Wanted;
use crate::manifest::list;

/// Each message is one lower-case sentence that names the address or the file; that of [`Offline`](Self::Offline)
/// ends in a list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The operating system refused to read or write.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A host does not answer, or not to the end, however often it is asked.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// What the network said.
        reason: String,
    },

    /// The same, with the files that are still missing.
    #[error(
        "cannot reach {url} ({reason}); to do without, put the missing files of {name} in their places and run this \
         again:{}",
        list(files)
    )]
    Offline {
        /// The data set.
        name: String,
        /// The address that was tried.
        url: String,
        /// What the network said.
        reason: String,
        /// What is missing.
        files: Vec<Wanted>,
    },

    /// A host answers, and not with the file.
    #[error("{url} was answered with status {status}{}", hint(*status))]
    Refused {
        /// The address.
        url: String,
        /// The status of HTTP.
        status: u16,
    },

    /// A file has another size than was announced.
    #[error("{url} has {found} bytes, expected {expected}")]
    WrongSize {
        /// The address.
        url: String,
        /// What the manifest or the Hub says.
        expected: u64,
        /// What the host offers.
        found: u64,
    },

    /// A file has another content than was announced.
    #[error("{url} has SHA-256 {found}, expected {expected}; what was received is deleted")]
    Checksum {
        /// The address.
        url: String,
        /// What the manifest or the Hub says.
        expected: String,
        /// The hash of what was received.
        found: String,
    },

    /// The Hub's list of files cannot be understood.
    #[error("{url} is not a list of files: {reason}")]
    BadListing {
        /// The address.
        url: String,
        /// The reader's reason, or the name at fault.
        reason: String,
    },

    /// A pattern matches nothing, or not as many files as the manifest says.
    #[error("{address} has {found} files like {pattern}, expected {expected}")]
    WrongCount {
        /// The page of the repository's folder.
        address: String,
        /// The pattern.
        pattern: String,
        /// A number, or "at least one".
        expected: String,
        /// Files there are.
        found: usize,
    },

    /// Another program is fetching the same data set.
    #[error("{} is being written by another program", folder.display())]
    Busy {
        /// The folder of the data set.
        folder: PathBuf,
    },

    /// The progress callback asked to stop. What has been received is kept.
    #[error("the fetching was stopped before it was complete")]
    Cancelled,
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": it may want an account, whose token is read from HF_TOKEN",
        404 | 410 => ": it is not there, or no longer",
        _ => "",
    }
}

impl FetchError {
    /// For `map_err`: an [`FetchError::Io`] with its place.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
