//! Local copies of a data set.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::source::{HUB, matches};
use super::{Manifest, ManifestError, Source, SourceFile, Wanted};
use crate::dataset::TOKENIZER_FILE;

/// The local files of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFiles {
    /// The training files, in reading order.
    pub train: Vec<PathBuf>,
    /// The validation files; empty unless the manifest lists any.
    pub validation: Vec<PathBuf>,
    /// The `tokenizer.json`, if the manifest names one and it is present.
    pub tokenizer: Option<PathBuf>,
}

impl Manifest {
    /// Finds the files of the data set in a local copy. Copies and changes nothing.
    ///
    /// `from` is a folder with the files arranged as by `fetch` (`train/…`, `validation/…`,
    /// `tokenizer.json`), as in their repository, or all in one folder. For a data set with only
    /// one file it can also be that file. A missing `tokenizer.json` is not an error; the caller
    /// decides how to handle it.
    ///
    /// # Errors
    /// - [`ManifestError::Missing`] lists all missing files and where they are published.
    /// - [`ManifestError::NotTheFile`] reports a file whose size or checksum differs from the
    ///   manifest.
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
                // In one folder, files of the two splits can have the same name.
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

    /// Compares a file with its size and checksum in the manifest.
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
    /// Returns the entry for a list of missing files, with the target path in the folder of the
    /// split.
    pub(crate) fn wanted(&self, endpoint: &str, folder: &Path) -> Wanted {
        Wanted {
            from: self.address_on(endpoint),
            to: folder.join(self.file_name()),
        }
    }
}

/// Returns the files of a source, from the first of the three arrangements that contains any.
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

/// Collects the files below a folder whose relative path matches. A missing folder has no files.
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

/// Returns the SHA-256 of a file, in lower-case hexadecimal digits.
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

/// Formats bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
