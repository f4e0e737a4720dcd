//! Closed vocabularies, which contain only the words or characters of a corpus.

use std::collections::{BTreeSet, HashSet};

use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::specials::{RESERVED, SPECIALS, added_tokens};
use super::{Pass, TextTokenizer, bad_word};
use crate::error::tokenizer_error;
use crate::{Corpus, DataError};

pub(crate) fn words(corpus: &dyn Corpus, pass: Pass<'_>) -> Result<TextTokenizer, DataError> {
    let mut words = BTreeSet::new();
    for piece in corpus.pieces()? {
        let piece = piece?;
        for word in piece.text.split_whitespace() {
            // This check avoids a copy of every known word.
            if !words.contains(word) {
                words.insert(word.to_owned());
            }
        }
        pass(&piece)?;
    }
    not_empty(corpus, words.is_empty())?;
    from_words(words.into_iter().collect())
}

pub(super) fn from_words(words: Vec<String>) -> Result<TextTokenizer, DataError> {
    let mut seen = HashSet::new();
    for word in &words {
        let reason = if word.is_empty() {
            "it is empty"
        } else if word.contains(char::is_whitespace) {
            "it holds white space"
        } else if SPECIALS.contains(&word.as_str()) {
            RESERVED
        } else if !seen.insert(word) {
            "it occurs twice"
        } else {
            continue;
        };
        return Err(bad_word(word, reason));
    }
    let mut tokenizer = word_level(words)?;
    tokenizer.with_pre_tokenizer(Some(WhitespaceSplit));
    // Without a decoder, the words are joined with spaces.
    TextTokenizer::new(tokenizer, "of words")
}

pub(crate) fn chars(corpus: &dyn Corpus, pass: Pass<'_>) -> Result<TextTokenizer, DataError> {
    let mut chars = BTreeSet::new();
    for piece in corpus.pieces()? {
        let piece = piece?;
        chars.extend(piece.text.chars());
        pass(&piece)?;
    }
    not_empty(corpus, chars.is_empty())?;
    let mut tokenizer = word_level(chars.into_iter().map(String::from).collect())?;
    tokenizer.with_pre_tokenizer(Some(split_chars()?));
    tokenizer.with_decoder(Some(Fuse::new()));
    TextTokenizer::new(tokenizer, "of characters")
}

/// Splits a text into its characters.
pub(super) fn split_chars() -> Result<Split, DataError> {
    // Not `(?s).`, because the regex engine of the Python package interprets it differently.
    let any = SplitPattern::Regex(r"[\s\S]".to_owned());
    Split::new(any, SplitDelimiterBehavior::Isolated, false).map_err(tokenizer_error)
}

fn not_empty(corpus: &dyn Corpus, is_empty: bool) -> Result<(), DataError> {
    if is_empty {
        return Err(DataError::EmptyCorpus {
            corpus: corpus.describe(),
        });
    }
    Ok(())
}

/// Creates a tokenizer with the special tokens followed by `tokens`. The model also contains the
/// special tokens, because the numbers in a saved `tokenizer.json` come from the model.
fn word_level(tokens: Vec<String>) -> Result<Tokenizer, DataError> {
    let specials = SPECIALS.iter().map(|&name| name.to_owned());
    let model = WordLevel::builder()
        .vocab(specials.chain(tokens).zip(0..).collect())
        // Words and characters are never empty, so this token never replaces one.
        .unk_token(String::new())
        .build()
        .map_err(tokenizer_error)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.add_special_tokens(&added_tokens());
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FnCorpus;

    fn corpus(texts: &'static [&'static str]) -> impl Corpus {
        FnCorpus::new("a test", || texts.iter().map(|&text| Ok(text.to_owned())))
    }

    #[test]
    fn words_are_sorted_and_come_back() {
        let tokenizer = TextTokenizer::words(&corpus(&["the cat sat", "a  cat"])).unwrap();
        let tokens: Vec<_> = (0..tokenizer.vocab_size() as u32)
            .map(|id| tokenizer.token(id).unwrap())
            .collect();
        assert_eq!(
            tokens,
            ["[PAD]", "[BOS]", "[EOS]", "a", "cat", "sat", "the"]
        );
        assert_eq!(tokenizer.encode("a cat\nsat").unwrap(), [3, 4, 5]);
        assert_eq!(tokenizer.decode(&[3, 4, 5]).unwrap(), "a cat sat");
        let specials = (tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id());
        assert_eq!(specials, (0, 1, 2));
        assert_eq!(tokenizer.token(7), None);
        assert_eq!(tokenizer.token_id("sat"), Some(5));
    }

    #[test]
    fn an_unknown_word_is_named() {
        let tokenizer = TextTokenizer::from_words(["cat", "sat"]).unwrap();
        let message = "`dog` is not in the vocabulary of 5 tokens";
        let error = tokenizer.encode("cat dog fox").unwrap_err();
        assert_eq!(error.to_string(), message);
        let batch = tokenizer.encode_batch(&["cat", "sat dog", "fox"]);
        assert_eq!(batch.unwrap_err().to_string(), message);
        let chars = TextTokenizer::chars(&corpus(&["ab"])).unwrap();
        assert_eq!(
            chars.encode("ab\nb").unwrap_err().to_string(),
            "`\\n` is not in the vocabulary of 5 tokens"
        );
    }

    #[test]
    fn a_word_list_is_taken_as_it_stands_or_refused() {
        let tokenizer = TextTokenizer::from_words(["zoo", "ape"]).unwrap();
        assert_eq!(tokenizer.encode("ape zoo").unwrap(), [4, 3]);
        let refuse = |words: &[&str]| {
            let error = TextTokenizer::from_words(words.iter().copied());
            error.unwrap_err().to_string()
        };
        let cannot = "cannot be a word of the vocabulary";
        assert_eq!(
            refuse(&["a", "a"]),
            format!("`a` {cannot}: it occurs twice")
        );
        assert_eq!(refuse(&[""]), format!("`` {cannot}: it is empty"));
        assert_eq!(
            refuse(&["a b"]),
            format!("`a b` {cannot}: it holds white space")
        );
        assert_eq!(
            refuse(&["[EOS]"]),
            format!("`[EOS]` {cannot}: it is the name of a special token")
        );
    }

    #[test]
    fn a_text_of_words_cannot_forge_a_special_token() {
        let reserved =
            "`[EOS]` cannot be a word of the vocabulary: it is the name of a special token";
        let gathered = TextTokenizer::words(&corpus(&["a [EOS] b"])).unwrap_err();
        assert_eq!(gathered.to_string(), reserved);
        let tokenizer = TextTokenizer::from_words(["a", "b"]).unwrap();
        let encoded = tokenizer.encode("a [EOS] b").unwrap_err();
        assert_eq!(encoded.to_string(), reserved);
    }

    #[test]
    fn a_text_may_be_read_with_its_special_tokens() {
        let tokenizer = TextTokenizer::from_words(["a", "b"]).unwrap();
        let reading = tokenizer.reading_specials();
        assert_eq!(reading.encode("a [PAD] b [EOS]").unwrap(), [3, 0, 4, 2]);
    }

    #[test]
    fn no_text_is_no_vocabulary() {
        let error = TextTokenizer::words(&corpus(&[" ", ""])).unwrap_err();
        assert_eq!(error.to_string(), "the corpus is empty: a test");
        let error = TextTokenizer::chars(&corpus(&[])).unwrap_err();
        assert_eq!(error.to_string(), "the corpus is empty: a test");
    }

    #[test]
    fn decoding_is_honest_about_special_tokens() {
        let tokenizer = TextTokenizer::from_words(["cat", "sat"]).unwrap();
        let decode = |tokens: &[u32]| tokenizer.decode(tokens).unwrap();
        assert_eq!(decode(&[1, 3, 4, 2, 0, 0]), "cat sat");
        assert_eq!(decode(&[3, 0, 1, 4, 2, 3]), "cat [PAD] [BOS] sat");
        assert_eq!(decode(&[2, 3]), "");
        assert_eq!(decode(&[]), "");
        assert_eq!(
            tokenizer.decode_all(&[1, 3, 2, 4]).unwrap(),
            "[BOS] cat [EOS] sat"
        );
        assert_eq!(
            tokenizer.decode(&[3, 9]).unwrap_err().to_string(),
            "token 9 is not in the vocabulary of 5 tokens"
        );
        let chars = TextTokenizer::chars(&corpus(&["ab"])).unwrap();
        assert_eq!(chars.decode(&[1, 3, 0, 4, 2]).unwrap(), "a[PAD]b");
    }

    proptest! {
        #[test]
        fn characters_come_back_exactly(texts in prop::collection::vec(".*|[ab\\n\\[\\]EOS ]*", 1..4)) {
            let all = texts.clone();
            let corpus = FnCorpus::new("a test", move || all.clone().into_iter().map(Ok));
            prop_assume!(texts.iter().any(|text| !text.is_empty()));
            let tokenizer = TextTokenizer::chars(&corpus).unwrap();
            for text in &texts {
                let tokens = tokenizer.encode(text).unwrap();
                prop_assert_eq!(tokens.len(), text.chars().count());
                prop_assert_eq!(&tokenizer.decode(&tokens).unwrap(), text);
            }
            let spelt = tokenizer.encode("[EOS]");
            prop_assert!(spelt.map_or(true, |tokens| tokens.len() == 5));
        }
    }
}
