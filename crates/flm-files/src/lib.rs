//! Files and folders that appear complete or not at all.
//!
//! Everything is written next to its destination, synced and renamed. A reader never sees a partial
//! write, and a crash leaves the previous content.
//!
//! ```
//! use flm_files::{Existing, Staging};
//!
//! let home = tempfile::tempdir()?;
//! let place = home.path().join("model");
//! let staging = Staging::begin(&place, Existing::Refuse, |_| false)?;
//! staging.write("config.json".as_ref(), b"{}")?;
//! assert!(!place.exists());
//! staging.commit()?;
//! assert!(place.join("config.json").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod lock;
mod staging;

pub use error::{FileError, StagingError};
pub use lock::Lock;
pub use staging::{Existing, Staging};

use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Writes a file atomically, and creates its parent folders.
///
/// # Errors
///
/// On an I/O error. An existing file is then unchanged.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write_with(path, |beside| {
        File::options().write(true).open(beside)?.write_all(content)
    })
}

/// Writes a file atomically with `writer`, and creates its parent folders.
///
/// `writer` gets the path of an empty file in the same folder.
///
/// # Errors
///
/// On an I/O error. An existing file is then unchanged.
pub fn write_with(
    path: &Path,
    writer: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), FileError> {
    let folder = parent(path);
    fs::create_dir_all(folder).map_err(FileError::of("create", folder))?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder
        .tempfile_in(folder)
        .map_err(FileError::of("create a file in", folder))?;
    writer(file.path())
        .and_then(|()| sync_file(file.path()))
        .map_err(FileError::of("write", path))?;
    file.persist(path)
        .map_err(|error| FileError::of("write", path)(error.error))?;
    sync_folder(folder)
}

/// Returns the SHA-256 of a file in hexadecimal.
///
/// # Errors
///
/// If the file cannot be read.
pub fn sha256(path: &Path) -> Result<String, FileError> {
    let read = |path: &Path| -> io::Result<Sha256> {
        let (mut file, mut hash) = (File::open(path)?, Sha256::new());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash),
                count => hash.update(&buffer[..count]),
            }
        }
    };
    let hash = read(path).map_err(FileError::of("read", path))?.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Syncs a file to disk.
fn sync_file(path: &Path) -> io::Result<()> {
    File::options().write(true).open(path)?.sync_all()
}

/// Syncs the entries of a folder to disk. Does nothing on other systems than Unix.
///
/// # Errors
///
/// On an I/O error.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(FileError::of("write", folder))?;
    let _ = folder;
    Ok(())
}

/// Returns the parent folder of a path; `.` for a bare file name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
