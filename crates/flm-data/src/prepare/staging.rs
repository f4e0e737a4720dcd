//! A folder that appears whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::DataError;
use crate::dataset::META_FILE;

/// A hidden folder beside the output, deleted on drop unless it was committed.
#[derive(Debug)]
pub(super) struct Staging {
    out: PathBuf,
    // Before the parents, for they go only when they are empty.
    folder: TempDir,
    _parents: Parents,
    replaces: bool,
}

impl Staging {
    /// Checks that the output may be written and makes the folder beside it.
    pub(super) fn begin(out: &Path, force: bool) -> Result<Self, DataError> {
        let replaces = fs::symlink_metadata(out).is_ok();
        let out = if replaces {
            if !force {
                return Err(DataError::OutputExists {
                    path: out.to_path_buf(),
                });
            }
            // Through a link, the folder behind it is replaced and not the link.
            let out = fs::canonicalize(out).map_err(DataError::io("read", out))?;
            check_ours(&out)?;
            out
        } else {
            out.to_path_buf()
        };
        let parent = parent(&out);
        let parents = Parents::make(parent)?;
        Ok(Self {
            folder: hidden_folder(parent, ".flm-data-")?,
            _parents: parents,
            out,
            replaces,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts the folder in its place. An older one there is set aside first and deleted last; should
    /// the machine stop between the two renames, it is in a folder `.flm-old-…` beside the output.
    pub(super) fn commit(self) -> Result<(), DataError> {
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
        sync(parent)?;
        let _ = self.folder.keep();
        Ok(())
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

fn hidden_folder(parent: &Path, prefix: &str) -> Result<TempDir, DataError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(DataError::io("create a folder in", parent))
}

/// Makes the names in a folder durable. Only Unix has a way to say so.
fn sync(folder: &Path) -> Result<(), DataError> {
    #[cfg(unix)]
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(DataError::io("write", folder))?;
    let _ = folder;
    Ok(())
}
