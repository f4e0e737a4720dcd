//! Token shards: files of rows after a fixed header.
//!
//! All numbers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | the mark `FLMSHARD` |
//! | 8..12 | format version, 1 |
//! | 12..16 | bits of a token: 16 for vocabularies of at most 65,536 tokens, else 32 |
//! | 16..20 | vocabulary size |
//! | 20..24 | row length in tokens |
//! | 24..32 | number of rows |
//! | 32..64 | hash of the tokenizer (SHA-256) |
//! | 64..68 | CRC-32 of all that follows the header |
//! | 68..128 | zero |
//! | 128.. | the rows, one after the other |

mod read;
mod write;

use serde::{Deserialize, Serialize};
use std::path::Path;

/// A shard of a split, as listed in `dataset.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMeta {
    /// The file name in the data folder.
    pub file: String,
    /// The number of rows.
    pub rows: u64,
}

pub(crate) use read::Shard;
pub use read::ShardInfo;
pub(crate) use write::{ShardWriter, WriterState};

use crate::DataError;

pub(crate) const MAGIC: &[u8; 8] = b"FLMSHARD";
pub(crate) const SHARD_VERSION: u32 = 1;
pub(crate) const HEADER: usize = 128;

/// The properties that all shards of a data folder share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardSpec {
    pub(crate) vocabulary: u32,
    pub(crate) length: u32,
    /// SHA-256 in hexadecimal.
    pub(crate) tokenizer_hash: String,
}

impl ShardSpec {
    pub(crate) fn bits(&self) -> u32 {
        if self.vocabulary <= 1 << 16 { 16 } else { 32 }
    }

    fn token_bytes(&self) -> usize {
        self.bits() as usize / 8
    }

    fn row_bytes(&self) -> usize {
        self.length as usize * self.token_bytes()
    }
}

/// The header of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    bits: u32,
    vocabulary: u32,
    length: u32,
    rows: u64,
    tokenizer_hash: String,
    checksum: u32,
}

impl Header {
    fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&SHARD_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.bits.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.vocabulary.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.rows.to_le_bytes());
        let digits = self.tokenizer_hash.as_bytes().chunks_exact(2);
        for (byte, digits) in bytes[32..64].iter_mut().zip(digits) {
            *byte = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .unwrap_or_default();
        }
        bytes[64..68].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// Parses a header; `path` is for errors.
    fn parse(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        let mark = &bytes[..bytes.len().min(MAGIC.len())];
        // A prefix of the magic bytes counts as a truncated shard, not as another kind of file.
        if !MAGIC.starts_with(mark) {
            return Err(DataError::WrongMagic {
                path: path.to_path_buf(),
                expected: MAGIC.escape_ascii().to_string(),
                found: mark.escape_ascii().to_string(),
            });
        }
        if bytes.len() < HEADER {
            return Err(DataError::WrongSize {
                path: path.to_path_buf(),
                expected: HEADER as u64,
                found: bytes.len() as u64,
            });
        }
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if number(8) != SHARD_VERSION {
            return Err(DataError::WrongVersion {
                path: path.to_path_buf(),
                expected: SHARD_VERSION,
                found: number(8).into(),
            });
        }
        Ok(Self {
            bits: number(12),
            vocabulary: number(16),
            length: number(20),
            rows: u64::from(number(24)) | u64::from(number(28)) << 32,
            tokenizer_hash: bytes[32..64]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            checksum: number(64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        let header = Header {
            bits: 16,
            vocabulary: 50_257,
            length: 1024,
            rows: (3 << 32) + 7,
            tokenizer_hash: "0123456789abcdef".repeat(4),
            checksum: 0xdead_beef,
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes, Path::new("x")).unwrap(), header);
        assert_eq!(&bytes[..12], b"FLMSHARD\x01\0\0\0");
    }

    #[test]
    fn tokens_are_as_narrow_as_the_vocabulary_allows() {
        let bits = |vocabulary| {
            let spec = ShardSpec {
                vocabulary,
                length: 4,
                tokenizer_hash: String::new(),
            };
            spec.bits()
        };
        assert_eq!((bits(2), bits(65_536), bits(65_537)), (16, 16, 32));
    }
}
