//! The decompressed pages of one column in one row group.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::column::page::{self, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::guard;

/// The largest page after decompression, in bytes. Writers aim at 1 MiB and check about every 1,000
/// values, which gives several hundred MiB if the values are books.
const LARGEST_PAGE: usize = 1 << 30;

/// The largest expansion of snappy: 3 bytes encode a copy of 64 bytes.
const SNAPPY_RATIO: usize = 24;

/// A page, split into levels and values.
#[derive(Debug)]
pub(super) enum Page {
    /// The values that later pages refer to, each prefixed with its length.
    Dictionary { values: Vec<u8>, count: usize },
    /// Values in row order.
    Data {
        /// Runs of definition levels, if the column has them.
        levels: Vec<u8>,
        values: Vec<u8>,
        /// Number of levels: values and nulls.
        count: usize,
        /// Whether the values are indices into the dictionary.
        refers: bool,
    },
}

/// Reads the pages of a column chunk one by one.
pub(super) struct Pages {
    reader: SerializedPageReader<File>,
    compression: Compression,
    present: u32,
}

impl Pages {
    /// Opens the pages of a chunk in a file of `size` bytes.
    pub(super) fn open(
        file: Arc<File>,
        size: u64,
        chunk: &ColumnChunkMetaData,
        rows: u64,
    ) -> Result<Self, String> {
        let start = chunk
            .dictionary_page_offset()
            .unwrap_or(chunk.data_page_offset());
        let length = chunk.compressed_size();
        let end = u64::try_from(start).ok().zip(u64::try_from(length).ok());
        let end = end.and_then(|(start, length)| start.checked_add(length));
        if end.is_none_or(|end| end > size) {
            return Err(format!(
                "a column chunk of {length} bytes at {start} is not in a file of {size} bytes"
            ));
        }
        let compression = chunk.compression();
        // Read the pages as stored, because the codecs of the crate allocate the size that a page
        // declares.
        let raw = chunk
            .clone()
            .into_builder()
            .set_compression(Compression::UNCOMPRESSED)
            .build()
            .map_err(reason)?;
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let reader = guarded(|| SerializedPageReader::new(file, &raw, rows, None))?;
        Ok(Self {
            reader,
            compression,
            present: chunk.column_descr().max_def_level().max(0) as u32,
        })
    }

    /// Returns the definition level of a value that is not null. At 0, the column has no levels and
    /// no nulls.
    pub(super) fn present(&self) -> u32 {
        self.present
    }

    pub(super) fn next(&mut self) -> Result<Option<Page>, String> {
        let Some(page) = guarded(|| self.reader.get_next_page())? else {
            return Ok(None);
        };
        Ok(Some(match page {
            page::Page::DictionaryPage {
                buf,
                num_values,
                encoding,
                ..
            } => {
                if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
                    return Err(unsupported(encoding));
                }
                Page::Dictionary {
                    values: self.unpack(&buf)?,
                    count: num_values as usize,
                }
            }
            page::Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                ..
            } => {
                let mut values = self.unpack(&buf)?;
                let mut levels = Vec::new();
                if self.present > 0 {
                    if def_level_encoding != Encoding::RLE {
                        return Err(unsupported(def_level_encoding));
                    }
                    let end = values
                        .first_chunk::<4>()
                        .map(|length| u32::from_le_bytes(*length) as usize + 4)
                        .filter(|&end| end <= values.len())
                        .ok_or("a page ends within its levels")?;
                    levels = values[4..end].to_vec();
                    values.drain(..end);
                }
                Page::Data {
                    levels,
                    values,
                    count: num_values as usize,
                    refers: refers(encoding)?,
                }
            }
            page::Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                ..
            } => {
                let first = rep_levels_byte_len as usize;
                let end = first + def_levels_byte_len as usize;
                let levels = buf
                    .get(first..end)
                    .ok_or("a page ends within its levels")?
                    .to_vec();
                let values = &buf[end..];
                Page::Data {
                    levels,
                    // A page of only nulls has no values to decompress.
                    values: if is_compressed && !values.is_empty() {
                        self.unpack(values)?
                    } else {
                        values.to_vec()
                    },
                    count: num_values as usize,
                    refers: refers(encoding)?,
                }
            }
        }))
    }

    /// Decompresses a page. Memory grows with the actual output, not with the declared size.
    fn unpack(&self, packed: &[u8]) -> Result<Vec<u8>, String> {
        let read = |reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            reader
                .take(LARGEST_PAGE as u64 + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| format!("a page cannot be decompressed: {error}"))?;
            if bytes.len() > LARGEST_PAGE {
                return Err(format!("a page is larger than {LARGEST_PAGE} bytes"));
            }
            Ok(bytes)
        };
        match self.compression {
            Compression::UNCOMPRESSED => Ok(packed.to_vec()),
            Compression::SNAPPY => {
                let length = snap::raw::decompress_len(packed).map_err(io::Error::from);
                let fits = |&length: &usize| {
                    length <= LARGEST_PAGE && length <= packed.len() * SNAPPY_RATIO
                };
                if !length.as_ref().is_ok_and(fits) {
                    return Err("a page cannot be decompressed: declared size too large".to_owned());
                }
                snap::raw::Decoder::new()
                    .decompress_vec(packed)
                    .map_err(|error| format!("a page cannot be decompressed: {error}"))
            }
            Compression::GZIP(_) => read(&mut flate2::bufread::MultiGzDecoder::new(packed)),
            Compression::ZSTD(_) => {
                let reader = zstd::stream::read::Decoder::with_buffer(packed);
                read(&mut reader.map_err(|error| error.to_string())?)
            }
            other => {
                // Removes the level that the crate adds to the name.
                let name = format!("{other:?}");
                let name = name.split('(').next().unwrap_or_default();
                Err(format!(
                    "the column is compressed with {name}, expected snappy, gzip, zstd or no \
                     compression"
                ))
            }
        }
    }
}

fn refers(encoding: Encoding) -> Result<bool, String> {
    match encoding {
        Encoding::PLAIN => Ok(false),
        Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => Ok(true),
        other => Err(unsupported(other)),
    }
}

fn unsupported(encoding: Encoding) -> String {
    format!("the column is encoded as {encoding}, expected PLAIN or RLE_DICTIONARY")
}

fn reason(error: ParquetError) -> String {
    match error {
        ParquetError::General(reason) | ParquetError::EOF(reason) => reason,
        other => other.to_string(),
    }
}

/// Runs a parser of the `parquet` crate and turns a panic into an error. The crate's readers assert
/// and add values from footers and page headers without checks, such as the level lengths of a
/// page. After an error the file must not be read further.
pub(super) fn guarded<T>(parse: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match guard::guarded(parse) {
        Some(result) => result.map_err(reason),
        None => Err("its headers are inconsistent".to_owned()),
    }
}
