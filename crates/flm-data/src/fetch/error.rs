//! The errors of downloads.

use std::path::{Path, PathBuf};

use crate::Wanted;
use crate::manifest::list;

/// An error of [`fetch`](fn@crate::fetch).
///
/// Each message is one lower-case sentence that names the address or the file. The message of
/// [`Offline`](Self::Offline) ends in a list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The operating system cannot read or write a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },

    /// A host does not respond, or not completely, after all retries.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// The network error.
        reason: String,
    },

    /// Like [`Unreachable`](Self::Unreachable), with the missing files.
    #[error(
        "cannot reach {url} ({reason}); to continue offline, put the missing files of {name} at these paths \
         and run again:{}",
        list(files)
    )]
    Offline {
        /// The data set.
        name: String,
        /// The requested address.
        url: String,
        /// The network error.
        reason: String,
        /// The missing files.
        files: Vec<Wanted>,
    },

    /// A host responds, but not with the file.
    #[error("{url} returned status {status}{}", hint(*status))]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },

    /// The size of a file differs from the announced one.
    #[error("{url} has {found} bytes, expected {expected}")]
    WrongSize {
        /// The address.
        url: String,
        /// The size in the manifest or on the Hub.
        expected: u64,
        /// The size on the host.
        found: u64,
    },

    /// The content of a file differs from the announced one.
    #[error("{url} has SHA-256 {found}, expected {expected}; the download was deleted")]
    Checksum {
        /// The address.
        url: String,
        /// The hash in the manifest or on the Hub.
        expected: String,
        /// The hash of the received file.
        found: String,
    },

    /// The Hub's list of files cannot be parsed.
    #[error("{url} is not a list of files: {reason}")]
    BadListing {
        /// The address.
        url: String,
        /// The parser's error, or the faulty name.
        reason: String,
    },

    /// A pattern matches no files, or a different number than the manifest requires.
    #[error("{address} has {found} files matching {pattern}, expected {expected}")]
    WrongCount {
        /// The web page of the repository's folder.
        address: String,
        /// The pattern.
        pattern: String,
        /// A number, or "at least one".
        expected: String,
        /// The number of matching files.
        found: usize,
    },

    /// Another program is downloading the same data set.
    #[error("{} is being written by another program", folder.display())]
    Busy {
        /// The folder of the data set.
        folder: PathBuf,
    },

    /// The progress callback asked to stop. Received data is kept.
    #[error("the download was stopped before it was complete")]
    Cancelled,
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": it may need an account; set its token in HF_TOKEN",
        404 | 410 => ": the file does not exist",
        _ => "",
    }
}

impl FetchError {
    /// For `map_err`: returns a [`FetchError::Io`] for an action and a path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
