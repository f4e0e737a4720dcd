//! Locks between processes.

use crate::{FileError, StagingError};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A lock file, locked until it is dropped or its process ends, and removed on drop.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Locks an existing folder against other processes that do the same.
    ///
    /// # Errors
    ///
    /// [`StagingError::Locked`] if another process holds the lock, [`StagingError::File`] on an I/O
    /// error.
    pub fn folder(folder: &Path) -> Result<Self, StagingError> {
        Self::take(folder, folder.join(".lock"), File::try_lock)
    }

    pub(crate) fn take(
        place: &Path,
        path: PathBuf,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, StagingError> {
        // A killed process holds its lock until the system has cleaned it up.
        const TRIES: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(50);
        for _ in 0..TRIES {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(FileError::of("create", &path))?;
            match try_lock(&file) {
                // The previous holder may have removed the file after it was opened here.
                Ok(()) if is_at(&file, &path) => return Ok(Self { path, _file: file }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                // Some file systems do not support locks. The user must then avoid
                // concurrent writes.
                Err(TryLockError::Error(error)) if knows_none(&error) => {
                    tracing::warn!(
                        path = %path.display(),
                        %error,
                        "the file system does not support locks: no other process may write this folder now"
                    );
                    return Ok(Self { path, _file: file });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::of("lock", &path)(error).into());
                }
            }
        }
        Err(StagingError::Locked {
            path: place.to_path_buf(),
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Remove the file before the lock is released with it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns `true` if `path` still names the open file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |file: fs::Metadata| (file.dev(), file.ino());
        let found = fs::metadata(path).map(id).ok();
        found.is_some() && found == file.metadata().map(id).ok()
    }
    #[cfg(not(unix))]
    {
        // On other systems an open file keeps its name.
        let _ = (file, path);
        true
    }
}

/// Returns `true` if locks are not supported. A network file system without a lock service
/// returns ENOLCK.
fn knows_none(error: &std::io::Error) -> bool {
    const ENOLCK: i32 = 37;
    error.kind() == std::io::ErrorKind::Unsupported
        || cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_worked_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".data.lock");
        let out = folder.path().join("data");
        let none = |_: &File| {
            let error = std::io::ErrorKind::Unsupported;
            Err(TryLockError::Error(error.into()))
        };
        let lock = Lock::take(&out, path.clone(), none).unwrap();
        assert!(path.is_file());
        drop(lock);
        assert!(!path.exists());
    }
}
