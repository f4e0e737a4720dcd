//! Creates files in the formats of published data sets.

#![allow(dead_code, reason = "no test uses all of it")]

use std::io::Write;
use std::sync::Arc;

use flm_data::{Corpus, DataError, FileCorpus};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// Options for writing a parquet file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) compression: Compression,
    pub(crate) dictionary: bool,
    pub(crate) second_version: bool,
    /// Rows per row group.
    pub(crate) group: usize,
    /// The largest number of rows in a page.
    pub(crate) page: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            compression: Compression::SNAPPY,
            dictionary: true,
            second_version: false,
            group: 100,
            page: 7,
        }
    }
}

pub(crate) fn compressions() -> [Compression; 4] {
    [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::GZIP(Default::default()),
    ]
}

pub(crate) fn properties(style: Style) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(style.compression)
        .set_dictionary_enabled(style.dictionary)
        .set_data_page_row_count_limit(style.page)
        .set_write_batch_size(style.page)
        .set_writer_version(if style.second_version {
            WriterVersion::PARQUET_2_0
        } else {
            WriterVersion::PARQUET_1_0
        })
}

/// Creates a parquet file with the columns `id` (numbers), `text` (nullable) and `title` (never
/// null).
pub(crate) fn parquet(texts: &[Option<&str>], style: Style) -> Vec<u8> {
    parquet_as(texts, style, properties(style).build())
}

pub(crate) fn parquet_as(
    texts: &[Option<&str>],
    style: Style,
    properties: WriterProperties,
) -> Vec<u8> {
    let schema = "message rows {
        REQUIRED INT64 id;
        OPTIONAL BYTE_ARRAY text (UTF8);
        REQUIRED BYTE_ARRAY title (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    for (group, texts) in texts.chunks(style.group).enumerate() {
        let mut rows = writer.next_row_group().unwrap();
        let ids: Vec<i64> = (0..texts.len() as i64).collect();
        let mut column = rows.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&ids, None, None)
            .unwrap();
        column.close().unwrap();

        let values: Vec<ByteArray> = texts.iter().flatten().map(|&text| text.into()).collect();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        let mut column = rows.next_column().unwrap().unwrap();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();

        let titles: Vec<ByteArray> = (0..texts.len())
            .map(|row| format!("title {group}.{row}").as_str().into())
            .collect();
        let mut column = rows.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&titles, None, None)
            .unwrap();
        column.close().unwrap();
        rows.close().unwrap();
    }
    writer.close().unwrap();
    file
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 0).unwrap()
}

pub(crate) fn documents(corpus: &FileCorpus) -> Result<Vec<String>, DataError> {
    corpus.documents()?.collect()
}

/// Reads the documents of a file with this name, or returns the error message.
pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let place = format!("{}/", folder.path().display());
    documents(&FileCorpus::open(&path).unwrap())
        .map_err(|error| error.to_string().replace(&place, ""))
}
