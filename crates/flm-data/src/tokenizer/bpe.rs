//! Learns byte pairs from a corpus.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::specials::added_tokens;
use super::words::{LONGEST, Words, segments};
use super::{Pass, SPECIALS, TextTokenizer, pre_tokens};
use crate::error::tokenizer_error;
use crate::pieces::batches;
use crate::{Corpus, DataError};

/// The smallest byte-level vocabulary: every byte and the three special tokens.
pub const MINIMUM_BPE_VOCABULARY: usize = 256 + SPECIALS.len();

// A pair that occurs once shortens no other text, and would turn single names into tokens.
const MINIMUM_OCCURRENCES: u64 = 2;

/// The most text used from words of more than [`LONGEST`] bytes, in bytes. Such words rarely
/// repeat, so their counts would grow with the corpus, and a vocabulary needs no more of them.
const LONG_WORDS: usize = 4 << 20;

/// The segment size for counting such words, in bytes: the trainer's time grows with the square of
/// the word length.
const SEGMENT: usize = 1 << 10;

pub(crate) fn train(
    corpus: &dyn Corpus,
    size: usize,
    pass: Pass<'_>,
) -> Result<TextTokenizer, DataError> {
    if size < MINIMUM_BPE_VOCABULARY {
        return Err(DataError::BpeTooSmall {
            found: size,
            minimum: MINIMUM_BPE_VOCABULARY,
        });
    }
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level()));
    tokenizer.with_decoder(Some(byte_level()));
    tokenizer.set_encode_special_tokens(true);
    let counts = count_words(&tokenizer, corpus, pass)?;
    // The number of merges is below the number of bytes, and the trainer allocates memory for the
    // requested number of tokens.
    let bytes: usize = counts.keys().map(String::len).sum();
    let size = size.min(MINIMUM_BPE_VOCABULARY.saturating_add(bytes));

    let trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(MINIMUM_OCCURRENCES)
        .special_tokens(added_tokens())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut model = BPE::default();
    let counts = counts
        .into_iter()
        .map(|(word, count)| (word.into(), count))
        .collect();
    trainer
        .do_train(&counts, &mut model)
        .map_err(tokenizer_error)?;
    tokenizer.with_model(model);
    tokenizer.add_special_tokens(&added_tokens());
    TextTokenizer::new(tokenizer, "of byte pairs")
}

/// The byte-level step of GPT-2, without the space that some files put before the first word.
/// Decoding is therefore exact.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// Counts each word of the corpus. Memory grows with the number of different words. The trainer's
/// own reader needs an iterator that is `Send`, which a corpus does not guarantee.
fn count_words(
    tokenizer: &Tokenizer,
    corpus: &dyn Corpus,
    pass: Pass<'_>,
) -> Result<HashMap<String, u64>, DataError> {
    let words = Words::of(tokenizer)
        .ok_or_else(|| tokenizer_error("unknown byte-level pipeline".into()))?;
    let mut total: HashMap<String, u64> = HashMap::new();
    let mut room = LONG_WORDS;
    for batch in batches(corpus.pieces()?) {
        let batch = batch?;
        let counted: Vec<Counted<'_>> = batch
            .par_iter()
            .map(|piece| count(tokenizer, words, &piece.text))
            .collect::<Result<_, DataError>>()?;
        for counted in counted {
            for (word, count) in counted.words {
                *total.entry(word).or_default() += count;
            }
            let long = counted.long.into_iter();
            for segment in long.flat_map(|word| segments(word, SEGMENT)) {
                if let Some(left) = room.checked_sub(segment.len()) {
                    room = left;
                    count_in(&mut total, tokenizer, segment)?;
                } else if room > 0 {
                    room = 0;
                    tracing::warn!(
                        limit = LONG_WORDS,
                        "the corpus has more text in long words than the vocabulary is learned from"
                    );
                }
            }
        }
        for piece in &batch {
            pass(piece)?;
        }
    }
    if total.is_empty() {
        return Err(DataError::EmptyCorpus {
            corpus: corpus.describe(),
        });
    }
    Ok(total)
}

/// The words of a text.
struct Counted<'a> {
    words: HashMap<String, u64>,
    /// The words that are too long to count as a whole.
    long: Vec<&'a str>,
}

/// Counts the words of a text in parts, because the `tokenizers` crate uses many times the size of
/// its input in memory. Parts end between words, so the result does not depend on them.
fn count<'a>(tokenizer: &Tokenizer, words: Words, text: &'a str) -> Result<Counted<'a>, DataError> {
    let mut counted = Counted {
        words: HashMap::new(),
        long: Vec::new(),
    };
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    words.units(text, |unit| {
        let is_long = unit.len() > LONGEST;
        if is_long || end - start > LONGEST {
            parts.push(&text[start..end]);
            start = end;
        }
        end += unit.len();
        if is_long {
            counted.long.push(unit);
            start = end;
        }
        Some(())
    });
    parts.push(&text[start..end]);
    for part in parts {
        count_in(&mut counted.words, tokenizer, part)?;
    }
    Ok(counted)
}

fn count_in(
    counts: &mut HashMap<String, u64>,
    tokenizer: &Tokenizer,
    text: &str,
) -> Result<(), DataError> {
    for word in pre_tokens(tokenizer, text)? {
        *counts.entry(word).or_default() += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FnCorpus;

    fn corpus() -> impl Corpus {
        FnCorpus::new("a test", || {
            (0..200).map(|n| Ok(format!("the lower the {n} lowest Löwe, lowered\n")))
        })
    }

    #[test]
    fn the_vocabulary_has_the_size_and_any_text_comes_back() {
        let tokenizer = TextTokenizer::train_bpe(&corpus(), 280).unwrap();
        assert_eq!(tokenizer.vocab_size(), 280);
        let specials = (tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id());
        assert_eq!(specials, (0, 1, 2));
        for text in [
            "the lowest",
            " two  spaces\n\ttab",
            "日本 🙂",
            "a [EOS] b",
            "",
        ] {
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
            assert!(tokens.iter().all(|&token| token > 2), "{text}");
        }
        let learned = tokenizer.encode("the lowest").unwrap().len();
        assert!(learned < 6, "{learned} tokens for a phrase of the corpus");
    }

    #[test]
    fn training_twice_gives_one_tokenizer() {
        let first = TextTokenizer::train_bpe(&corpus(), 300).unwrap();
        let second = TextTokenizer::train_bpe(&corpus(), 300).unwrap();
        assert_eq!(first.hash(), second.hash());
        let other = TextTokenizer::train_bpe(&corpus(), 290).unwrap();
        assert_ne!(first.hash(), other.hash());
    }

    #[test]
    fn a_corpus_without_pairs_left_gives_a_smaller_vocabulary() {
        let tokenizer = TextTokenizer::train_bpe(&corpus(), 5000).unwrap();
        assert!(tokenizer.vocab_size() > MINIMUM_BPE_VOCABULARY);
        assert!(tokenizer.vocab_size() < 1000);
    }

    #[test]
    fn a_vocabulary_beyond_all_bounds_is_what_the_text_gives() {
        let most = TextTokenizer::train_bpe(&corpus(), usize::MAX).unwrap();
        let many = TextTokenizer::train_bpe(&corpus(), 5000).unwrap();
        assert_eq!(most.hash(), many.hash());
    }

    #[test]
    fn words_are_counted_alike_in_parts_and_at_once() {
        let line = "  the lower 's the  lowest,\n\n Löwe  日本 don't ½ 12 \t\r\n ";
        let text = line.repeat(4 * LONGEST / line.len());
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(byte_level()));
        tokenizer.set_encode_special_tokens(true);
        let words = Words::of(&tokenizer).unwrap();
        let counted = count(&tokenizer, words, &text).unwrap();
        let mut at_once = HashMap::new();
        count_in(&mut at_once, &tokenizer, &text).unwrap();
        assert_eq!(counted.words, at_once);
        assert!(counted.long.is_empty());
    }

    #[test]
    fn long_words_are_learned_from_up_to_a_limit() {
        let gene = |letters: &'static str, times| {
            FnCorpus::new("a gene", move || std::iter::once(Ok(letters.repeat(times))))
        };
        let learned = TextTokenizer::train_bpe(&gene("acgtt", LONGEST), 270).unwrap();
        assert_eq!(learned.vocab_size(), 270);
        assert!(learned.encode("acgttacgtt").unwrap().len() < 5);
        let more = TextTokenizer::train_bpe(&gene("acgtt", 2 * LONG_WORDS / 5), 270).unwrap();
        let most = TextTokenizer::train_bpe(&gene("acgtt", 4 * LONG_WORDS / 5), 270).unwrap();
        assert_eq!(more.hash(), most.hash());
    }

    #[test]
    fn too_small_a_vocabulary_is_refused() {
        let error = TextTokenizer::train_bpe(&corpus(), 258).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a byte-level vocabulary needs at least 259 tokens, found 258"
        );
    }
}
