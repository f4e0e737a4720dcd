//! Errors of manifests and of local copies of data sets.

use std::fmt;
use std::path::PathBuf;

/// An error of a manifest or of a local copy.
///
/// Each message is one lower-case sentence that names the manifest and the key, or the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The manifest, or a file of the copy.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },

    /// No built-in manifest has this name.
    #[error("unknown data set `{found}`: expected one of {known}, or the path of a manifest")]
    UnknownName {
        /// The requested name.
        found: String,
        /// The known names.
        known: String,
    },

    /// The text is not TOML, or a key is missing, unknown or of the wrong type.
    #[error("the manifest {manifest} cannot be understood at `{key}`: {reason}")]
    NotUnderstood {
        /// The file, or the name of a built-in manifest.
        manifest: String,
        /// The faulty key or its table, such as `train[0].bytes`.
        key: String,
        /// The reason.
        reason: String,
    },

    /// A key has an invalid value.
    #[error("the manifest {manifest} says {key} = {found}, expected {expected}")]
    BadValue {
        /// The file, or the name of a built-in manifest.
        manifest: String,
        /// The key, such as `train[0].url`.
        key: String,
        /// The value found.
        found: String,
        /// The valid values.
        expected: String,
    },

    /// Two keys contradict each other, or a key needs another one.
    #[error("the manifest {manifest} has a fault in `{key}`: {reason}")]
    Inconsistent {
        /// The file, or the name of a built-in manifest.
        manifest: String,
        /// The key, such as `validation`.
        key: String,
        /// The contradiction.
        reason: String,
    },

    /// A local copy lacks files.
    #[error("{} lacks files of {name}; missing:{}", from.display(), list(missing))]
    Missing {
        /// The data set.
        name: String,
        /// The folder or file of the copy.
        from: PathBuf,
        /// The missing files.
        missing: Vec<Wanted>,
    },

    /// A file of a local copy differs from the published one.
    #[error("{} has {what} {found}, expected {expected} from the manifest {name}", path.display())]
    NotTheFile {
        /// The file.
        path: PathBuf,
        /// The data set.
        name: String,
        /// The property that differs: "bytes" or "SHA-256".
        what: &'static str,
        /// The value found.
        found: String,
        /// The value in the manifest.
        expected: String,
    },
}

/// A missing file, with its source and its target path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address of the file, or of the page that lists the files of a pattern.
    pub from: String,
    /// The target path, which ends in a pattern if the source has one.
    pub to: PathBuf,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.to.display(), self.from)
    }
}

/// Formats one file per line.
pub(crate) fn list(files: &[Wanted]) -> String {
    let lines = files.iter().map(|file| format!("\n  {file}"));
    lines.collect::<Vec<_>>().join(";")
}
