//! Reading one shard through a memory map.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{HEADER, Header, ShardSpec};
use crate::DataError;

/// A shard with a checked header and size. Its rows are read from disk on access.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    map: Mmap,
    spec: ShardSpec,
    rows: u64,
    checksum: u32,
}

impl Shard {
    /// Opens a shard that must have this specification and number of rows.
    pub(crate) fn open(path: PathBuf, spec: &ShardSpec, rows: u64) -> Result<Self, DataError> {
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DataError::MissingShard { path });
            }
            file => file.map_err(DataError::io("read", &path))?,
        };
        let map = map(&file).map_err(DataError::io("map", &path))?;
        let header = Header::parse(&map, &path)?;
        check(&header, spec, rows, &path)?;
        let payload = usize::try_from(rows)
            .ok()
            .and_then(|rows| rows.checked_mul(spec.row_bytes()))
            .and_then(|bytes| bytes.checked_add(HEADER))
            .unwrap_or(usize::MAX);
        if map.len() != payload {
            return Err(DataError::WrongSize {
                path,
                expected: payload as u64,
                found: map.len() as u64,
            });
        }
        Ok(Self {
            path,
            map,
            spec: spec.clone(),
            rows,
            checksum: header.checksum,
        })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends a row to `out`. The row number must be below the number of rows.
    pub(crate) fn read(&self, row: usize, out: &mut Vec<u32>) -> Result<(), DataError> {
        let bytes = self.spec.row_bytes();
        let start = HEADER + row * bytes;
        let bytes = &self.map[start..start + bytes];
        let first = out.len();
        if self.spec.token_bytes() == 2 {
            let tokens = bytes.chunks_exact(2);
            out.extend(tokens.map(|token| u32::from(u16::from_le_bytes([token[0], token[1]]))));
        } else {
            let tokens = bytes.chunks_exact(4);
            out.extend(
                tokens.map(|token| u32::from_le_bytes([token[0], token[1], token[2], token[3]])),
            );
        }
        match out[first..]
            .iter()
            .find(|&&token| token >= self.spec.vocabulary)
        {
            Some(&found) => Err(DataError::TokenOutOfRange {
                path: self.path.clone(),
                row: row as u64,
                found,
                vocabulary: self.spec.vocabulary,
            }),
            None => Ok(()),
        }
    }

    /// Verifies the checksum of all rows, and every token.
    pub(crate) fn verify(&self) -> Result<(), DataError> {
        let found = crc32fast::hash(&self.map[HEADER..]);
        if found != self.checksum {
            return Err(DataError::Checksum {
                path: self.path.clone(),
                expected: self.checksum,
                found,
            });
        }
        let mut row = Vec::with_capacity(self.spec.length as usize);
        for index in 0..self.rows as usize {
            row.clear();
            self.read(index, &mut row)?;
        }
        Ok(())
    }
}

/// The header fields of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// The number of rows.
    pub rows: u64,
    /// The number of tokens in a row.
    pub length: u32,
    /// The number of bits in a token: 16 or 32.
    pub bits: u32,
    /// The vocabulary size.
    pub vocabulary: u32,
    /// SHA-256 of the tokenizer, in hexadecimal.
    pub tokenizer_hash: String,
}

impl ShardInfo {
    /// Reads the header of a shard and checks the file size against it. Does not check the rows.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a shard, or has a different size than
    /// its header declares.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let mut bytes = Vec::with_capacity(HEADER);
        let file = File::open(path).map_err(DataError::io("read", path))?;
        let size = file.metadata().map_err(DataError::io("read", path))?.len();
        file.take(HEADER as u64)
            .read_to_end(&mut bytes)
            .map_err(DataError::io("read", path))?;
        let header = Header::parse(&bytes, path)?;
        let row = u64::from(header.length) * u64::from(header.bits / 8);
        let expected = (header.rows.checked_mul(row))
            .and_then(|rows| rows.checked_add(HEADER as u64))
            .unwrap_or(u64::MAX);
        if size != expected {
            return Err(DataError::WrongSize {
                path: path.to_path_buf(),
                expected,
                found: size,
            });
        }
        Ok(Self {
            rows: header.rows,
            length: header.length,
            bits: header.bits,
            vocabulary: header.vocabulary,
            tokenizer_hash: header.tokenizer_hash,
        })
    }
}

fn check(header: &Header, spec: &ShardSpec, rows: u64, path: &Path) -> Result<(), DataError> {
    let same = |field, expected: String, found: String| {
        if expected == found {
            return Ok(());
        }
        Err(DataError::Mismatch {
            path: path.to_path_buf(),
            field,
            expected,
            found,
        })
    };
    let number =
        |field, expected: u64, found: u64| same(field, expected.to_string(), found.to_string());
    number(
        "vocabulary size",
        spec.vocabulary.into(),
        header.vocabulary.into(),
    )?;
    number("row length", spec.length.into(), header.length.into())?;
    number("bits a token", spec.bits().into(), header.bits.into())?;
    number("row count", rows, header.rows)?;
    same(
        "tokenizer hash",
        spec.tokenizer_hash.clone(),
        header.tokenizer_hash.clone(),
    )
}

/// Maps a file for reading.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: a map is sound while the file does not change. Shards are never changed in place:
    // they are written in a folder that is renamed when it is complete. A replaced folder is
    // unlinked, which leaves the mapped file intact. Every access goes through slices of the mapped
    // length, and every bit pattern is a valid token number.
    unsafe { Mmap::map(file) }
}
