//! A copy of a data set that is there already.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::source::{HUB, matches};
use super::{Manifest, ManifestError, Source, SourceFile, Wanted};
use crate::dataset::TOKENIZER_FILE;

/// The files of a data set on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFiles {
    /// The files to train on, in the order in which they are read.
    pub train: Vec<PathBuf>,
    /// The files to validate on; none unless the manifest has files for it.
    pub validation: Vec<PathBuf>,
    /// The `tokenizer.json`, if the manifest has one and it is there.
    pub tokenizer: Option<PathBuf>,
}

impl Manifest {
    /// Finds the files in a copy of the data set. Nothing is copied or changed.
    ///
    /// `from` is a folder that holds them as `fetch` lays them out (`train/…`, `validation/…`,
    /// `tokenizer.json`), or as their repository does, or side by side; or the file itself of a data set that has only one.
    /// A `tokenizer.json` may be missing: what then is the caller's to say.
    ///
    /// # Errors
    /// [`ManifestError::Missing`] with all that is not there and where it is published;
    /// [`ManifestError::NotTheFile`] for a file whose size or checksum is not that of the manifest.
    pub fn take(&self, from: &Path) -> Result<DataFiles, ManifestError> {
        let mut missing = Vec::new();
        let mut taken: Vec<PathBuf> = Vec::new();
        let mut splits: [Vec<PathBuf>; 2] = Default::default();
        let all = self.train.len() + self.validation.len();
        for ((split, sources), files) in self.splits().into_iter().zip(&mut splits) {
            for source in sources {
                let found = if from.is_file() && all == 1 {
                    vec![from.to_path_buf()]
                } else {
                    candidates(from, split, source)
                        .map_err(|(path, source)| ManifestError::Io { path, source })?
                };
                // Side by side, a name may be that of a file of the other split.
                let is_taken = found.iter().any(|path| taken.contains(path));
                if is_taken || !source.is_complete(found.len()) {
                    missing.push(source.wanted(HUB, &from.join(split)));
                    continue;
                }
                taken.extend(found.iter().cloned());
                for path in &found {
                    self.check(path, source)?;
                }
                files.extend(found);
            }
        }
        if !missing.is_empty() {
            return Err(ManifestError::Missing {
                name: self.name.clone(),
                from: from.to_path_buf(),
                missing,
            });
        }
        let tokenizer = from.join(TOKENIZER_FILE);
        let wants_tokenizer = self.tokenizer.file().is_some();
        let [train, validation] = splits;
        Ok(DataFiles {
            train,
            validation,
            tokenizer: (wants_tokenizer && tokenizer.is_file()).then_some(tokenizer),
        })
    }

    /// Compares a file with what the manifest knows of it.
    fn check(&self, path: &Path, source: &SourceFile) -> Result<(), ManifestError> {
        let io = |source| ManifestError::Io {
            path: path.to_path_buf(),
            source,
        };
        let differs = |what, found: String, expected: String| ManifestError::NotTheFile {
            path: path.to_path_buf(),
            name: self.name.clone(),
            what,
            found,
            expected,
        };
        let found = fs::metadata(path).map_err(io)?.len();
        if let Some(expected) = source.bytes.filter(|&expected| expected != found) {
            return Err(differs("bytes", found.to_string(), expected.to_string()));
        }
        if let Some(expected) = &source.sha256 {
            let found = sha256(path).map_err(io)?;
            if found != *expected {
                return Err(differs("SHA-256", found, expected.clone()));
            }
        }
        Ok(())
    }
}

impl SourceFile {
    /// For lists of what to bring: the place in the folder of its split.
    pub(crate) fn wanted(&self, endpoint: &str, folder: &Path) -> Wanted {
        Wanted {
            from: self.address_on(endpoint),
            to: folder.join(self.file_name()),
        }
    }
}

/// The files of a source, in the first of the three arrangements that has any.
pub(crate) fn candidates(
    from: &Path,
    split: &str,
    source: &SourceFile,
) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut places = vec![(from.join(split), source.file_name())];
    if let Source::Hub { path, .. } = &source.source {
        places.push((from.to_path_buf(), path));
    }
    places.push((from.to_path_buf(), source.file_name()));
    for (folder, pattern) in places {
        let mut found = Vec::new();
        if source.is_pattern() {
            walk(&folder, "", pattern, &mut found)?;
        } else if folder.join(pattern).is_file() {
            found.push(folder.join(pattern));
        }
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The files below a folder whose path from there matches. A folder that is not there has none.
fn walk(
    folder: &Path,
    below: &str,
    pattern: &str,
    found: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    let depth = pattern.matches('/').count();
    if !folder.is_dir() {
        return Ok(());
    }
    let failed = |error| (folder.to_path_buf(), error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let path = entry.path();
        if hidden {
            continue;
        } else if path.is_dir() {
            if name.matches('/').count() < depth {
                walk(&path, &format!("{name}/"), pattern, found)?;
            }
        } else if matches(pattern, &name) {
            found.push(path);
        }
    }
    Ok(())
}

/// The hash of a file, in lower-case hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&block[..read]),
        }
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
