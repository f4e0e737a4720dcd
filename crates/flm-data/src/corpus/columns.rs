//! Reads one text column of a parquet file.
//!
//! The `parquet` crate reads the footer and the page headers. This module decompresses the pages
//! and reads their values, which needs only two encodings and no nesting. The crate's own readers
//! allocate the sizes that a file declares, and panic on some damaged files.

mod pages;
mod values;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::ColumnDescriptor;

use super::source::{LARGEST_DOCUMENT, wrong_kind};
use crate::DataError;
use pages::{Page, Pages, guarded};
use values::{Dictionary, Values};

const MAGIC: &[u8; 4] = b"PAR1";
/// The footer length and the final magic bytes.
const TAIL: u64 = 8;

/// An iterator over the texts of a column that are neither null nor blank, in row order. Memory
/// holds the footer, one dictionary and one page.
pub(super) struct TextColumn {
    path: PathBuf,
    file: Arc<File>,
    size: u64,
    footer: ParquetMetaData,
    name: String,
    column: usize,
    /// The next row group.
    group: usize,
    chunk: Option<Chunk>,
    /// Rows read so far, over all groups.
    row: u64,
    failed: bool,
}

/// The column in one row group.
struct Chunk {
    pages: Pages,
    dictionary: Dictionary,
    values: Option<Values>,
    /// Rows that the footer declares and that are not read yet.
    left: u64,
}

impl TextColumn {
    pub(super) fn open(path: &Path, name: &str) -> Result<Self, DataError> {
        let mut file = File::open(path).map_err(DataError::io("read", path))?;
        let size = file.metadata().map_err(DataError::io("read", path))?.len();
        let footer = read_footer(&mut file, size, path)?;
        let columns = footer.file_metadata().schema_descr().columns();
        let known = || {
            let names = columns.iter().map(|column| column.path().string());
            names.collect::<Vec<_>>().join(", ")
        };
        let column = columns
            .iter()
            .position(|column| column.path().string() == name)
            .ok_or_else(|| DataError::NoColumn {
                path: path.to_path_buf(),
                column: name.to_owned(),
                columns: known(),
            })?;
        if let Some(found) = not_text(&columns[column]) {
            return Err(DataError::ColumnNotText {
                path: path.to_path_buf(),
                column: name.to_owned(),
                found,
            });
        }
        Ok(Self {
            path: path.to_path_buf(),
            file: Arc::new(file),
            size,
            footer,
            name: name.to_owned(),
            column,
            group: 0,
            chunk: None,
            row: 0,
            failed: false,
        })
    }

    fn next_text(&mut self) -> Result<Option<String>, DataError> {
        loop {
            let Some(chunk) = &mut self.chunk else {
                if self.group == self.footer.num_row_groups() {
                    return Ok(None);
                }
                let chunk = self.open_group().map_err(|reason| self.bad(reason))?;
                self.chunk = Some(chunk);
                self.group += 1;
                continue;
            };
            match chunk.next() {
                Err(reason) => return Err(self.bad(reason)),
                Ok(None) => self.chunk = None,
                Ok(Some(value)) => {
                    self.row += 1;
                    let Some(bytes) = value else { continue };
                    if bytes.len() > LARGEST_DOCUMENT {
                        return Err(DataError::DocumentTooLong {
                            path: self.path.clone(),
                            unit: "row",
                            number: self.row,
                            limit: LARGEST_DOCUMENT,
                        });
                    }
                    let Ok(text) = std::str::from_utf8(bytes) else {
                        return Err(DataError::RowNotUtf8 {
                            path: self.path.clone(),
                            column: self.name.clone(),
                            row: self.row,
                        });
                    };
                    if !text.trim().is_empty() {
                        return Ok(Some(text.to_owned()));
                    }
                }
            }
        }
    }

    fn open_group(&self) -> Result<Chunk, String> {
        let group = self.footer.row_group(self.group);
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| format!("a row group of {} rows", group.num_rows()))?;
        let chunk = group
            .columns()
            .get(self.column)
            .ok_or("a row group lacks the column")?;
        if chunk.file_path().is_some() {
            return Err("the column is in a separate file".to_owned());
        }
        Ok(Chunk {
            pages: Pages::open(Arc::clone(&self.file), self.size, chunk, rows)?,
            dictionary: Dictionary::default(),
            values: None,
            left: rows,
        })
    }

    fn bad(&self, reason: String) -> DataError {
        bad(&self.path, reason)
    }
}

impl Chunk {
    /// Returns the value of the next row: `Some(None)` for a null, and `None` after the last row.
    fn next(&mut self) -> Result<Option<Option<&[u8]>>, String> {
        while self.values.as_ref().is_none_or(Values::is_done) {
            match self.pages.next()? {
                None if self.left == 0 => return Ok(None),
                None => return Err(format!("a row group lacks {} rows", self.left)),
                Some(Page::Dictionary { values, count }) => {
                    self.dictionary = Dictionary::read(values, count)?;
                }
                Some(page) => self.values = Some(Values::new(page, self.pages.present())?),
            }
        }
        self.left = self
            .left
            .checked_sub(1)
            .ok_or("a row group has more values than rows")?;
        match &mut self.values {
            Some(values) => values.next(&self.dictionary).map(Some),
            None => Ok(None),
        }
    }
}

impl Iterator for TextColumn {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let text = self.next_text().transpose();
        self.failed = matches!(text, Some(Err(_)));
        text
    }
}

fn bad(path: &Path, reason: String) -> DataError {
    DataError::BadParquet {
        path: path.to_path_buf(),
        reason,
    }
}

fn read_footer(file: &mut File, size: u64, path: &Path) -> Result<ParquetMetaData, DataError> {
    let mut read = |at: u64, length: u64| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.take(length).read_to_end(&mut bytes))
            .map_err(DataError::io("read", path))?;
        Ok::<_, DataError>(bytes)
    };
    let mark = read(0, MAGIC.len() as u64)?;
    if mark != MAGIC {
        return Err(wrong_kind(path, "parquet", MAGIC, &mark));
    }
    let tail = read(size.saturating_sub(TAIL), TAIL)?;
    let (Some((length, mark)), true) = (
        tail.split_first_chunk::<4>(),
        size >= MAGIC.len() as u64 + TAIL,
    ) else {
        return Err(bad(path, format!("it has {size} bytes and no footer")));
    };
    if mark != MAGIC {
        let reason = format!(
            "it ends with `{}`, expected `PAR1`: it may be truncated",
            mark.escape_ascii()
        );
        return Err(bad(path, reason));
    }
    let length = u64::from(u32::from_le_bytes(*length));
    let Some(start) = size.checked_sub(length + TAIL) else {
        let reason = format!("its footer of {length} bytes is longer than the file");
        return Err(bad(path, reason));
    };
    let footer = read(start, length)?;
    guarded(|| ParquetMetaDataReader::decode_metadata(&footer)).map_err(|reason| bad(path, reason))
}

/// Describes the content of a column that is not text; returns `None` for a text column.
fn not_text(column: &ColumnDescriptor) -> Option<String> {
    if column.max_rep_level() > 0 {
        return Some("lists".to_owned());
    }
    let physical = column.physical_type();
    let (logical, converted) = (column.logical_type_ref(), column.converted_type());
    let is_text = match logical {
        Some(logical) => *logical == LogicalType::String,
        // Older writers do not annotate strings. Reading checks that their bytes are UTF-8.
        None => matches!(converted, ConvertedType::UTF8 | ConvertedType::NONE),
    };
    if is_text && physical == Type::BYTE_ARRAY {
        return None;
    }
    Some(match logical {
        Some(logical) if !is_text => format!("{logical:?}"),
        None if !is_text => converted.to_string(),
        _ => physical.to_string(),
    })
}
