//! Encodes word by word, with a cache of recent words.
//!
//! The `tokenizers` crate spends most of its time on finding the words of a text (for GPT-2 with a
//! backtracking regular expression) and on tracking character offsets. Offsets are not needed here,
//! and most words of a text have occurred shortly before.
//!
//! **Why the tokens are the same.** For some pipelines, a text can be cut into units such that
//!
//! ```text
//! tokens(text) = tokens(unit 1) tokens(unit 2) …
//! ```
//!
//! The `tokenizers` crate encodes each new unit once. The following cuts have this property:
//!
//! - *GPT-2* (`ByteLevel` with its regular expression, no normalizer): the model processes the
//!   matches of the expression one by one, so the matches are units. A match alone is again one
//!   match, because every alternative is a contraction or a run of characters of one class with at
//!   most one space before it. [`classes`] gives the character classes, from the library that
//!   implements the expression.
//! - *BERT* (`BertPreTokenizer`, after `BertNormalizer` or no normalizer): words end at white
//!   space, which is removed, and at punctuation, which becomes a separate word. The normalizer
//!   processes single characters, except for canonical decomposition, which reorders marks after a
//!   letter. It does not change ASCII spaces or ASCII punctuation, and marks do not move past them.
//!   So cuts next to these characters give units.
//! - *Words* (`WhitespaceSplit`, no normalizer): cuts at ASCII white space.
//! - *Characters* (the closed vocabulary built in this crate): each character is a unit.
//!
//! This holds under four conditions: special tokens in text are not recognized (the default of this
//! crate), no other tokens were added, truncation is off, and the post-processor only adds special
//! tokens (which is disabled). For all other pipelines, and for texts with a unit that it rejects,
//! the `tokenizers` crate encodes the whole text, so that errors are its own.
//!
//! **Exception.** The `tokenizers` crate uses about a hundred times the size of a unit in memory. A
//! unit longer than [`LONGEST`] is therefore encoded in segments, and no token spans two of them.
//! Words between spaces that are looked up in a vocabulary stay whole.

mod cache;
mod classes;

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Model, ModelWrapper, Tokenizer};

use super::closed::split_chars;
use classes::{Class, classes};

/// Units longer than this, in bytes, are encoded in segments of at most this size. (The crate's
/// expression also fails on a run of a million spaces.)
pub(super) const LONGEST: usize = 1 << 16;

/// The rule that cuts texts into units for one tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    /// Identifies the entries of this tokenizer in the cache of a thread.
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
    /// Returns the rule for a tokenizer with a known pipeline.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let added = tokenizer.get_added_tokens_decoder();
        if added.values().any(|token| !token.special)
            || !tokenizer.get_encode_special_tokens()
            || tokenizer.get_truncation().is_some()
            || !only_adds(tokenizer.get_post_processor())
        {
            return None;
        }
        // The tokens of these models depend only on the word.
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

    /// Encodes a text. Returns `None` if the crate must encode the whole text.
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

    /// Appends the tokens of a unit that is too long for the crate. Peak memory is that of one
    /// segment.
    fn encode_long(self, tokenizer: &Tokenizer, unit: &str, out: &mut Vec<u32>) -> Option<()> {
        let model = tokenizer.get_model();
        if self.cut == Cut::Spaces && !matches!(model, ModelWrapper::BPE(_)) {
            // The word is looked up as a whole, so its size does not matter.
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

    /// Calls `take` with each unit until it returns `None`.
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
                    // The punctuation mark ends the unit and is itself a unit.
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

/// Splits a long unit into segments of at most `longest` bytes, at least four. Segments start at
/// white space or at an ideograph if possible, because BERT's pre-tokenizer separates words there
/// as well and its units may contain many words.
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

/// Whether a character is a common ideograph.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{2a6df}')
}

/// Whether a post-processor leaves the tokens of a text unchanged when it may not add special
/// tokens.
fn only_adds(post_processor: Option<&PostProcessorWrapper>) -> bool {
    match post_processor {
        None
        | Some(
            PostProcessorWrapper::Roberta(_)
            | PostProcessorWrapper::Bert(_)
            | PostProcessorWrapper::ByteLevel(_),
        ) => true,
        // A template may contain the text twice, or not at all.
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

/// Returns the length of the first match of GPT-2's expression,
///
/// ```text
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// ```
///
/// in a text that is not empty. The match always starts at the first character, because each
/// character belongs to a class.
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
    // A space belongs to the letters, numbers or signs after it.
    let start = usize::from(text.starts_with(' '));
    match text[start..].chars().next().map(class) {
        Some(of) if of != Class::Space => return run(start, of),
        _ => {}
    }
    // The last of several spaces belongs to the text after them, if there is any.
    let end = run(0, Class::Space);
    let last = text[..end].char_indices().next_back();
    match last {
        Some((last, _)) if end < text.len() && last > 0 => last,
        _ => end,
    }
}

#[cfg(test)]
mod tests;
