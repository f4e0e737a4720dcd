//! Parquet and compressed files of published data sets, valid and damaged.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{Style, compressions, documents, gzip, parquet, parquet_as, properties, read, zstd};
use flm_data::{Corpus, FileCorpus, TextUnit};
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

/// Returns texts: some frequent, some blank, some null, one long.
fn texts() -> Vec<Option<String>> {
    (0..345)
        .map(|n| match n % 10 {
            3 => None,
            4 => Some(" \n".to_owned()),
            5 | 6 => Some("the same line, often".to_owned()),
            7 if n == 177 => Some("a long one, Grüße 🙂 ".repeat(9000)),
            _ => Some(format!("document {n}\nof some — length")),
        })
        .collect()
}

fn borrowed(texts: &[Option<String>]) -> Vec<Option<&str>> {
    texts.iter().map(Option::as_deref).collect()
}

fn expected(texts: &[Option<String>]) -> Vec<String> {
    let there = texts.iter().flatten();
    there
        .filter(|text| !text.trim().is_empty())
        .cloned()
        .collect()
}

#[test]
fn parquet_is_read_however_it_was_written() {
    let texts = texts();
    for compression in compressions() {
        for dictionary in [false, true] {
            for second_version in [false, true] {
                for (group, page) in [(1000, 1000), (100, 7), (1, 1)] {
                    let style = Style {
                        compression,
                        dictionary,
                        second_version,
                        group,
                        page,
                    };
                    // Version 2 of the writer would default to an encoding that hubs do not use.
                    let properties = properties(style)
                        .set_column_encoding(ColumnPath::from("text"), Encoding::PLAIN);
                    let file = parquet_as(&borrowed(&texts), style, properties.build());
                    let found = read("a.parquet", &file).unwrap();
                    assert_eq!(found, expected(&texts), "{style:?}");
                }
            }
        }
    }
}

/// pyarrow 26 wrote this file with default settings except for compression and row groups:
///
/// ```python
/// texts = ["Grüße 🙂", None, "", "again", "again", " = heading = \\n"] + [f"row {n}" for n in range(6, 20)]
/// table = pyarrow.table({"text": texts, "n": list(range(20))})
/// pyarrow.parquet.write_table(table, "pyarrow.parquet", compression="zstd", row_group_size=8)
/// ```
#[test]
fn a_file_of_another_writer_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pyarrow.parquet");
    let mut expected = vec!["Grüße 🙂", "again", "again", " = heading = \n"];
    let rows: Vec<String> = (6..20).map(|n| format!("row {n}")).collect();
    expected.extend(rows.iter().map(String::as_str));
    assert_eq!(
        documents(&FileCorpus::open(path).unwrap()).unwrap(),
        expected
    );
}

#[test]
fn a_column_is_chosen_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let place = path.display();
    fs::write(&path, parquet(&[Some("a"), None], Style::default())).unwrap();
    let open = |field: &str| FileCorpus::open(&path).unwrap().field(field);
    let titles = open("title");
    assert_eq!(documents(&titles).unwrap(), ["title 0.0", "title 0.1"]);
    assert_eq!(
        titles.describe(),
        format!("{place} (parquet, column `title`)")
    );
    assert_eq!(
        documents(&open("body")).unwrap_err().to_string(),
        format!("{place} has no column `body`: its columns are id, text, title")
    );
    assert_eq!(
        documents(&open("id")).unwrap_err().to_string(),
        format!("the column `id` of {place} holds INT64, expected text")
    );
}

/// Creates a parquet file with one string column and the given schema.
fn column(schema: &str, values: &[&[u8]], levels: Option<(&[i16], Option<&[i16]>)>) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, properties).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = values.iter().map(|&bytes| bytes.to_vec().into()).collect();
    let (definition, repetition) = levels.map_or((None, None), |(d, r)| (Some(d), r));
    let typed = column.typed::<ByteArrayType>();
    typed.write_batch(&values, definition, repetition).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn columns_in_structs_and_without_a_mark_are_text_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let find = |file: Vec<u8>, field: &str| {
        fs::write(&path, file).unwrap();
        documents(&FileCorpus::open(&path).unwrap().field(field)).map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "a.parquet")
        })
    };
    let nested = "message rows { OPTIONAL group article { OPTIONAL BYTE_ARRAY body (UTF8); } }";
    let levels: &[i16] = &[2, 0, 1, 2];
    assert_eq!(
        find(
            column(nested, &[b"a", b"b"], Some((levels, None))),
            "article.body"
        )
        .unwrap(),
        ["a", "b"]
    );
    let unmarked = "message rows { REQUIRED BYTE_ARRAY text; }";
    assert_eq!(
        find(column(unmarked, &[b"a"], None), "text").unwrap(),
        ["a"]
    );
    assert_eq!(
        find(column(unmarked, &[b"a", b"na\xefve"], None), "text").unwrap_err(),
        "row 2 of the column `text` of a.parquet is not UTF-8"
    );
    let list = "message rows { REPEATED BYTE_ARRAY text (UTF8); }";
    let ones: &[i16] = &[1];
    let zeros: &[i16] = &[0];
    assert_eq!(
        find(column(list, &[b"a"], Some((ones, Some(zeros)))), "text").unwrap_err(),
        "the column `text` of a.parquet holds lists, expected text"
    );
    let bson = "message rows { REQUIRED BYTE_ARRAY text (BSON); }";
    assert_eq!(
        find(column(bson, &[b"a"], None), "text").unwrap_err(),
        "the column `text` of a.parquet holds Bson, expected text"
    );
}

#[test]
fn what_is_not_read_is_said() {
    let style = Style {
        dictionary: false,
        ..Style::default()
    };
    let delta = properties(style)
        .set_column_encoding(ColumnPath::from("text"), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    let file = parquet_as(&[Some("a")], style, delta.build());
    assert_eq!(
        read("a.parquet", &file).unwrap_err(),
        "a.parquet cannot be read as parquet: the column is encoded as DELTA_LENGTH_BYTE_ARRAY, \
         expected PLAIN or RLE_DICTIONARY"
    );
}

#[test]
fn a_parquet_file_cut_short_or_of_another_kind_is_a_sentence() {
    let file = parquet(&[Some("a text"), None], Style::default());
    let message = |bytes: &[u8]| read("a.parquet", bytes).unwrap_err();
    assert_eq!(
        message(b"PK\x03\x04 a zip"),
        "a.parquet is not a parquet file: it begins with `PK\\x03\\x04`, expected `PAR1`"
    );
    assert_eq!(
        message(b""),
        "a.parquet is not a parquet file: it begins with ``, expected `PAR1`"
    );
    assert_eq!(
        message(b"PAR1"),
        "a.parquet cannot be read as parquet: it has 4 bytes and no footer"
    );
    let cut = message(&file[..file.len() - 1]);
    assert!(
        cut.ends_with(", expected `PAR1`: it may be truncated"),
        "{cut}"
    );
    assert_eq!(
        message(b"PAR1\xff\xff\xff\xffPAR1"),
        "a.parquet cannot be read as parquet: its footer of 4294967295 bytes is longer than the \
         file"
    );
    // The pages are removed, and the footer is kept.
    let mut shorter = file[..4].to_vec();
    shorter.extend(&file[200..]);
    let lost = message(&shorter);
    assert!(
        lost.starts_with("a.parquet cannot be read as parquet: "),
        "{lost}"
    );
}

#[test]
fn compressed_text_and_json_lines_are_read_as_if_they_were_not() {
    let text = b"one\n\ntwo\nthree".as_slice();
    let json = b"{\"text\": \"one\"}\n{\"id\": [1, {}], \"text\": \"two\\n\"}\n".as_slice();
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("1.txt.gz", gzip(text)),
        ("2.txt.zst", zstd(text)),
        ("3.jsonl.gz", gzip(json)),
        ("4.json.zst", zstd(json)),
        // Concatenated parts that were compressed separately, as in logs.
        ("5.txt.gz", [gzip(b"four\nfi"), gzip(b"ve\n")].concat()),
        ("6.txt.zst", [zstd(b"six\nsev"), zstd(b"en\n")].concat()),
        ("7.gz", gzip(b"eight")),
        ("8.parquet", parquet(&[Some("nine")], Style::default())),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let corpus = FileCorpus::open(folder.path()).unwrap();
    assert_eq!(
        documents(&corpus).unwrap(),
        [
            "one", "two", "three", "one", "two", "three", "one", "two\n", "one", "two\n", "four",
            "five", "six", "seven", "eight", "nine"
        ]
    );
    assert!(!corpus.is_continuous());
    let whole = FileCorpus::open(folder.path().join("1.txt.gz"))
        .unwrap()
        .unit(TextUnit::Whole);
    assert_eq!(documents(&whole).unwrap(), ["one\n\ntwo\nthree"]);
    assert!(whole.is_continuous());
}

#[test]
fn a_compressed_file_cut_short_or_of_another_kind_is_a_sentence() {
    let lines: String = (0..5000)
        .map(|n| format!("line {n} of {}\n", n * n))
        .collect();
    for (name, kind, bytes, magic) in [
        ("a.txt.gz", "gzip", gzip(lines.as_bytes()), "\\x1f\\x8b"),
        ("a.txt.zst", "zstd", zstd(lines.as_bytes()), "(\\xb5/\\xfd"),
    ] {
        assert_eq!(read(name, &bytes).unwrap().len(), 5000);
        let short = format!("{name} is truncated or damaged: it cannot be decompressed as {kind}");
        for cut in [bytes.len() - 1, bytes.len() / 2, 12] {
            assert_eq!(read(name, &bytes[..cut]).unwrap_err(), short, "{cut} bytes");
        }
        assert_eq!(
            read(name, b"plain text").unwrap_err(),
            format!(
                "{name} is not a {kind} file: it begins with `{}`, expected `{magic}`",
                if kind == "gzip" { "pl" } else { "plai" }
            )
        );
    }
}

/// The format of `pzstd`: separate parts, each after a frame that contains its length.
#[test]
fn frames_that_hold_no_text_are_passed_over() {
    let mut file = Vec::new();
    for part in ["one\ntw", "o\nthree\n"] {
        let part = zstd(part.as_bytes());
        file.extend(b"\x50\x2a\x4d\x18\x04\0\0\0");
        file.extend((part.len() as u32).to_le_bytes());
        file.extend(part);
    }
    assert_eq!(read("a.txt.zst", &file).unwrap(), ["one", "two", "three"]);
    assert_eq!(
        read("a.txt.zst", &file[..file.len() - 3]).unwrap_err(),
        "a.txt.zst is truncated or damaged: it cannot be decompressed as zstd"
    );
}

#[test]
fn a_window_that_is_too_large_is_said() {
    // A frame without a content size, with a window of 2^(10 + window) bytes and one final raw
    // block.
    let frame = |window: u8| [b"\x28\xb5\x2f\xfd\0", &[window << 3][..], b"\x19\0\0hi\n"].concat();
    assert_eq!(read("a.txt.zst", &frame(17)).unwrap(), ["hi"]);
    assert_eq!(
        read("a.txt.zst", &frame(18)).unwrap_err(),
        "a.txt.zst was compressed with a window of more than 128 MiB, the supported limit: decompress it first with `zstd -d --long=31`"
    );
}

#[test]
fn compression_that_is_not_read_is_named() {
    for (name, kind) in [
        ("a.txt.xz", "xz"),
        ("a.jsonl.BZ2", "bzip2"),
        ("a.parquet.zip", "zip"),
    ] {
        assert_eq!(
            read(name, b"\xfd7zXZ\0").unwrap_err(),
            format!(
                "{name} is compressed with {kind}, but only gzip (.gz) and zstd (.zst) are supported: decompress it first"
            )
        );
    }
}

#[test]
fn a_bomb_is_streamed_and_ends_at_the_limit_of_a_document() {
    // 65 MiB without a line end, compressed to a few kilobytes.
    let bomb = vec![b'x'; (64 << 20) + 2];
    let message = |what: &str, name: &str| {
        format!(
            "{what} 1 of {name} is longer than 67108864 bytes, the size limit for a single document"
        )
    };
    assert_eq!(
        read("a.txt.zst", &zstd(&bomb)).unwrap_err(),
        message("line", "a.txt.zst")
    );
    let text = std::str::from_utf8(&bomb).unwrap();
    let style = Style {
        compression: Compression::ZSTD(Default::default()),
        dictionary: false,
        ..Style::default()
    };
    assert_eq!(
        read("a.parquet", &parquet(&[Some(text)], style)).unwrap_err(),
        message("row", "a.parquet")
    );
}

#[test]
fn a_list_of_files_is_read_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.txt"), "a").unwrap();
    fs::write(path("b.txt"), "b").unwrap();
    let corpus = FileCorpus::of("both", vec![path("b.txt"), path("a.txt")]);
    assert_eq!(documents(&corpus).unwrap(), ["b", "a"]);
    assert_eq!(corpus.describe(), "both (2 files, a document a line)");
    let before = corpus.fingerprint().unwrap();
    assert_eq!(corpus.fingerprint().unwrap(), before);
    fs::write(path("a.txt"), "ab").unwrap();
    assert_ne!(corpus.fingerprint().unwrap(), before);
}
