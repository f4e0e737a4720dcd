//! Byte pairs learnt from a corpus.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::specials::added_tokens;
use super::{Pass, SPECIALS, TextTokenizer, pre_tokens};
use crate::error::tokenizer_error;
use crate::pieces::batches;
use crate::{Corpus, DataError};

/// The smallest byte-level vocabulary: every byte, and the three special tokens.
pub const MINIMUM_BPE_VOCABULARY: usize = 256 + SPECIALS.len();

// A pair that occurs once shortens nothing else, and would make tokens of single names.
const MINIMUM_OCCURRENCES: u64 = 2;

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
    let counts = count_words(&tokenizer, corpus, pass)?;
    // There are no more pairs to merge than bytes, and the trainer takes memory for as many tokens as it is asked for.
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

/// As in GPT-2, but for the space that some files put before the first word: without it a text
/// comes back exactly.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// How often each word of the corpus occurs. Memory grows with the number of different words; the
/// trainer's own reader takes an iterator that can move between threads, which a corpus need not
/// give.
fn count_words(
    tokenizer: &Tokenizer,
    corpus: &dyn Corpus,
    pass: Pass<'_>,
) -> Result<HashMap<String, u64>, DataError> {
    let mut total: HashMap<String, u64> = HashMap::new();
    for batch in batches(corpus.pieces()?) {
        let batch = batch?;
        let counted: Vec<HashMap<String, u64>> = batch
            .par_iter()
            .map(|piece| {
                let mut counts = HashMap::new();
                for word in pre_tokens(tokenizer, &piece.text)? {
                    *counts.entry(word).or_default() += 1;
                }
                Ok(counts)
            })
            .collect::<Result<_, DataError>>()?;
        for (word, count) in counted.into_iter().flatten() {
            *total.entry(word).or_default() += count;
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
        let learnt = tokenizer.encode("the lowest").unwrap().len();
        assert!(learnt < 6, "{learnt} tokens for a phrase of the corpus");
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
    fn too_small_a_vocabulary_is_refused() {
        let error = TextTokenizer::train_bpe(&corpus(), 258).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a byte-level vocabulary needs at least 259 tokens, found 258"
        );
    }
}
