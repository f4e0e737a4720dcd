//! What a file of a corpus is, told from its name, and its bytes as they were before compression.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::DataError;

/// The most bytes that are held as one document: a longer line, or a longer value of a column, is
/// an error. Books as single lines stay well below it, and what is above it is mostly a file that
/// has no lines at all.
pub(super) const LARGEST_DOCUMENT: usize = 64 << 20;

/// Bytes that are asked of the system, or of a decompressor, at once.
pub(super) const BUFFER: usize = 64 * 1024;

/// How the text of a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    JsonLines,
    Parquet,
}

/// How a file of text or of JSON lines is compressed.
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

/// Compression that is not read, told from the ending of a name.
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

/// What a decompressor says of a frame that refers further back than it may. It has no number to go by.
const LARGE_WINDOW: &str = "Frame requires too much memory for decoding";

/// Whether four bytes begin a frame of zstd that holds no text: `pzstd` has one before each part.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

/// Tells from a name what is in the file.
pub(super) fn kind(path: &Path) -> (Form, Packing) {
    let (name, packing) = match ending(path).as_str() {
        "gz" => (path.with_extension(""), Packing::Gzip),
        "zst" => (path.with_extension(""), Packing::Zstd),
        _ => (path.to_path_buf(), Packing::Plain),
    };
    let form = match ending(&name).as_str() {
        "jsonl" | "ndjson" | "json" => Form::JsonLines,
        // Parquet compresses its own pages; a file packed once more has no end to begin from.
        "parquet" if packing == Packing::Plain => Form::Parquet,
        _ => Form::Text,
    };
    (form, packing)
}

fn ending(path: &Path) -> String {
    let ending = path.extension().unwrap_or_default();
    ending.to_string_lossy().to_ascii_lowercase()
}

/// The bytes of a file, decompressed as they are read. Nothing is held but a window of at most
/// 128 MiB, the most that zstd takes without being asked, so a bomb costs time and no memory.
pub(super) struct Source {
    path: PathBuf,
    packing: Packing,
    reader: Box<dyn Read>,
}

impl Source {
    /// Opens a file that is compressed as its name says; another beginning is an error.
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

    /// The error behind a failed read: the system's, or the decompressor's.
    pub(super) fn fault(&self, source: io::Error) -> DataError {
        // A decompressor's errors have no number of the system.
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

/// The error of a file whose beginning (or end) is not that of its kind.
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
