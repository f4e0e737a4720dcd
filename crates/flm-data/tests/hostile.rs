//! Untrusted bytes: reading any file gives texts or a one-line error.

mod common;

use std::fs;
use std::ops::ControlFlow;

use common::{Style, compressions, gzip, parquet, read, zstd};
use flm_data::{Dataset, FnCorpus, PrepareOptions, TokenizerSource, prepare};
use proptest::prelude::*;
use proptest::sample::Index;

/// Applies random damage to a valid file.
fn harm(mut bytes: Vec<u8>, harms: &[(Index, u8, u8)]) -> Vec<u8> {
    for &(at, kind, value) in harms {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match kind % 5 {
            0 => bytes[at] = value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            // Large numbers, for lengths and counts.
            _ => {
                let end = (at + usize::from(value % 6)).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
        }
    }
    bytes
}

fn harms() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    prop::collection::vec(any::<(Index, u8, u8)>(), 1..4)
}

#[test]
fn a_tokenizer_of_absurd_numbers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let tokenizer = |largest: u64| {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{{"id":2,"content":"[EOS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}],"normalizer":null,"pre_tokenizer":{{"type":"WhitespaceSplit"}},"post_processor":null,"decoder":null,"model":{{"type":"WordLevel","vocab":{{"a":{largest},"b":1,"[EOS]":2}},"unk_token":"b"}}}}"#
        )
    };
    fs::write(&path, tokenizer(0)).unwrap();
    assert_eq!(
        flm_data::TextTokenizer::load(&path).unwrap().vocab_size(),
        3
    );
    for largest in [1 << 20, u64::from(u32::MAX) - 1, u64::from(u32::MAX)] {
        fs::write(&path, tokenizer(largest)).unwrap();
        let message = flm_data::TextTokenizer::load(&path)
            .unwrap_err()
            .to_string();
        assert!(
            message.ends_with(&format!(
                "tokenizer.json is not a tokenizer: it has token {largest} in a vocabulary of 3"
            )),
            "{message}"
        );
    }
}

fn is_valid(name: &str, bytes: &[u8]) {
    if let Err(message) = read(name, bytes) {
        assert!(
            message.contains(name) && message.lines().count() == 1,
            "{message}"
        );
    }
}

const TEXTS: [Option<&str>; 9] = [
    Some("a text"),
    None,
    Some("Grüße"),
    Some("a text"),
    Some("a text"),
    Some(""),
    None,
    Some("another, somewhat longer text"),
    Some("a text"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn harmed_parquet(
        codec in 0_usize..4,
        dictionary: bool,
        second_version: bool,
        page in 1_usize..9,
        harms in harms(),
    ) {
        let style = Style {
            compression: compressions()[codec],
            // Without a dictionary, version 2 of the writer uses an unsupported encoding.
            dictionary: dictionary || second_version,
            second_version,
            group: 5,
            page,
        };
        is_valid("a.parquet", &harm(parquet(&TEXTS, style), &harms));
    }

    #[test]
    fn parquet_of_any_footer(bytes in prop::collection::vec(any::<u8>(), 0..300), length: u8) {
        let mut file = b"PAR1".to_vec();
        file.extend(&bytes);
        file.extend([length, 0, 0, 0]);
        file.extend(b"PAR1");
        is_valid("a.parquet", &file);
    }

    #[test]
    fn harmed_compressed_lines(lines in "([a-z ]{0,30}\n){1,30}", harms in harms()) {
        is_valid("a.txt.gz", &harm(gzip(lines.as_bytes()), &harms));
        is_valid("a.txt.zst", &harm(zstd(lines.as_bytes()), &harms));
    }

    #[test]
    fn any_bytes_after_a_magic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        is_valid("a.gz", &[b"\x1f\x8b\x08".as_slice(), &bytes].concat());
        is_valid("a.zst", &[b"\x28\xb5\x2f\xfd".as_slice(), &bytes].concat());
        is_valid("a.txt", &bytes);
        is_valid("a.jsonl", &bytes);
    }

    #[test]
    fn harmed_json_lines(
        texts in prop::collection::vec(".{0,30}", 1..5),
        harms in harms(),
    ) {
        let lines: String = texts
            .iter()
            .map(|text| format!("{}\n", serde_json::json!({"id": [1, null], "text": text})))
            .collect();
        prop_assert_eq!(
            read("a.jsonl", lines.as_bytes()).unwrap(),
            texts.into_iter().filter(|text| !text.trim().is_empty()).collect::<Vec<_>>()
        );
        is_valid("a.jsonl", &harm(lines.into_bytes(), &harms));
    }

    #[test]
    fn harmed_data_folders(file in 0_usize..4, harms in harms()) {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("data");
        let corpus = FnCorpus::new("cats", || (0..9).map(|n| Ok(format!("the cat {}", n % 3))));
        let options = PrepareOptions {
            validation_share: 0.3,
            ..PrepareOptions::new(TokenizerSource::Words, 5)
        };
        prepare(&corpus, &options, &out, false, &mut |_| ControlFlow::Continue(())).unwrap();
        let names = ["train-00000.bin", "validation-00000.bin", "dataset.json", "tokenizer.json"];
        let path = out.join(names[file]);
        fs::write(&path, harm(fs::read(&path).unwrap(), &harms)).unwrap();
        let opened = Dataset::open(&out).and_then(|data| {
            data.verify()?;
            (0..data.train().rows()).try_for_each(|row| data.train().row(row).map(drop))
        });
        if let Err(error) = opened {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }
}
