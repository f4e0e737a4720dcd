//! A folder that appears whole or not at all.

use crate::lock::Lock;
use crate::{FileError, StagingError, parent, sync_file, sync_folder};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What to do with a folder that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Refuse,
    /// A folder of the same kind, or an empty one, is replaced; anything else is an error.
    Replace,
}

/// A hidden folder beside its place, deleted on drop unless it was put there or kept.
#[derive(Debug)]
pub struct Staging {
    place: PathBuf,
    folder: PathBuf,
    keep: bool,
    replaces: bool,
    // Released after the folder, and before the folders above it, which go only when they are empty.
    _lock: Option<Lock>,
    _parents: Parents,
}

impl Staging {
    /// Checks that the place may be written, and makes a hidden folder. `is_ours` says whether what is there is of the same kind.
    ///
    /// # Errors
    ///
    /// [`StagingError::Exists`] or [`StagingError::NotOurs`] if what is there is not to be replaced, [`StagingError::File`] if the system
    /// refuses.
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

    /// The same with a folder of a fixed name, `.NAME.preparing`, which may be there from an earlier try. It is locked: no other process
    /// writes the same place.
    ///
    /// # Errors
    ///
    /// As those of [`begin`](Self::begin), and [`StagingError::Locked`].
    pub fn resumable(
        place: &Path,
        existing: Existing,
        is_ours: impl Fn(&Path) -> bool,
    ) -> Result<Self, StagingError> {
        let (named, place) = (place, resolved(place)?);
        let parents = Parents::make(parent(&place))?;
        let lock = Lock::take(&place, beside(&place, "lock"), File::try_lock)?;
        // Another process may have completed it until the lock was free.
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

    /// Where `name` lies for now; the empty name is the folder itself. [`sync`](Self::sync) what is written there.
    pub fn path(&self, name: &Path) -> PathBuf {
        if name == Path::new("") {
            return self.folder.clone();
        }
        self.folder.join(name)
    }

    /// Makes a folder inside the folder.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn folder(&self, name: &Path) -> Result<(), FileError> {
        let path = self.path(name);
        fs::create_dir(&path).map_err(FileError::of("create", &path))
    }

    /// Writes a file of the folder and waits until it is on the disk.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn write(&self, name: &Path, content: &[u8]) -> Result<(), FileError> {
        let path = self.path(name);
        File::create(&path)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(FileError::of("write", &path))
    }

    /// Waits until a file of the folder is on the disk.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn sync(&self, name: &Path) -> Result<(), FileError> {
        let path = self.path(name);
        sync_file(&path).map_err(FileError::of("write", &path))
    }

    /// Removes what an earlier try left.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn clear(&self) -> Result<(), FileError> {
        fs::remove_dir_all(&self.folder).map_err(FileError::of("remove", &self.folder))?;
        fs::create_dir(&self.folder).map_err(FileError::of("create", &self.folder))
    }

    /// Leaves the folder for another try.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Puts the folder in its place. An older one there is set aside first and deleted last; should the machine stop between
    /// the two renames, it is in a folder `.flm-old-…` beside the place.
    ///
    /// # Errors
    ///
    /// If the system refuses.
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
                    // Rather a folder too many than the only one lost.
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
            // What cannot be removed is resumed, or cleared, the next time.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The place itself: through a link, the folder behind it is replaced and not the link.
fn resolved(place: &Path) -> Result<PathBuf, FileError> {
    match fs::symlink_metadata(place) {
        Ok(_) => fs::canonicalize(place).map_err(FileError::of("read", place)),
        Err(_) => Ok(place.to_path_buf()),
    }
}

/// Whether there is something to replace, and it may be.
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

/// Folders above an output that had to be made. Where the output does not come, they go again.
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
            // Folders that hold something are not removed, and some may not have come to be.
            let _ = fs::remove_dir(folder);
        }
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

fn hidden_folder(parent: &Path, prefix: &str) -> Result<TempDir, FileError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(FileError::of("create a folder in", parent))
}

/// A temporary folder is its owner's alone; a model is read by whom the parent folder lets in.
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
