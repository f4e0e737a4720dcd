//! Encoding word by word, with the words that were seen lately remembered.
//!
//! The `tokenizers` crate takes most of its time to find the words of a text (GPT-2's with a
//! backtracking regular expression) and to keep track of where each character came from. Neither is
//! needed here, and most words of a text were there a moment ago.
//!
//! **Why the tokens are the same.** For some pipelines a text can be cut in units such that
//!
//! ```text
//! tokens(text) = tokens(unit 1) tokens(unit 2) …
//! ```
//!
//! and what a unit gives is asked of the crate itself, once. Which cuts do that:
//!
//! - *GPT-2* (`ByteLevel` with its regular expression, no normalizer): the model sees one match of
//!   the expression after the other, so the matches are units. A match taken on its own is one
//!   match again, because every alternative is a run of characters of one class, with at most a
//!   space before it, or a contraction. [`classes`] are those of the expression, out of the library
//!   that the expression is built on.
//! - *BERT* (`BertPreTokenizer` behind `BertNormalizer` or none): the words end at white space, which
//!   goes, and at punctuation, which stays on its own. Before that, the normalizer looks at single
//!   characters, but for canonical decomposition, which reorders marks behind a letter. Neither an
//!   ASCII space nor ASCII punctuation is changed by it, or passed by a mark that is reordered, so
//!   cuts beside these are units.
//! - *Words* (`WhitespaceSplit`, no normalizer): cuts at ASCII white space.
//! - *Characters* (the closed vocabulary that is built here): each is a unit.
//!
//! All this holds where special tokens are not looked for in text, which is how this crate encodes, where
//! no other tokens were added, where truncation is off, and where the post-processor only adds
//! special tokens (and is told not to). Whatever is not recognized as one of these goes to the crate as it
//! is, and so does any text of which the crate refuses a unit, so that errors are its own.
//!
//! **Where they are not.** The crate takes some hundred times the size of a unit in memory, so one beyond
//! [`LONGEST`] is encoded in segments, and no token spans two of them. Words of the text between spaces, as they
//! are looked up in a vocabulary, stay whole.

mod cache;
mod classes;

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Model, ModelWrapper, Tokenizer};

use super::closed::split_chars;
use classes::{Class, classes};

/// A unit longer than this, in bytes, is encoded in segments of at most this size. (On a run of a million spaces
/// the crate's expression gives up as well.)
pub(super) const LONGEST: usize = 1 << 16;

/// How to cut texts in units for one tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    /// Tells the entries of this tokenizer from those of others in the memory of a thread.
    key: u64,
    cut: Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    ByteLevel,
    Bert,
    Spaces,
    Chars,
}

impl Words {
    /// Recognizes the pipelines for which units are known.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let added = tokenizer.get_added_tokens_decoder();
        if added.values().any(|token| !token.special)
            || !tokenizer.get_encode_special_tokens()
            || tokenizer.get_truncation().is_some()
            || !only_adds(tokenizer.get_post_processor())
        {
            return None;
        }
        // Models whose tokens depend on nothing but the word.
        match tokenizer.get_model() {
            ModelWrapper::BPE(model) if model.dropout.is_none() => {}
            ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => {}
            _ => return None,
        }
        let cut = match (tokenizer.get_pre_tokenizer()?, tokenizer.get_normalizer()) {
            (PreTokenizerWrapper::ByteLevel(byte_level), None)
                if !byte_level.add_prefix_space && byte_level.use_regex =>
            {
                classes()?;
                Cut::ByteLevel
            }
            (
                PreTokenizerWrapper::BertPreTokenizer(_),
                None | Some(NormalizerWrapper::BertNormalizer(_)),
            ) => Cut::Bert,
            (PreTokenizerWrapper::WhitespaceSplit(_), None) => Cut::Spaces,
            (PreTokenizerWrapper::Split(split), None) if *split == split_chars().ok()? => {
                Cut::Chars
            }
            _ => return None,
        };
        Some(Self {
            key: cache::new_key(),
            cut,
        })
    }

    /// The tokens of a text, or `None` where the crate has to be asked for all of it.
    pub(super) fn encode(self, tokenizer: &Tokenizer, text: &str) -> Option<Vec<u32>> {
        cache::with(self.key, |cache| {
            let mut tokens = Vec::with_capacity(text.len() / 4);
            self.units(text, |unit| {
                if unit.len() > LONGEST {
                    return self.encode_long(tokenizer, unit, &mut tokens);
                }
                cache.extend(unit, &mut tokens, |unit| {
                    let encoding = tokenizer.encode_fast(unit, false).ok()?;
                    Some(encoding.get_ids().to_vec())
                })
            })?;
            Some(tokens)
        })
    }

    /// Appends the tokens of a unit that is too long for the crate, without holding more than a segment's share of
    /// its memory.
    fn encode_long(self, tokenizer: &Tokenizer, unit: &str, out: &mut Vec<u32>) -> Option<()> {
        let model = tokenizer.get_model();
        if self.cut == Cut::Spaces && !matches!(model, ModelWrapper::BPE(_)) {
            // Looked up as it is, so its size does not matter.
            return unit.split_whitespace().try_for_each(|word| {
                let tokens = model.tokenize(word).ok()?;
                out.extend(tokens.iter().map(|token| token.id));
                Some(())
            });
        }
        segments(unit, LONGEST).try_for_each(|segment| {
            let encoding = tokenizer.encode_fast(segment, false).ok()?;
            out.extend_from_slice(encoding.get_ids());
            Some(())
        })
    }

    /// Calls `take` with each unit until one is refused.
    pub(super) fn units<'a>(
        self,
        text: &'a str,
        mut take: impl FnMut(&'a str) -> Option<()>,
    ) -> Option<()> {
        match self.cut {
            Cut::ByteLevel => {
                let classes = classes()?;
                let mut rest = text;
                while !rest.is_empty() {
                    let (unit, after) = rest.split_at(byte_level_word(rest, classes));
                    take(unit)?;
                    rest = after;
                }
                Some(())
            }
            Cut::Bert => text
                .split([' ', '\t', '\n', '\r'])
                .flat_map(|chunk| chunk.split_inclusive(|c: char| c.is_ascii_punctuation()))
                .try_for_each(|unit| {
                    // The mark ends the unit; it is one of its own.
                    let mark = unit.len().saturating_sub(1);
                    if !unit.ends_with(|c: char| c.is_ascii_punctuation()) || mark == 0 {
                        return if unit.is_empty() {
                            Some(())
                        } else {
                            take(unit)
                        };
                    }
                    take(&unit[..mark])?;
                    take(&unit[mark..])
                }),
            Cut::Spaces => text
                .split([' ', '\t', '\n', '\r'])
                .filter(|unit| !unit.is_empty())
                .try_for_each(take),
            Cut::Chars => text
                .char_indices()
                .try_for_each(|(at, c)| take(&text[at..at + c.len_utf8()])),
        }
    }
}

/// A long unit in segments of at most so many bytes, at least four. They begin at white space or at an ideograph where there is
/// one: a tokenizer of BERT's kind, whose units may hold many words, separates words there as well.
pub(super) fn segments(unit: &str, longest: usize) -> impl Iterator<Item = &str> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        let most = rest.floor_char_boundary(longest);
        let end = if most == rest.len() {
            most
        } else {
            let starts =
                |&(at, c): &(usize, char)| at > 0 && (c.is_whitespace() || is_ideograph(c));
            let start = rest[..most].char_indices().rfind(starts);
            start.map_or(most, |(at, _)| at)
        };
        let (segment, after) = rest.split_at(end);
        rest = after;
        (!segment.is_empty()).then_some(segment)
    })
}

/// The ideographs of everyday text.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{2a6df}')
}

/// Whether a post-processor gives the tokens of a text as they are, when it may add none.
fn only_adds(post_processor: Option<&PostProcessorWrapper>) -> bool {
    match post_processor {
        None
        | Some(
            PostProcessorWrapper::Roberta(_)
            | PostProcessorWrapper::Bert(_)
            | PostProcessorWrapper::ByteLevel(_),
        ) => true,
        // A template could name the text twice, or not at all.
        Some(template @ PostProcessorWrapper::Template(_)) => {
            let template = serde_json::to_value(template).unwrap_or_default();
            let pieces = template.get("single").and_then(|single| single.as_array());
            let texts = pieces.into_iter().flatten();
            texts
                .filter(|piece| piece.get("Sequence").is_some())
                .count()
                == 1
        }
        Some(_) => false,
    }
}

/// Length of the first match of GPT-2's expression,
///
/// ```text
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// ```
///
/// in a text that is not empty. It always begins at the first character, as each is of some class.
fn byte_level_word(text: &str, classes: &[Class]) -> usize {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(word) = CONTRACTIONS.iter().find(|&&word| text.starts_with(word)) {
        return word.len();
    }
    let class = |c: char| classes[c as usize];
    let run = |start: usize, of: Class| {
        let rest = &text[start..];
        start + rest.find(|c| class(c) != of).unwrap_or(rest.len())
    };
    // A space goes with the letters, numbers or signs after it.
    let start = usize::from(text.starts_with(' '));
    match text[start..].chars().next().map(class) {
        Some(of) if of != Class::Space => return run(start, of),
        _ => {}
    }
    // The last of several spaces is left to what follows them, unless nothing does.
    let end = run(0, Class::Space);
    let last = text[..end].char_indices().next_back();
    match last {
        Some((last, _)) if end < text.len() && last > 0 => last,
        _ => end,
    }
}

#[cfg(test)]
mod tests;
