use std::collections::HashMap;

use proptest::prelude::*;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::*;
use crate::{FnCorpus, TextTokenizer};

/// Generates text with many cases that the pipelines treat specially.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        3 => prop::sample::select(vec![
            " ", "  ", "\n", "\t\r\n", "'s", "'S", "'ll", "''", " 't", "re", "The", "low", "12", "½",
            "Ⅷ", "٣", "é", "e\u{301}", "\u{301}", "\u{327}\u{301}", "ǆ", "İ", "ß", "Σς", "日本",
            "\u{a0}", "\u{2028}", "\u{85}", "\u{200b}", "\0", "\u{fffd}", "\u{b}", ",", "-", "…", "«",
            "\u{37e}", "\u{226e}", "<|endoftext|>", "[SEP]", "[EOS]", "🙂", "👩\u{200d}🔬", "ᾳ\u{345}",
        ]).prop_map(String::from),
        2 => "[a-zA-Z ']{1,9}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn check(tokenizer: &TextTokenizer, text: &str) {
    let words = tokenizer.words.expect("the pipeline is recognized");
    let library = tokenizer.inner.encode_fast(text, false);
    let library = library.map(|encoding| encoding.get_ids().to_vec()).ok();
    // The cache holds words of other texts in the first round, and of this text in the second.
    for _ in 0..2 {
        assert_eq!(words.encode(&tokenizer.inner, text), library, "{text:?}");
    }
}

fn corpus() -> impl crate::Corpus {
    FnCorpus::new("a test", || {
        (0..300).map(|n| {
            Ok(format!(
                "The lower, the {n} lowest's Löwe won't {}\n日本 ",
                n * n
            ))
        })
    })
}

fn word_piece(normalizer: Option<BertNormalizer>) -> TextTokenizer {
    let words = [
        "[UNK]", "[PAD]", "[CLS]", "[SEP]", "the", "low", "##er", "##est", ",", "'", "日",
    ];
    let letters = ('a'..='z').flat_map(|c| {
        [
            c.to_string(),
            format!("##{c}"),
            c.to_uppercase().to_string(),
        ]
    });
    let vocabulary = words
        .map(str::to_owned)
        .into_iter()
        .chain(letters)
        .zip(0_u32..);
    let model = serde_json::json!({
        "type": "WordPiece",
        "vocab": vocabulary.collect::<HashMap<_, _>>(),
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    });
    let model: WordPiece = serde_json::from_str(&model.to_string()).unwrap();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(normalizer);
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"];
    tokenizer.add_special_tokens(&specials.map(|name| AddedToken::from(name, true)));
    TextTokenizer::new(tokenizer, "of a test").unwrap()
}

#[test]
fn what_is_not_known_exactly_is_left_to_the_library() {
    let trained = TextTokenizer::train_bpe(&corpus(), 300).unwrap().inner;
    let cut = |change: &dyn Fn(&mut Tokenizer)| {
        let mut inner = trained.clone();
        change(&mut inner);
        Words::of(&inner).map(|words| words.cut)
    };
    assert_eq!(cut(&|_| {}), Some(Cut::ByteLevel));
    let twice = r#"{
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {}
    }"#;
    let twice: PostProcessorWrapper = serde_json::from_str(twice).unwrap();
    let changes: [&dyn Fn(&mut Tokenizer); 6] = [
        &|inner| {
            inner.add_tokens(&[AddedToken::from("lo", false)]);
        },
        &|inner| inner.set_encode_special_tokens(false),
        &|inner| {
            inner.with_pre_tokenizer(Some(ByteLevel::new(true, true, true)));
        },
        &|inner| {
            inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, false)));
        },
        &|inner| {
            inner.with_normalizer(Some(BertNormalizer::default()));
        },
        &|inner| {
            inner.with_post_processor(Some(twice.clone()));
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        assert_eq!(cut(change), None, "change {n}");
    }
}

#[test]
fn a_long_word_has_the_tokens_of_its_segments() {
    let tokenizer = TextTokenizer::train_bpe(&corpus(), 300).unwrap();
    let library = |text: &str| {
        let encoding = tokenizer.inner.encode_fast(text, false).unwrap();
        encoding.get_ids().to_vec()
    };
    // Segments of letters end between characters; ö takes two bytes.
    let word = format!("the{}", "ö".repeat(LONGEST / 2));
    let (first, rest) = word.split_at(LONGEST - 1);
    let tokens = tokenizer.encode(&format!("{word}, low")).unwrap();
    assert_eq!(
        tokens,
        [library(first), library(rest), library(", low")].concat()
    );
    // The library's expression fails on a million spaces.
    let spaces = format!("a{}b", " ".repeat(1 << 20));
    let tokens = tokenizer.encode(&spaces).unwrap();
    assert_eq!(tokenizer.decode(&tokens).unwrap(), spaces);
    check(&tokenizer, &format!("a{}b", " ".repeat(1000)));
    // A word of exactly the limit is encoded as a whole.
    check(&tokenizer, &"lowe".repeat(LONGEST / 4));
}

/// Words end at ideographs, so the cuts between segments make no difference there.
#[test]
fn a_long_text_without_ascii_spaces_has_the_tokens_of_the_library() {
    for tokenizer in [
        word_piece(None),
        word_piece(Some(BertNormalizer::default())),
    ] {
        let ideographs = "日本…low「est」".repeat(LONGEST / 12);
        if tokenizer.inner.get_normalizer().is_some() {
            check(&tokenizer, &ideographs);
        }
        check(&tokenizer, &ideographs.replace('日', "\u{3000}"));
    }
}

#[test]
fn a_long_word_of_a_closed_vocabulary_is_one_word() {
    let long = "word".repeat(LONGEST);
    let tokenizer = TextTokenizer::from_words(["a".to_owned(), long.clone()]).unwrap();
    check(&tokenizer, &format!("a {long}\u{3000}a"));
    let text = format!("a {long}\u{3000}a");
    assert_eq!(tokenizer.encode(&text).unwrap(), [3, 4, 3]);
    let error = tokenizer.encode(&format!("{long}s")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`{}…` is not in the vocabulary of 5 tokens",
            "word".repeat(20)
        )
    );
}

#[test]
fn two_tokenizers_on_one_thread_do_not_mix() {
    let one = TextTokenizer::from_words(["a", "b"]).unwrap();
    let other = TextTokenizer::from_words(["b", "a"]).unwrap();
    for _ in 0..2 {
        assert_eq!(one.encode("a b").unwrap(), [3, 4]);
        assert_eq!(other.encode("a b").unwrap(), [4, 3]);
    }
}

thread_local! {
    static GPT2: TextTokenizer = TextTokenizer::train_bpe(&corpus(), 400).unwrap();
    static BERT: [TextTokenizer; 4] = [
        word_piece(None),
        word_piece(Some(BertNormalizer::default())),
        word_piece(Some(BertNormalizer::new(false, false, Some(true), false))),
        word_piece(Some(BertNormalizer::new(true, true, Some(false), false))),
    ];
    static WORDS: TextTokenizer = TextTokenizer::from_words(["The", "low", "12", "a", "日本"]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn byte_level_tokens_are_those_of_the_library(text in text()) {
        GPT2.with(|tokenizer| check(tokenizer, &text));
    }

    #[test]
    fn bert_tokens_are_those_of_the_library(text in text()) {
        BERT.with(|tokenizers| tokenizers.iter().for_each(|tokenizer| check(tokenizer, &text)));
    }

    #[test]
    fn words_and_characters_are_those_of_the_library(text in text()) {
        WORDS.with(|tokenizer| check(tokenizer, &text));
        let characters = FnCorpus::new("a test", || std::iter::once(Ok(" \nTheow日'[]".to_owned())));
        check(&TextTokenizer::chars(&characters).unwrap(), &text);
    }

    /// Compares the units alone, without the model: they must be the matches of the expression.
    #[test]
    fn byte_level_units_are_the_matches_of_the_expression(text in text()) {
        GPT2.with(|tokenizer| {
            let mut units = Vec::new();
            let words = tokenizer.words.unwrap();
            words.units(&text, |unit| {
                units.push(unit.to_owned());
                Some(())
            }).unwrap();
            prop_assert_eq!(units.concat(), text.as_str());
            let byte_level = ByteLevel::new(false, true, true);
            let mut inner = tokenizer.inner.clone();
            inner.with_pre_tokenizer(Some(byte_level));
            let matches = super::super::pre_tokens(&inner, &text).unwrap();
            let matches = matches.into_iter().filter(|word| !word.is_empty()).count();
            prop_assert_eq!(units.len(), matches);
            Ok(())
        })?;
    }
}
