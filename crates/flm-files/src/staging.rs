//! Folders that appear complete or not at all.

use crate::lock::Lock;
use crate::{FileError, StagingError, parent, sync_file, sync_folder};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What to do with an existing folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Return an error.
    Refuse,
    /// Replace a folder of the same kind or an empty one; return an error for anything else.
    Replace,
}

/// A hidden folder next to its destination, deleted on drop unless committed or kept.
#[derive(Debug)]
pub struct Staging {
    place: PathBuf,
    folder: PathBuf,
    keep: bool,
    replaces: bool,
    // Dropped after the folder and before the parent folders, which are removed only if empty.
    _lock: Option<Lock>,
    _parents: Parents,
}

impl Staging {
    /// Checks that the destination may be written, and creates a hidden folder.
    ///
    /// `is_ours` returns `true` if an existing destination is of the same kind.
    ///
    /// # Errors
    ///
    /// [`StagingError::Exists`] or [`StagingError::NotOurs`] if the destination may not be
    /// replaced, [`StagingError::File`] on an I/O error.
    pub fn begin(
        place: &Path,
        existing: Existing,
        is_ours: impl Fn(&Path) -> bool,
    ) -> Result<Self, StagingError> {
        let (named, place) = (place, resolved(place)?);
        let replaces = check(named, &place, existing, is_ours)?;
        let parents = Parents::make(parent(&place))?;
        let folder = hidden_folder(parent(&place), ".flm-new-")?.keep();
        Ok(Self {
            place,
            folder,
            keep: false,
            replaces,
            _lock: None,
            _parents: parents,
        })
    }

    /// Like [`begin`](Self::begin), with a folder of the fixed name `.NAME.preparing`, which may
    /// exist from an earlier attempt.
    ///
    /// A lock prevents other processes from writing the same destination.
    ///
    /// # Errors
    ///
    /// The errors of [`begin`](Self::begin), and [`StagingError::Locked`].
    pub fn resumable(
        place: &Path,
        existing: Existing,
        is_ours: impl Fn(&Path) -> bool,
    ) -> Result<Self, StagingError> {
        let (named, place) = (place, resolved(place)?);
        let parents = Parents::make(parent(&place))?;
        let lock = Lock::take(&place, beside(&place, "lock"), File::try_lock)?;
        // Another process may have committed while this one waited for the lock.
        let replaces = check(named, &place, existing, is_ours)?;
        let folder = beside(&place, "preparing");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(FileError::of("create", &folder)(error).into());
            }
            _ => {}
        }
        Ok(Self {
            place,
            folder,
            keep: false,
            replaces,
            _lock: Some(lock),
            _parents: parents,
        })
    }

    /// Returns the current path of the file `name`, or of the folder itself for an empty name.
    ///
    /// Call [`sync`](Self::sync) for files written to this path.
    pub fn path(&self, name: &Path) -> PathBuf {
        if name == Path::new("") {
            return self.folder.clone();
        }
        self.folder.join(name)
    }

    /// Creates a subfolder.
    ///
    /// # Errors
    ///
    /// On an I/O error.
    pub fn folder(&self, name: &Path) -> Result<(), FileError> {
        let path = self.path(name);
        fs::create_dir(&path).map_err(FileError::of("create", &path))
    }

    /// Writes a file in the folder and syncs it to disk.
    ///
    /// # Errors
    ///
    /// On an I/O error.
    pub fn write(&self, name: &Path, content: &[u8]) -> Result<(), FileError> {
        let path = self.path(name);
        File::create(&path)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(FileError::of("write", &path))
    }

    /// Syncs a file in the folder to disk.
    ///
    /// # Errors
    ///
    /// On an I/O error.
    pub fn sync(&self, name: &Path) -> Result<(), FileError> {
        let path = self.path(name);
        sync_file(&path).map_err(FileError::of("write", &path))
    }

    /// Removes the files of an earlier attempt.
    ///
    /// # Errors
    ///
    /// On an I/O error.
    pub fn clear(&self) -> Result<(), FileError> {
        fs::remove_dir_all(&self.folder).map_err(FileError::of("remove", &self.folder))?;
        fs::create_dir(&self.folder).map_err(FileError::of("create", &self.folder))
    }

    /// Keeps the folder on drop, for another attempt.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Moves the folder to its destination.
    ///
    /// An existing folder is first renamed and deleted last. If the machine stops between the two
    /// renames, the old folder is inside a folder `.flm-old-…` next to the destination.
    ///
    /// # Errors
    ///
    /// On an I/O error.
    pub fn commit(mut self) -> Result<(), FileError> {
        let (from, place) = (self.folder.as_path(), self.place.as_path());
        set_usual_permissions(from)?;
        for inner in fs::read_dir(from).map_err(FileError::of("read", from))? {
            let path = inner.map_err(FileError::of("read", from))?.path();
            if path.is_dir() {
                sync_folder(&path)?;
            }
        }
        sync_folder(from)?;
        let parent = parent(place);
        if self.replaces {
            let aside = hidden_folder(parent, ".flm-old-")?;
            let old = aside.path().join(place.file_name().unwrap_or_default());
            fs::rename(place, &old).map_err(FileError::of("rename", place))?;
            if let Err(error) = fs::rename(from, place) {
                if fs::rename(&old, place).is_err() {
                    // Keep the old folder rather than lose the only copy.
                    let _ = aside.keep();
                }
                return Err(FileError::of("create", place)(error));
            }
        } else {
            fs::rename(from, place).map_err(FileError::of("create", place))?;
        }
        sync_folder(parent)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // A folder that cannot be removed is resumed or cleared next time.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Resolves symbolic links, so that the target folder is replaced and not the link.
fn resolved(place: &Path) -> Result<PathBuf, FileError> {
    match fs::symlink_metadata(place) {
        Ok(_) => fs::canonicalize(place).map_err(FileError::of("read", place)),
        Err(_) => Ok(place.to_path_buf()),
    }
}

/// Returns whether the destination exists, or an error if it may not be replaced.
fn check(
    named: &Path,
    place: &Path,
    existing: Existing,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<bool, StagingError> {
    if fs::symlink_metadata(place).is_err() {
        return Ok(false);
    }
    if existing == Existing::Refuse {
        let path = named.to_path_buf();
        return Err(StagingError::Exists { path });
    }
    let is_empty = || fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    if !is_ours(place) && !is_empty() {
        let path = place.to_path_buf();
        return Err(StagingError::NotOurs { path });
    }
    Ok(true)
}

/// Parent folders that were created for an output. Those that are empty are removed on drop.
#[derive(Debug)]
struct Parents {
    /// Innermost first.
    made: Vec<PathBuf>,
}

impl Parents {
    fn make(parent: &Path) -> Result<Self, FileError> {
        let missing = |folder: &&Path| *folder != Path::new("") && !folder.exists();
        let made = parent.ancestors().take_while(missing);
        let parents = Self {
            made: made.map(Path::to_path_buf).collect(),
        };
        fs::create_dir_all(parent).map_err(FileError::of("create", parent))?;
        Ok(parents)
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for folder in &self.made {
            // Fails for folders that are not empty or were not created.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Returns the hidden path `.NAME.ending` next to an output.
fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(".");
    name.push(ending);
    parent(out).join(name)
}

fn hidden_folder(parent: &Path, prefix: &str) -> Result<TempDir, FileError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(FileError::of("create a folder in", parent))
}

/// Sets the default permissions on a folder. Without this, a temporary folder is accessible only to
/// its owner.
fn set_usual_permissions(folder: &Path) -> Result<(), FileError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let probe = folder.join(".permissions");
        fs::create_dir(&probe).map_err(FileError::of("create", &probe))?;
        let mode = fs::metadata(&probe)
            .map_err(FileError::of("read", &probe))?
            .permissions()
            .mode();
        fs::remove_dir(&probe).map_err(FileError::of("remove", &probe))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))
            .map_err(FileError::of("write", folder))?;
    }
    let _ = folder;
    Ok(())
}
