//! The kind of a corpus file, derived from its name, and its decompressed bytes.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::DataError;

/// The largest document in bytes. A longer line or column value is an error. Books as single lines
/// stay well below this limit; larger lines mostly come from files without line ends.
pub(super) const LARGEST_DOCUMENT: usize = 64 << 20;

/// Bytes requested at once from the system or a decompressor.
pub(super) const BUFFER: usize = 64 * 1024;

/// The format of a corpus file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    JsonLines,
    Parquet,
}

/// The compression of a text or JSON lines file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn magic(self) -> &'static [u8] {
        match self {
            Self::Plain => b"",
            Self::Gzip => b"\x1f\x8b",
            Self::Zstd => b"\x28\xb5\x2f\xfd",
        }
    }
}

/// Name endings of unsupported compression formats, with the names of the formats.
const OTHERS: [(&str, &str); 9] = [
    ("xz", "xz"),
    ("lzma", "lzma"),
    ("bz2", "bzip2"),
    ("lz4", "lz4"),
    ("br", "brotli"),
    ("z", "compress"),
    ("zip", "zip"),
    ("7z", "7z"),
    ("rar", "rar"),
];

/// The decompressor's message for a window beyond its limit. It provides no error code to match.
const LARGE_WINDOW: &str = "Frame requires too much memory for decoding";

/// Whether four bytes start a skippable zstd frame; `pzstd` writes one before each part.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

/// Derives the form and the compression of a file from its name.
pub(super) fn kind(path: &Path) -> (Form, Packing) {
    let (name, packing) = match ending(path).as_str() {
        "gz" => (path.with_extension(""), Packing::Gzip),
        "zst" => (path.with_extension(""), Packing::Zstd),
        _ => (path.to_path_buf(), Packing::Plain),
    };
    let form = match ending(&name).as_str() {
        "jsonl" | "ndjson" | "json" => Form::JsonLines,
        // Parquet compresses its own pages. Its footer is read first, which needs a seekable file.
        "parquet" if packing == Packing::Plain => Form::Parquet,
        _ => Form::Text,
    };
    (form, packing)
}

fn ending(path: &Path) -> String {
    let ending = path.extension().unwrap_or_default();
    ending.to_string_lossy().to_ascii_lowercase()
}

/// The bytes of a file, decompressed as they are read. Memory holds a window of at most 128 MiB,
/// zstd's default limit, so a decompression bomb costs time but no memory.
pub(super) struct Source {
    path: PathBuf,
    packing: Packing,
    reader: Box<dyn Read>,
}

impl Source {
    /// Opens a file whose compression is given by its name. Returns an error if its first bytes do
    /// not match.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let found = ending(path);
        if let Some((_, kind)) = OTHERS.iter().find(|(ending, _)| *ending == found) {
            return Err(DataError::OtherCompression {
                path: path.to_path_buf(),
                kind,
            });
        }
        let (_, packing) = kind(path);
        let mut file = File::open(path).map_err(DataError::io("read", path))?;
        let reader: Box<dyn Read> = if packing == Packing::Plain {
            Box::new(file)
        } else {
            let magic = packing.magic();
            let mut head = Vec::new();
            file.by_ref()
                .take(magic.len() as u64)
                .read_to_end(&mut head)
                .map_err(DataError::io("read", path))?;
            if head != magic && !(packing == Packing::Zstd && is_skippable(&head)) {
                return Err(wrong_kind(path, packing.name(), magic, &head));
            }
            let whole = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(file));
            match packing {
                Packing::Zstd => Box::new(
                    zstd::stream::read::Decoder::with_buffer(whole)
                        .map_err(DataError::io("read", path))?,
                ),
                _ => Box::new(MultiGzDecoder::new(whole)),
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            packing,
            reader,
        })
    }

    #[cfg(test)]
    pub(super) fn of(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_path_buf(),
            packing: Packing::Plain,
            reader: Box::new(Cursor::new(bytes)),
        }
    }

    /// Converts a failed read into an error: the system's or the decompressor's.
    pub(super) fn fault(&self, source: io::Error) -> DataError {
        // Errors of a decompressor have no OS error code.
        if self.packing == Packing::Plain || source.raw_os_error().is_some() {
            return DataError::io("read", &self.path)(source);
        }
        if self.packing == Packing::Zstd && source.to_string() == LARGE_WINDOW {
            return DataError::LargeWindow {
                path: self.path.clone(),
            };
        }
        DataError::Damaged {
            path: self.path.clone(),
            kind: self.packing.name(),
            source,
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Returns the error for a file whose first or last bytes do not match its kind.
pub(super) fn wrong_kind(
    path: &Path,
    kind: &'static str,
    expected: &[u8],
    found: &[u8],
) -> DataError {
    DataError::WrongKind {
        path: path.to_path_buf(),
        kind,
        expected: expected.escape_ascii().to_string(),
        found: found.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind() {
        for (name, expected) in [
            ("a.txt", (Form::Text, Packing::Plain)),
            ("a", (Form::Text, Packing::Plain)),
            ("a.txt.gz", (Form::Text, Packing::Gzip)),
            ("a.zst", (Form::Text, Packing::Zstd)),
            ("a.JSONL", (Form::JsonLines, Packing::Plain)),
            ("b.a.ndjson.zst", (Form::JsonLines, Packing::Zstd)),
            (
                "c4-train.00000-of-01024.json.gz",
                (Form::JsonLines, Packing::Gzip),
            ),
            (
                "train-00000-of-00080.parquet",
                (Form::Parquet, Packing::Plain),
            ),
        ] {
            assert_eq!(kind(Path::new(name)), expected, "{name}");
        }
    }
}
