//! What can be wrong with a manifest, or with a copy of what it describes.

use std::fmt;
use std::path::PathBuf;

/// Each message is one lower-case sentence that names the manifest and the key, or the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The manifest, or a file of the copy.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// No manifest of this name comes with the program.
    #[error("there is no data set `{found}`: known are {known}, or give the path of a manifest")]
    UnknownName {
        /// The name that was asked for.
        found: String,
        /// Those there are.
        known: String,
    },

    /// The text is not TOML, or a key is missing, unknown or of a wrong type.
    #[error("the manifest {manifest} cannot be understood at `{key}`: {reason}")]
    NotUnderstood {
        /// The file, or the name of one that comes with the program.
        manifest: String,
        /// The key at fault or the table that has it, such as `train[0].bytes`.
        key: String,
        /// What is wrong there.
        reason: String,
    },

    /// A key has a value that it cannot have.
    #[error("the manifest {manifest} says {key} = {found}, expected {expected}")]
    BadValue {
        /// The file, or the name of one that comes with the program.
        manifest: String,
        /// The key, such as `train[0].url`.
        key: String,
        /// The value.
        found: String,
        /// What it could be.
        expected: String,
    },

    /// Two keys contradict one another, or one lacks its companion.
    #[error("the manifest {manifest} has a fault in `{key}`: {reason}")]
    Inconsistent {
        /// The file, or the name of one that comes with the program.
        manifest: String,
        /// The key, such as `validation`.
        key: String,
        /// What does not fit.
        reason: String,
    },

    /// A copy lacks files.
    #[error("{} does not hold all of {name}; missing are:{}", from.display(), list(missing))]
    Missing {
        /// The data set.
        name: String,
        /// The copy.
        from: PathBuf,
        /// What is missing.
        missing: Vec<Wanted>,
    },

    /// A file of a copy is not the published one.
    #[error("{} has {what} {found}, expected {expected} from the manifest {name}", path.display())]
    NotTheFile {
        /// The file.
        path: PathBuf,
        /// The data set.
        name: String,
        /// What differs: "bytes" or "SHA-256".
        what: &'static str,
        /// The value of the file.
        found: String,
        /// The value in the manifest.
        expected: String,
    },
}

/// A file that is needed, where it is published and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address of the file, or of the page that lists the files of a pattern.
    pub from: String,
    /// The place for it: a path, which ends in a pattern where the source has one.
    pub to: PathBuf,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.to.display(), self.from)
    }
}

/// One on each line.
pub(crate) fn list(files: &[Wanted]) -> String {
    let lines = files.iter().map(|file| format!("\n  {file}"));
    lines.collect::<Vec<_>>().join(";")
}
