//! The peak memory of tokenizing a text. Only a separate process can measure it.
#![cfg(target_os = "linux")]

use std::fs;

use flm_data::{FnCorpus, TextTokenizer};
use tokenizers::{PreTokenizerWrapper, Tokenizer};

const MIB: usize = 1 << 20;
const LONG: usize = 8 * MIB;

/// Returns the peak memory of this process so far, in bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}

/// Without cuts, the library uses about a hundred times the text size: 800 MiB for 8 MiB.
#[test]
fn a_long_text_without_spaces_takes_a_few_times_its_size() {
    let small = FnCorpus::new("letters", || (0..9).map(|_| Ok("lower lowest".to_owned())));
    let tokenizer = TextTokenizer::train_bpe(&small, 270).unwrap();
    let text = "lowlowerlowest".repeat(LONG / 14);

    let before = peak();
    let tokens = tokenizer.encode(&text).unwrap();
    // Tokens of 4 bytes, one per several bytes of text, in a doubling vector, plus about a hundred
    // times 64 KiB.
    let used = peak() - before;
    assert!(used < 96 * MIB, "{} MiB", used / MIB);
    assert_eq!(tokenizer.decode(&tokens).unwrap(), text);

    // A text for an unknown pipeline is passed in parts of 1 MiB.
    let mut inner = Tokenizer::from_bytes(tokenizer.to_json().unwrap()).unwrap();
    inner.with_pre_tokenizer(None::<PreTokenizerWrapper>);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    inner.save(&path, false).unwrap();
    let unknown = TextTokenizer::load(&path).unwrap();
    let before = peak();
    let tokens = unknown.encode(&text).unwrap();
    assert!(tokens.len() < LONG / 2);
    let used = peak() - before;
    assert!(used < 96 * MIB, "{} MiB", used / MIB);

    let before = peak();
    let corpus = FnCorpus::new("one word", || {
        std::iter::once(Ok("lowlower".repeat(LONG / 8)))
    });
    TextTokenizer::train_bpe(&corpus, 270).unwrap();
    let used = peak() - before;
    assert!(used < 96 * MIB, "{} MiB", used / MIB);
}
