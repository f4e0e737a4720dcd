//! A folder that appears whole or not at all, and can be taken up again until then.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::journal::JOURNAL_FILE;
use crate::DataError;
use crate::dataset::META_FILE;

/// A hidden folder beside the output, `.NAME.preparing`, deleted on drop unless it was committed or
/// kept. Nobody else prepares the same output for as long as it is held.
#[derive(Debug)]
pub(super) struct Staging {
    out: PathBuf,
    folder: PathBuf,
    keep: bool,
    replaces: bool,
    // Given up last but for the parents, which go only when they are empty.
    _lock: Lock,
    _parents: Parents,
}

impl Staging {
    /// Checks that the output may be written and makes the folder beside it, or takes up the one
    /// that is there.
    pub(super) fn begin(out: &Path, force: bool) -> Result<Self, DataError> {
        // Through a link, the folder behind it is replaced and not the link.
        let out = match fs::symlink_metadata(out) {
            Ok(_) => fs::canonicalize(out).map_err(DataError::io("read", out))?,
            Err(_) => out.to_path_buf(),
        };
        let parent = parent(&out);
        let parents = Parents::make(parent)?;
        let lock = Lock::take(&out, beside(&out, "lock"), File::try_lock)?;
        // Another process may have completed it until the lock was free.
        let replaces = fs::symlink_metadata(&out).is_ok();
        if replaces && !force {
            return Err(DataError::OutputExists { path: out });
        }
        if replaces {
            check_ours(&out)?;
        }
        let folder = beside(&out, "preparing");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(DataError::io("create", &folder)(error));
            }
            _ => {}
        }
        Ok(Self {
            out,
            folder,
            keep: false,
            replaces,
            _lock: lock,
            _parents: parents,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes what an earlier preparation left.
    pub(super) fn clear(&self) -> Result<(), DataError> {
        fs::remove_dir_all(&self.folder).map_err(DataError::io("remove", &self.folder))?;
        fs::create_dir(&self.folder).map_err(DataError::io("create", &self.folder))
    }

    /// Leaves the folder for another time, if it can be gone on with.
    pub(super) fn keep(&mut self) {
        self.keep = self.folder.join(JOURNAL_FILE).is_file();
    }

    /// Puts the folder in its place. An older one there is set aside first and deleted last; should
    /// the machine stop between the two renames, it is in a folder `.flm-old-…` beside the output.
    pub(super) fn commit(mut self) -> Result<(), DataError> {
        sync(self.path())?;
        let parent = parent(&self.out);
        if self.replaces {
            let aside = hidden_folder(parent, ".flm-old-")?;
            let old = aside.path().join("data");
            fs::rename(&self.out, &old).map_err(DataError::io("rename", &self.out))?;
            if let Err(error) = fs::rename(self.path(), &self.out) {
                if fs::rename(&old, &self.out).is_err() {
                    // Rather a folder too many than the only data lost.
                    let _ = aside.keep();
                }
                return Err(DataError::io("create", &self.out)(error));
            }
        } else {
            fs::rename(self.path(), &self.out).map_err(DataError::io("create", &self.out))?;
        }
        self.keep = true;
        sync(parent)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is taken up, or cleared, the next time.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A file that is locked as long as its process lives, and removed when it is given up.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(
        out: &Path,
        path: PathBuf,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, DataError> {
        // A process that was killed holds its lock until the system has done with it.
        const TRIES: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(50);
        for _ in 0..TRIES {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(DataError::io("create", &path))?;
            match try_lock(&file) {
                // The one who had it may have removed the file since it was opened here.
                Ok(()) if is_at(&file, &path) => return Ok(Self { path, _file: file }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                // Some file systems know no locks; then it is for the user to prepare once at a time.
                Err(TryLockError::Error(error)) if knows_none(&error) => {
                    tracing::warn!(
                        path = %path.display(),
                        %error,
                        "the file system has no locks: nothing else may prepare this folder now"
                    );
                    return Ok(Self { path, _file: file });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(DataError::io("lock", &path)(error));
                }
            }
        }
        Err(DataError::BeingPrepared {
            path: out.to_path_buf(),
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the lock itself is given up with the file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether an open file is still the one of this name.
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
        // There an open file keeps its name.
        let _ = (file, path);
        true
    }
}

/// Folders above an output that had to be made. Where the output does not come, they go again.
#[derive(Debug)]
struct Parents {
    /// Innermost first.
    made: Vec<PathBuf>,
}

impl Parents {
    fn make(parent: &Path) -> Result<Self, DataError> {
        let missing = |folder: &&Path| *folder != Path::new("") && !folder.exists();
        let made = parent.ancestors().take_while(missing);
        let parents = Self {
            made: made.map(Path::to_path_buf).collect(),
        };
        fs::create_dir_all(parent).map_err(DataError::io("create", parent))?;
        Ok(parents)
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for folder in &self.made {
            // Folders that hold something are not removed, and some may not have come to be.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn check_ours(out: &Path) -> Result<(), DataError> {
    let is_empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.join(META_FILE).is_file() || is_empty() {
        return Ok(());
    }
    Err(DataError::OutputNotOurs {
        path: out.to_path_buf(),
    })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The hidden name beside an output that goes with it.
fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(".");
    name.push(ending);
    parent(out).join(name)
}

fn hidden_folder(parent: &Path, prefix: &str) -> Result<TempDir, DataError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(DataError::io("create a folder in", parent))
}

/// Makes the names in a folder durable. Only Unix has a way to say so.
pub(super) fn sync(folder: &Path) -> Result<(), DataError> {
    #[cfg(unix)]
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(DataError::io("write", folder))?;
    let _ = folder;
    Ok(())
}

/// Whether a lock failed because there are none: ENOLCK is what a network file system without its lock service answers.
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
