//! A folder that appears whole or not at all.

use super::{CONFIG_FILE, Existing, FolderError, io_error};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A hidden folder beside its place, deleted unless it is put there.
pub struct Staging {
    place: PathBuf,
    folder: TempDir,
    replaces: bool,
}

impl Staging {
    /// Checks that the place may be written and makes the hidden folder.
    ///
    /// # Errors
    ///
    /// [`FolderError::Exists`] or [`FolderError::NotAModel`] if what is there is not to be replaced, [`FolderError::Io`] if the system refuses.
    pub fn begin(place: &Path, existing: Existing) -> Result<Self, FolderError> {
        let replaces = fs::symlink_metadata(place).is_ok();
        let mut place = place.to_path_buf();
        if replaces {
            if existing == Existing::Refuse {
                return Err(FolderError::Exists { path: place });
            }
            // Through a link, the folder behind it is replaced and not the link.
            place = fs::canonicalize(&place).map_err(io_error("read", &place))?;
            if !place.join(CONFIG_FILE).is_file() && !is_empty_folder(&place) {
                return Err(FolderError::NotAModel { path: place });
            }
        }
        let parent = parent(&place);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let folder = hidden_folder(parent, ".flm-model-")?;
        Ok(Self {
            place,
            folder,
            replaces,
        })
    }

    /// Makes a folder inside the folder.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`] if the system refuses.
    pub fn folder(&self, name: &Path) -> Result<(), FolderError> {
        let path = self.path(name);
        fs::create_dir(&path).map_err(io_error("create", &path))
    }

    /// Writes a file of the folder and waits until it is on the disk.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`] if the system refuses.
    pub fn write(&self, name: &Path, content: &[u8]) -> Result<(), FolderError> {
        let path = self.folder.path().join(name);
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(io_error("write", &path))
    }

    /// Where `name` lies for now, for a writer of its own; [`sync`](Self::sync) it afterwards.
    pub fn path(&self, name: &Path) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until a file of the folder is on the disk.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`] if the system refuses.
    pub fn sync(&self, name: &Path) -> Result<(), FolderError> {
        let path = self.path(name);
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.sync_all())
            .map_err(io_error("write", &path))
    }

    /// Puts the folder in its place. An older one there is set aside first and deleted last; should the machine stop between
    /// the two renames, it is in a folder `.flm-old-…` beside the place.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`] if the system refuses.
    pub fn commit(self) -> Result<(), FolderError> {
        let (from, place) = (self.folder.path(), self.place.as_path());
        set_usual_permissions(from)?;
        for inner in fs::read_dir(from).map_err(io_error("read", from))? {
            let path = inner.map_err(io_error("read", from))?.path();
            if path.is_dir() {
                sync_folder(&path)?;
            }
        }
        sync_folder(from)?;
        let parent = parent(place);
        if self.replaces {
            let aside = hidden_folder(parent, ".flm-old-")?;
            let old = aside.path().join("model");
            fs::rename(place, &old).map_err(io_error("rename", place))?;
            if let Err(error) = fs::rename(from, place) {
                if fs::rename(&old, place).is_err() {
                    // Rather a folder too many than the only model lost.
                    let _ = aside.keep();
                }
                return Err(io_error("create", place)(error));
            }
        } else {
            fs::rename(from, place).map_err(io_error("create", place))?;
        }
        sync_folder(parent)?;
        let _ = self.folder.keep();
        Ok(())
    }
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn hidden_folder(parent: &Path, prefix: &str) -> Result<TempDir, FolderError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(io_error("create a folder in", parent))
}

/// A temporary folder is its owner's alone; a model is read by whom the parent folder lets in.
fn set_usual_permissions(folder: &Path) -> Result<(), FolderError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let probe = folder.join(".permissions");
        fs::create_dir(&probe).map_err(io_error("create", &probe))?;
        let mode = fs::metadata(&probe)
            .map_err(io_error("read", &probe))?
            .permissions()
            .mode();
        fs::remove_dir(&probe).map_err(io_error("remove", &probe))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))
            .map_err(io_error("write", folder))?;
    }
    let _ = folder;
    Ok(())
}

/// Makes the names in a folder durable. Only Unix has a way to say so.
fn sync_folder(folder: &Path) -> Result<(), FolderError> {
    #[cfg(unix)]
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("write", folder))?;
    let _ = folder;
    Ok(())
}
