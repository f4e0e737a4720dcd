//! Published tokenizers and the packing of the paper's code.
//!
//! The files are not part of the repository: a test whose file is missing prints a message and
//! passes. The files are expected in `../shared` next to the repository, or in the folder
//! `FLM_SHARED`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flm_data::{
    Dataset, FileCorpus, FnCorpus, Layout, PrepareOptions, TextTokenizer, TextUnit,
    TokenizerSource, prepare,
};

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn shared(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FLM_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = folder.join(file);
    if !path.exists() {
        eprintln!("skipped: missing {}", path.display());
        return None;
    }
    Some(path)
}

const GPT2: &str = "tokenizers/gpt2/tokenizer.json";
const BERT: &str = "tokenizers/bert-base-uncased/tokenizer.json";

#[test]
fn gpt2_has_one_special_token_for_all() {
    let Some(path) = shared(GPT2) else { return };
    let gpt2 = TextTokenizer::load(&path).unwrap();
    let specials = (gpt2.pad_id(), gpt2.bos_id(), gpt2.eos_id());
    assert_eq!(specials, (50256, 50256, 50256));
    assert_eq!(gpt2.vocab_size(), 50257);
    assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);
    // In a packed block, the begin token is the end token.
    assert_eq!(
        gpt2.decode(&[50256, 15496, 995, 50256, 50256]).unwrap(),
        "Hello world"
    );
    // The file requests truncation at 50 tokens, which would lose text.
    let long = "Hello world ".repeat(100);
    let tokens = gpt2.encode(&long).unwrap();
    assert_eq!(gpt2.decode(&tokens).unwrap(), long);
    let spelt = gpt2.encode("a<|endoftext|>b").unwrap();
    let read = gpt2.clone().reading_specials();
    assert_eq!(read.encode("a<|endoftext|>b").unwrap(), [64, 50256, 65]);
    // A separate padding token gives the published 50,258 tokens.
    let padded = gpt2.clone().with_padding().unwrap();
    assert_eq!((padded.pad_id(), padded.vocab_size()), (50257, 50258));
    assert_eq!(padded.encode(&long).unwrap(), tokens);
    assert!(!spelt.contains(&50256), "text cannot end a row");
    assert_eq!(gpt2.decode(&spelt).unwrap(), "a<|endoftext|>b");
}

#[test]
fn bert_begins_ends_and_pads() {
    let Some(path) = shared(BERT) else { return };
    let bert = TextTokenizer::load(&path).unwrap();
    let specials = (bert.pad_id(), bert.bos_id(), bert.eos_id());
    assert_eq!(specials, (0, 101, 102));
    assert_eq!(bert.vocab_size(), 30522);
    assert_eq!(
        bert.encode("Hello, world!").unwrap(),
        [7592, 1010, 2088, 999]
    );
    let row = [101, 7592, 1010, 2088, 999, 102, 0, 0];
    assert_eq!(bert.decode(&row).unwrap(), "hello, world!");
    assert_eq!(bert.decode(&[7592, 103, 102]).unwrap(), "hello [MASK]");
}

#[test]
fn published_files_keep_their_hash_when_saved() {
    for file in [GPT2, BERT] {
        let Some(path) = shared(file) else { return };
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("tokenizer.json");
        let tokenizer = TextTokenizer::load(&path).unwrap();
        tokenizer.save(&copy).unwrap();
        let saved = TextTokenizer::load(&copy).unwrap();
        assert_eq!(saved.hash(), tokenizer.hash());
        let text = "The U.S. economy grew — slowly.";
        assert_eq!(saved.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
}

/// Compares word-by-word encoding with the `tokenizers` crate, which encodes each text as a whole.
#[test]
fn real_text_has_the_tokens_of_the_library() {
    for (tokenizer, text) in [
        (GPT2, "data/wikitext-2/valid.txt"),
        (BERT, "data/wikitext-2/valid.txt"),
        (GPT2, "data/tinyshakespeare/input.txt"),
        (BERT, "data/tinyshakespeare/input.txt"),
    ] {
        let (Some(path), Some(text)) = (shared(tokenizer), shared(text)) else {
            return;
        };
        let ours = TextTokenizer::load(&path).unwrap();
        let mut library = tokenizers::Tokenizer::from_file(&path).unwrap();
        library.with_truncation(None).unwrap();
        let text = std::fs::read_to_string(text).unwrap();
        // By line, and in long pieces that include their line ends.
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let pieces = text.split_inclusive("\n \n");
        for text in lines.chain(pieces) {
            let expected = library.encode_fast(text, false).unwrap();
            assert_eq!(ours.encode(text).unwrap(), expected.get_ids(), "{text}");
        }
    }
}

#[test]
fn packing_is_that_of_the_papers_code() {
    let json: serde_json::Value = serde_json::from_str(include_str!("golden/text.json")).unwrap();
    for (case, tokenizer) in [("lm1b_wrap", BERT), ("owt_wrap", GPT2)] {
        let Some(tokenizer) = shared(tokenizer) else {
            return;
        };
        let case = &json[case];
        let documents: Vec<String> = serde_json::from_value(case["documents"].clone()).unwrap();
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["packed"].clone()).unwrap();
        let corpus = FnCorpus::new("the paper's", move || documents.clone().into_iter().map(Ok));
        let length = case["block_size"].as_u64().unwrap() as usize;
        let options = PrepareOptions {
            layout: Layout::Packed,
            validation_share: 0.0,
            ..PrepareOptions::new(TokenizerSource::File(tokenizer), length)
        };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("data");
        prepare(&corpus, &options, &out, false, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let data = Dataset::open(&out).unwrap();
        let rows: Vec<Vec<u32>> = (0..data.train().rows())
            .map(|row| data.train().row(row).unwrap())
            .collect();
        assert_eq!(rows, expected);
        assert_eq!(
            u64::from(data.tokenizer().bos_id()),
            case["bos"].as_u64().unwrap()
        );
        assert_eq!(
            u64::from(data.tokenizer().eos_id()),
            case["eos"].as_u64().unwrap()
        );
    }
}

/// The published code packs every 1,000 documents separately (the batch size of `datasets`) and
/// drops each remainder; this crate continues the stream. The first thousand documents therefore
/// give the same rows, and each later thousand gives on average less than one additional row.
#[test]
fn packing_differs_from_the_papers_code_by_a_remainder_every_thousand_documents() {
    const LENGTH: usize = 32;
    let documents = |thousands: Option<usize>| {
        let all = (0..3500).map(|n| format!("w{} w{} w{}", n % 7, n % 11, n % 13));
        let words = all.skip(1000 * thousands.unwrap_or(0));
        words.take(thousands.map_or(3500, |_| 1000)).map(Ok)
    };
    // The first thousand documents contain every word.
    let all = FnCorpus::new("all", move || documents(Some(0)));
    let words = TextTokenizer::words(&all).unwrap();
    let rows = |thousands: Option<usize>| {
        let corpus = FnCorpus::new("some", move || documents(thousands));
        let options = PrepareOptions {
            layout: Layout::Packed,
            validation_share: 0.0,
            ..PrepareOptions::new(TokenizerSource::Given(Box::new(words.clone())), LENGTH)
        };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("data");
        prepare(&corpus, &options, &out, false, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let data = Dataset::open(&out).unwrap();
        let rows: Vec<usize> = (0..data.train().rows()).collect();
        data.train().batch(&rows).unwrap()
    };
    let ours = rows(None);
    let published: Vec<u32> = (0..4).flat_map(|thousand| rows(Some(thousand))).collect();
    let first = rows(Some(0)).len();
    assert_eq!(ours[..first], published[..first]);
    assert_ne!(ours[..published.len()], published[..]);
    // 4,000 tokens leave a remainder of 10 modulo the 30 of a row, three times; 2,000 leave 20; all
    // 14,000 leave 20.
    let tokens = |documents: usize| documents * 4 / (LENGTH - 2) * LENGTH;
    assert_eq!(ours.len(), tokens(3500));
    assert_eq!(published.len(), 3 * tokens(1000) + tokens(500));
    assert_eq!(ours.len() - published.len(), LENGTH);
}

#[test]
fn tiny_shakespeare_is_in_its_blocks_to_the_last_character() {
    let Some(path) = shared("data/tinyshakespeare/input.txt") else {
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let corpus = FileCorpus::open(&path).unwrap().unit(TextUnit::Whole);
    let options = PrepareOptions {
        layout: Layout::Packed,
        validation_share: 0.0,
        ..PrepareOptions::new(TokenizerSource::Chars, 258)
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    prepare(&corpus, &options, &out, false, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let data = Dataset::open(&out).unwrap();
    // The text contains 65 different characters.
    assert_eq!(data.tokenizer().vocab_size(), 65 + 3);
    let decoded: String = (0..data.train().rows())
        .map(|row| {
            data.tokenizer()
                .decode(&data.train().row(row).unwrap())
                .unwrap()
        })
        .collect();
    assert!(text.starts_with(&decoded));
    assert!(text.len() - decoded.len() < 256);
}
