//! Writing the shards of one split.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ShardMeta;
use super::{HEADER, Header, ShardSpec};
use crate::DataError;

/// Writes rows to `split-00000.bin`, `split-00001.bin`, … in a folder.
#[derive(Debug)]
pub(crate) struct ShardWriter {
    folder: PathBuf,
    split: &'static str,
    spec: ShardSpec,
    rows_per_shard: u64,
    open: Option<Open>,
    shards: Vec<ShardMeta>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    checksum: crc32fast::Hasher,
    rows: u64,
}

/// The state of the written shards at a moment when all of it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriterState {
    /// The complete shards.
    shards: Vec<ShardMeta>,
    open: Option<OpenState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenState {
    rows: u64,
    /// CRC-32 of these rows.
    checksum: u32,
}

impl WriterState {
    /// Returns the total number of rows, saturating at `u64::MAX`.
    pub(crate) fn rows(&self) -> u64 {
        let open = self.open.map_or(0, |open| open.rows);
        let rows = self.shards.iter().map(|shard| shard.rows);
        rows.fold(open, u64::saturating_add)
    }

    /// Returns the file names, in order.
    fn files<'a>(&'a self, split: &'a str) -> impl Iterator<Item = String> + 'a {
        (0..self.shards.len() + usize::from(self.open.is_some())).map(|n| name(split, n))
    }
}

fn name(split: &str, number: usize) -> String {
    format!("{split}-{number:05}.bin")
}

impl ShardWriter {
    pub(crate) fn new(
        folder: PathBuf,
        split: &'static str,
        spec: ShardSpec,
        rows_per_shard: u64,
    ) -> Self {
        Self {
            folder,
            split,
            spec,
            rows_per_shard,
            open: None,
            shards: Vec::new(),
        }
    }

    /// Appends a row, which must have the row length of the shards.
    pub(crate) fn push(&mut self, row: &[u32]) -> Result<(), DataError> {
        debug_assert_eq!(row.len(), self.spec.length as usize);
        let bytes: Vec<u8> = match self.spec.bits() {
            // The tokenizer yields only tokens of its vocabulary, which fit in 16 bits.
            16 => row.iter().flat_map(|&t| (t as u16).to_le_bytes()).collect(),
            _ => row.iter().flat_map(|&t| t.to_le_bytes()).collect(),
        };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        open.checksum.update(&bytes);
        open.file
            .write_all(&bytes)
            .map_err(DataError::io("write", &open.path))?;
        open.rows += 1;
        if open.rows == self.rows_per_shard {
            self.end(open)?;
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    /// Completes the last shard and returns all shards.
    pub(crate) fn finish(mut self) -> Result<Vec<ShardMeta>, DataError> {
        if let Some(open) = self.open.take() {
            self.end(open)?;
        }
        Ok(self.shards)
    }

    /// Flushes all rows to disk and returns the state.
    pub(crate) fn save(&mut self) -> Result<WriterState, DataError> {
        let mut state = WriterState {
            shards: self.shards.clone(),
            open: None,
        };
        if let Some(open) = &mut self.open {
            open.file
                .flush()
                .and_then(|()| open.file.get_ref().sync_data())
                .map_err(DataError::io("write", &open.path))?;
            state.open = Some(OpenState {
                rows: open.rows,
                checksum: open.checksum.clone().finalize(),
            });
        }
        Ok(state)
    }

    /// Resumes from a state. Truncates files that contain more than the state records, and removes
    /// files that it does not list. The error describes how files and state disagree.
    pub(crate) fn resume(&mut self, state: WriterState) -> Result<(), String> {
        let known: Vec<String> = state.files(self.split).collect();
        let size = |rows: u64| {
            let bytes = rows.checked_mul(self.spec.row_bytes() as u64);
            bytes.and_then(|bytes| bytes.checked_add(HEADER as u64))
        };
        for (shard, expected) in state.shards.iter().zip(&known) {
            let found = fs::metadata(self.folder.join(expected))
                .map(|file| file.len())
                .ok();
            let is_full = shard.rows == self.rows_per_shard && shard.file == *expected;
            if !is_full || found.is_none() || found != size(shard.rows) {
                return Err(format!("the shard {expected} has changed"));
            }
        }
        if let (Some(open), Some(file)) = (state.open, known.last()) {
            let path = self.folder.join(file);
            let size = size(open.rows)
                .filter(|_| (1..self.rows_per_shard).contains(&open.rows))
                .ok_or_else(|| format!("{} rows in the open shard {file}", open.rows))?;
            let file = reopen(&path, size, open.checksum)
                .map_err(|error| format!("the shard {file} cannot be continued: {error}"))?;
            self.open = Some(Open {
                path,
                file: BufWriter::new(file),
                checksum: crc32fast::Hasher::new_with_initial_len(
                    open.checksum,
                    size - HEADER as u64,
                ),
                rows: open.rows,
            });
        }
        self.shards = state.shards;
        self.remove_others(&known)
            .map_err(|error| error.to_string())
    }

    /// Removes the shards of this split that are not in the list.
    fn remove_others(&self, known: &[String]) -> std::io::Result<()> {
        let prefix = format!("{}-", self.split);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && !known.contains(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<Open, DataError> {
        let path = self.folder.join(name(self.split, self.shards.len()));
        let mut file = File::create_new(&path)
            .map(BufWriter::new)
            .map_err(DataError::io("create", &path))?;
        // The checksum is not known yet, so the header is written at the end.
        file.write_all(&[0; HEADER])
            .map_err(DataError::io("write", &path))?;
        Ok(Open {
            path,
            file,
            checksum: crc32fast::Hasher::new(),
            rows: 0,
        })
    }

    fn end(&mut self, open: Open) -> Result<(), DataError> {
        let Open {
            path,
            mut file,
            checksum,
            rows,
        } = open;
        let header = Header {
            bits: self.spec.bits(),
            vocabulary: self.spec.vocabulary,
            length: self.spec.length,
            rows,
            tokenizer_hash: self.spec.tokenizer_hash.clone(),
            checksum: checksum.finalize(),
        };
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&header.to_bytes()))
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .map_err(DataError::io("write", &path))?;
        let name = path.file_name().unwrap_or_default();
        self.shards.push(ShardMeta {
            file: name.to_string_lossy().into_owned(),
            rows,
        });
        Ok(())
    }
}

/// Opens a shard at the end of its first `size` bytes, and truncates the rest. The rows in these
/// bytes must have the expected checksum.
fn reopen(path: &Path, size: u64, expected: u32) -> std::io::Result<File> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut checksum = crc32fast::Hasher::new();
    let mut left = size - HEADER as u64;
    let mut buffer = vec![0; 1 << 16];
    file.seek(SeekFrom::Start(HEADER as u64))?;
    while left > 0 {
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..wanted])?;
        checksum.update(&buffer[..wanted]);
        left -= wanted as u64;
    }
    if checksum.finalize() != expected {
        return Err(std::io::Error::other("its rows are damaged"));
    }
    file.set_len(size)?;
    file.seek(SeekFrom::Start(size))?;
    Ok(file)
}
