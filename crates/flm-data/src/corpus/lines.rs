//! Reads text files in pieces: by line, or in chunks of bounded size.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Piece;
use super::source::{BUFFER, LARGEST_DOCUMENT, Source};
use crate::DataError;

/// The largest piece of a file that is read as a whole, in bytes. It is large enough that cuts
/// rarely affect the tokenizer, and small enough that a batch of pieces keeps every core busy.
const CHUNK: usize = 64 * 1024;

/// An iterator over the lines of a file that are not blank, with line numbers from 1, without line
/// ends.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<Source>,
    /// The most bytes in a line, including its end.
    limit: usize,
    number: u64,
    offset: u64,
    failed: bool,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Self {
            path: path.to_path_buf(),
            reader: BufReader::with_capacity(BUFFER, Source::open(path)?),
            limit: LARGEST_DOCUMENT,
            number: 0,
            offset: 0,
            failed: false,
        })
    }

    fn read(&mut self) -> Result<Option<(u64, String)>, DataError> {
        loop {
            let mut bytes = Vec::new();
            let read = (&mut self.reader)
                .take(self.limit as u64 + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|error| self.reader.get_ref().fault(error))?;
            if read == 0 {
                return Ok(None);
            }
            let start = self.offset;
            self.number += 1;
            if read > self.limit {
                return Err(DataError::DocumentTooLong {
                    path: self.path.clone(),
                    unit: "line",
                    number: self.number,
                    limit: self.limit,
                });
            }
            self.offset += read as u64;
            let mut line = String::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
                path: self.path.clone(),
                line: self.number,
                offset: start + error.utf8_error().valid_up_to() as u64,
            })?;
            if line.trim().is_empty() {
                continue;
            }
            if line.ends_with('\n') {
                line.pop();
                if line.ends_with('\r') {
                    line.pop();
                }
            }
            return Ok(Some((self.number, line)));
        }
    }
}

impl Iterator for Lines {
    type Item = Result<(u64, String), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let line = self.read().transpose();
        self.failed = matches!(line, Some(Err(_)));
        line
    }
}

/// An iterator over pieces of a file of at most `size` bytes, cut after a line end if possible.
///
/// A line longer than a piece is cut before its last space, or between two characters if it has no
/// space.
pub(super) struct Chunks {
    path: PathBuf,
    reader: Source,
    size: usize,
    /// Bytes that were read but not yet returned.
    pending: Vec<u8>,
    /// Line (from 0) and offset of the first pending byte.
    line: u64,
    offset: u64,
    at_end: bool,
    done: bool,
}

impl Chunks {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Self::new(path, Source::open(path)?, CHUNK))
    }

    fn new(path: &Path, reader: Source, size: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            reader,
            size,
            pending: Vec::new(),
            line: 0,
            offset: 0,
            at_end: false,
            done: false,
        }
    }

    fn fill(&mut self) -> Result<(), DataError> {
        // One extra byte shows whether another piece follows.
        let wanted = (self.size + 1).saturating_sub(self.pending.len()) as u64;
        let read = self
            .reader
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.pending)
            .map_err(|error| self.reader.fault(error))?;
        self.at_end = (read as u64) < wanted;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Piece>, DataError> {
        self.fill()?;
        if self.pending.is_empty() {
            return Ok(None);
        }
        let end = if self.at_end {
            self.pending.len()
        } else {
            cut(&self.pending[..self.size])
        };
        let rest = self.pending.split_off(end);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = &error.as_bytes()[..valid];
            DataError::NotUtf8 {
                path: self.path.clone(),
                line: self.line + 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64,
                offset: self.offset + valid as u64,
            }
        })?;
        self.line += lines;
        self.offset += text.len() as u64;
        Ok(Some(Piece {
            ends_document: self.at_end,
            text,
        }))
    }
}

/// Returns the position at which to cut a full piece; never 0.
pub(crate) fn cut(bytes: &[u8]) -> usize {
    if let Some(newline) = bytes.iter().rposition(|&byte| byte == b'\n') {
        return newline + 1;
    }
    // A space belongs to the word after it, as in byte-level tokenizers.
    if let Some(space) = bytes.iter().rposition(|&byte| byte == b' ')
        && space > 0
    {
        return space;
    }
    match std::str::from_utf8(bytes) {
        // The piece ends inside a character. Reading the piece reports any other fault.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

impl Iterator for Chunks {
    type Item = Result<Piece, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let piece = self.read().transpose();
        self.done = self.at_end || !matches!(piece, Some(Ok(_)));
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &[u8], size: usize) -> Chunks {
        let path = Path::new("text");
        Chunks::new(path, Source::of(path, text.to_vec()), size)
    }

    fn pieces(text: &[u8], size: usize) -> Result<Vec<Piece>, DataError> {
        chunks(text, size).collect()
    }

    fn texts(text: &str, size: usize) -> Vec<String> {
        let pieces = pieces(text.as_bytes(), size).unwrap();
        let (last, others) = pieces.split_last().unwrap();
        assert!(last.ends_document);
        assert!(others.iter().all(|piece| !piece.ends_document));
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn pieces_end_with_lines() {
        assert_eq!(texts("ab\ncd\nef\n", 7), ["ab\ncd\n", "ef\n"]);
        assert_eq!(texts("ab\ncd\n", 6), ["ab\ncd\n"]);
        assert_eq!(texts("ab\n\n\ncd", 4), ["ab\n\n", "\ncd"]);
    }

    #[test]
    fn a_long_line_is_cut_before_a_space_or_between_characters() {
        assert_eq!(texts("abc def ghi", 8), ["abc def", " ghi"]);
        assert_eq!(texts("äöüß", 5), ["äö", "üß"]);
        assert_eq!(texts("🙂🙂", 7), ["🙂", "🙂"]);
    }

    #[test]
    fn no_piece_is_larger_than_asked_and_nothing_is_lost() {
        let text = "Grüße aus\n dem 🙂 Wald, wo\n\nlangelangeWörterstehen.".repeat(5);
        for size in 4..40 {
            let texts = texts(&text, size);
            assert!(texts.iter().all(|piece| piece.len() <= size), "size {size}");
            assert_eq!(texts.concat(), text, "size {size}");
        }
    }

    #[test]
    fn a_bad_byte_is_placed_in_the_file_and_ends_the_reading() {
        let mut chunks = chunks(b"ab\ncd\ne\xff\n", 4);
        assert_eq!(chunks.next().unwrap().unwrap().text, "ab\n");
        assert_eq!(chunks.next().unwrap().unwrap().text, "cd\n");
        let error = chunks.next().unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "text is not UTF-8: line 3, byte 7 of the file"
        );
        assert!(chunks.next().is_none());
    }

    #[test]
    fn an_empty_file_has_no_pieces() {
        assert_eq!(pieces(b"", 4).unwrap(), []);
    }
    #[test]
    fn a_line_beyond_the_limit_is_an_error_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"four\n12345\n").unwrap();
        let read = |limit| {
            let mut lines = Lines::open(&path).unwrap();
            lines.limit = limit;
            lines.collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(read(6).unwrap().len(), 2);
        assert_eq!(
            read(5).unwrap_err().to_string(),
            format!(
                "line 2 of {} is longer than 5 bytes, the size limit for a single document",
                path.display()
            )
        );
    }
}
