//! Conditioning on known text, converted to tokens at positions.

use crate::{Error, Result};
use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};
use flm_data::{Layout, TextTokenizer};
use flm_discrete::Tokens;
use serde::{Deserialize, Serialize};
use std::iter::repeat_n;
use std::ops::Range;

/// A record of how a sample was conditioned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The text that the sample begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The text that the sample ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// The text with the blanks that the sample fills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infill: Option<String>,
    /// The positions that were sampled.
    pub open: Vec<usize>,
}

/// Text or tokens that are given before sampling.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Conditioning {
    /// No known text.
    #[default]
    None,
    /// A prompt, a suffix, or both.
    ///
    /// Only packed blocks support a suffix, because the end position of a row of one document is
    /// sampled too.
    Ends {
        /// The text that the sample begins with.
        prompt: Option<String>,
        /// The text that the sample ends with.
        suffix: Option<String>,
    },
    /// Texts with blanks; `SampleOptions::count` samples for each text.
    Infill(Vec<Blanks>),
    /// Rows of tokens, `None` at positions to sample; `SampleOptions::count` samples for each row.
    Tokens(Vec<Vec<Option<u32>>>),
}

/// A text with blanks: `___` is a blank of one token, `___{3}` of three.
///
/// In a row of one document the end of the text is known too. In a packed block the text continues
/// after it. If tokens include the space before their word, as in byte-level vocabularies, a blank
/// includes its leading space.
#[derive(Clone, Debug, PartialEq)]
pub struct Blanks {
    /// The text.
    pub text: String,
    /// The source of the text, for messages.
    pub place: String,
}

impl Conditioning {
    /// Creates a conditioning for samples that begin with a text.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::Ends {
            prompt: Some(text.into()),
            suffix: None,
        }
    }

    /// Creates a conditioning for samples that fill the blanks of a text: `___` is a blank of one
    /// token, `___{3}` of three.
    pub fn infill(text: impl Into<String>) -> Self {
        Self::Infill(vec![Blanks {
            text: text.into(),
            place: "infill".to_owned(),
        }])
    }
}

/// A row of tokens, some of which are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KnownRow {
    /// One entry for each position.
    tokens: Vec<Option<u32>>,
    pub(crate) condition: Condition,
}

impl KnownRow {
    fn new(tokens: Vec<Option<u32>>, condition: Condition) -> Self {
        let open = (0..tokens.len()).filter(|&at| tokens[at].is_none());
        Self {
            condition: Condition {
                open: open.collect(),
                ..condition
            },
            tokens,
        }
    }
}

/// The layout of texts in the rows of a model.
pub(crate) struct Frame<'a> {
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) layout: Layout,
    pub(crate) length: usize,
}

impl Conditioning {
    /// Returns the known tokens of each text; empty for [`Conditioning::None`].
    pub(crate) fn rows(&self, frame: &Frame<'_>) -> Result<Vec<KnownRow>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Ends { prompt, suffix } => {
                Ok(vec![frame.ends(prompt.as_deref(), suffix.as_deref())?])
            }
            Self::Infill(texts) => texts.iter().map(|blanks| frame.infill(blanks)).collect(),
            Self::Tokens(rows) => {
                let known = |row: &Vec<_>| frame.tokens(row);
                rows.iter().map(known).collect()
            }
        }
    }
}

impl Frame<'_> {
    /// Returns a row with only the frame known: the begin and end tokens of a packed block.
    fn open(&self) -> Vec<Option<u32>> {
        let mut row = vec![None; self.length];
        if self.layout == Layout::Packed {
            row[0] = Some(self.tokenizer.bos_id());
            row[self.length - 1] = Some(self.tokenizer.eos_id());
        }
        row
    }

    /// Returns the positions available for text: before the end token of a row, or inside the frame
    /// of a packed block.
    fn room(&self) -> Range<usize> {
        match self.layout {
            Layout::Rows => 0..self.length - 1,
            Layout::Packed => 1..self.length - 1,
        }
    }

    fn encode(&self, text: &str, place: &str) -> Result<Vec<u32>> {
        self.tokenizer
            .encode(text)
            .map_err(|error| refused(place, error))
    }

    fn fits(&self, tokens: u128, place: &str) -> Result<()> {
        let room = self.room().len();
        if tokens > room as u128 {
            return Err(refused(
                place,
                format!("{tokens} tokens, but a text of this model has room for {room}"),
            ));
        }
        Ok(())
    }

    /// Checks and converts a row that is given as tokens.
    fn tokens(&self, row: &[Option<u32>]) -> Result<KnownRow> {
        let vocabulary = self.tokenizer.vocab_size();
        if row.len() != self.length {
            return Err(refused(
                "tokens",
                format!(
                    "a row has {} positions, expected {}",
                    row.len(),
                    self.length
                ),
            ));
        }
        if let Some(token) = row.iter().flatten().find(|&&id| id as usize >= vocabulary) {
            return Err(refused(
                "tokens",
                format!("{token} is not in the vocabulary of {vocabulary} tokens"),
            ));
        }
        Ok(KnownRow::new(row.to_vec(), Condition::default()))
    }

    fn ends(&self, prompt: Option<&str>, suffix: Option<&str>) -> Result<KnownRow> {
        if suffix.is_some() && self.layout == Layout::Rows {
            return Err(refused(
                "suffix",
                "only models of packed blocks support a suffix, because the end position of a row of one document is not known; use an infill instead, as in `___{4} the end`",
            ));
        }
        let tokens = |text: Option<&str>, place: &str| {
            let Some(text) = text else {
                return Ok(Vec::new());
            };
            let tokens = self.encode(text, place)?;
            if tokens.is_empty() {
                return Err(refused(place, "the text has no tokens"));
            }
            Ok(tokens)
        };
        let first = tokens(prompt, "prompt")?;
        let last = tokens(suffix, "suffix")?;
        let place = match (prompt, suffix) {
            (Some(_), Some(_)) => "prompt and suffix",
            (None, _) => "suffix",
            _ => "prompt",
        };
        self.fits((first.len() + last.len()) as u128, place)?;
        let (mut row, room) = (self.open(), self.room());
        for (at, token) in room.clone().zip(first) {
            row[at] = Some(token);
        }
        for (at, token) in room.rev().zip(last.into_iter().rev()) {
            row[at] = Some(token);
        }
        let condition = Condition {
            prompt: prompt.map(str::to_owned),
            suffix: suffix.map(str::to_owned),
            ..Condition::default()
        };
        Ok(KnownRow::new(row, condition))
    }

    /// Converts a text with blanks.
    ///
    /// In a row of one document all tokens except the blanks are known, including the end token and
    /// padding. A packed block continues after the text.
    fn infill(&self, Blanks { text, place }: &Blanks) -> Result<KnownRow> {
        let pieces = pieces(text).map_err(|error| refused(place, error))?;
        // Tokens of text, and the number of open positions after them.
        let mut runs = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Blank(count) => runs.push((Vec::new(), *count)),
                Piece::Text(text) => {
                    let blank_follows = number + 1 < pieces.len();
                    let text = if blank_follows && self.spaces_lead() {
                        text.strip_suffix(' ').unwrap_or(text)
                    } else {
                        text
                    };
                    runs.push((self.encode(text, place)?, 0));
                }
            }
        }
        // Check the length before allocating, because a blank may be arbitrarily long.
        let needed = runs
            .iter()
            .map(|(text, open)| text.len() as u128 + *open as u128)
            .sum();
        self.fits(needed, place)?;
        let known = |text: Vec<u32>| text.into_iter().map(Some);
        let tokens: Vec<Option<u32>> = (runs.into_iter())
            .flat_map(|(text, open)| known(text).chain(repeat_n(None, open)))
            .collect();
        let (mut row, room) = (self.open(), self.room());
        if self.layout == Layout::Rows {
            row.fill(Some(self.tokenizer.pad_id()));
            row[tokens.len()] = Some(self.tokenizer.eos_id());
        }
        for (at, token) in room.zip(tokens) {
            row[at] = token;
        }
        let condition = Condition {
            infill: Some(text.clone()),
            ..Condition::default()
        };
        Ok(KnownRow::new(row, condition))
    }

    /// Returns `true` if tokens include the space before their word, so that a blank includes both.
    ///
    /// Byte-level vocabularies write this space as `Ġ`, others as `▁`; neither has a token for a
    /// single space.
    fn spaces_lead(&self) -> bool {
        let has = |token| self.tokenizer.token_id(token).is_some();
        (has("Ġ") || has("▁")) && !has(" ")
    }
}

fn refused(place: &str, reason: impl ToString) -> Error {
    Error::Conditioning {
        place: place.to_owned(),
        reason: reason.to_string(),
    }
}

/// A part of a text with blanks.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// A blank of this number of tokens.
    Blank(usize),
}

/// Splits a text at its blanks: three or more underscores, optionally followed by a number of
/// tokens in braces.
fn pieces(text: &str) -> std::result::Result<Vec<Piece<'_>>, String> {
    const BLANK: &str = "___";
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find(BLANK) {
        if start > 0 {
            pieces.push(Piece::Text(&rest[..start]));
        }
        rest = rest[start..].trim_start_matches('_');
        let mut count = 1;
        if let Some(braced) = rest.strip_prefix('{') {
            let end = braced.find('}').unwrap_or(braced.len());
            count = (braced[..end].parse().ok())
                .filter(|&count| count > 0 && end < braced.len())
                .ok_or_else(|| {
                    format!(
                        "expected a number of tokens of at least 1, as in ___{{3}}, found ___{{{}",
                        &braced[..braced.len().min(end + 1)]
                    )
                })?;
            rest = &braced[end + 1..];
        }
        pieces.push(Piece::Blank(count));
    }
    if pieces.is_empty() {
        return Err(format!("there is no blank ___ to fill in `{text}`"));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// The known tokens of a batch of samples.
pub(crate) struct KnownBatch {
    /// One row per sample; 0 at unknown positions.
    pub(crate) tokens: Tokens,
    /// Whether each token is known, row by row.
    pub(crate) known: Vec<bool>,
}

impl KnownBatch {
    /// Returns the known tokens of rows; `None` if the first row has none.
    pub(crate) fn of<'a>(rows: impl Iterator<Item = Option<&'a KnownRow>>) -> Option<Self> {
        let rows: Vec<&KnownRow> = rows.map_while(|row| row).collect();
        let length = rows.first()?.tokens.len();
        let tokens: Vec<Option<u32>> = rows.iter().flat_map(|row| row.tokens.clone()).collect();
        let ids = tokens.iter().map(|token| token.unwrap_or(0) as i32);
        Some(Self {
            known: tokens.iter().map(Option::is_some).collect(),
            tokens: Tokens::new(ids.collect(), length),
        })
    }

    /// Returns the mask of known tokens, `[texts, length]`.
    pub(crate) fn mask<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Bool> {
        let shape = [self.tokens.rows(), self.tokens.length()];
        Tensor::from_data(TensorData::new(self.known.clone(), shape), device)
    }

    /// Overwrites `tokens`, of the same shape, with the known tokens.
    pub(crate) fn write(&self, tokens: &mut Tokens) {
        let known = self.tokens.ids().iter().zip(&self.known);
        for (token, (id, known)) in tokens.ids_mut().iter_mut().zip(known) {
            if *known {
                *token = *id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infill(frame: &Frame<'_>, text: &str) -> Result<Vec<Option<u32>>> {
        let rows = Conditioning::infill(text).rows(frame)?;
        Ok(rows[0].tokens.clone())
    }

    /// A tokenizer of three words, tokens 3, 4 and 5; 0, 1 and 2 are padding, begin and end.
    fn words() -> TextTokenizer {
        TextTokenizer::from_words(["a", "b", "c"]).unwrap()
    }

    fn frame(tokenizer: &TextTokenizer, layout: Layout, length: usize) -> Frame<'_> {
        Frame {
            tokenizer,
            layout,
            length,
        }
    }

    #[test]
    fn blanks_are_counted() {
        use Piece::{Blank, Text};
        assert_eq!(
            pieces("a ___ b").unwrap(),
            [Text("a "), Blank(1), Text(" b")]
        );
        assert_eq!(
            pieces("_____{12}a___").unwrap(),
            [Blank(12), Text("a"), Blank(1)]
        );
        assert_eq!(
            pieces("a __ b").unwrap_err(),
            "there is no blank ___ to fill in `a __ b`"
        );
        let expected = "expected a number of tokens of at least 1, as in ___{3}, found ";
        for (text, found) in [
            ("___{0} a", "___{0}"),
            ("___{x}", "___{x}"),
            ("___{3 a", "___{3 a"),
        ] {
            assert_eq!(pieces(text).unwrap_err(), format!("{expected}{found}"));
        }
    }

    #[test]
    fn in_a_row_everything_but_the_blanks_is_known_and_its_end_too() {
        let words = words();
        let rows = frame(&words, Layout::Rows, 7);
        let found = infill(&rows, "a ___{2} c").unwrap();
        let (a, c, end, pad) = (Some(3), Some(5), Some(2), Some(0));
        assert_eq!(found, [a, None, None, c, end, pad, pad]);
        let error = infill(&rows, "a ___{6}").unwrap_err().to_string();
        assert_eq!(
            error,
            "infill: 7 tokens, but a text of this model has room for 6"
        );
        // The lengths exceed any memory, and the sum exceeds `usize`.
        for (text, found) in [
            ("a ___{9999999999999999}", "10000000000000000"),
            ("___{18446744073709551615} ___", "18446744073709551616"),
        ] {
            let error = infill(&rows, text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("infill: {found} tokens, but a text of this model has room for 6")
            );
        }
        let error = infill(&rows, "a ___ dog").unwrap_err().to_string();
        assert_eq!(error, "infill: `dog` is not in the vocabulary of 6 tokens");
    }

    #[test]
    fn in_a_block_the_frame_is_known_and_what_is_behind_a_text_open() {
        let words = words();
        let packed = frame(&words, Layout::Packed, 7);
        let (begin, end) = (Some(1), Some(2));
        let found = infill(&packed, "a ___ c").unwrap();
        assert_eq!(found, [begin, Some(3), None, Some(5), None, None, end]);
        let ends = Conditioning::Ends {
            prompt: Some("a b".to_owned()),
            suffix: Some("b c".to_owned()),
        };
        let found = ends.rows(&packed).unwrap().remove(0);
        let expected = [begin, Some(3), Some(4), None, Some(4), Some(5), end];
        assert_eq!(found.tokens, expected);
        assert_eq!(found.condition.open, [3]);
        let error = ends.rows(&frame(&words, Layout::Packed, 5)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "prompt and suffix: 4 tokens, but a text of this model has room for 3"
        );
    }

    #[test]
    fn rows_of_tokens_fit_the_model() {
        let words = words();
        let rows = frame(&words, Layout::Rows, 3);
        let known = |row: Vec<_>| Conditioning::Tokens(vec![row]).rows(&rows);
        assert_eq!(
            known(vec![Some(3), None, Some(2)]).unwrap()[0]
                .condition
                .open,
            [1]
        );
        for (row, expected) in [
            (vec![None; 4], "tokens: a row has 4 positions, expected 3"),
            (
                vec![Some(6); 3],
                "tokens: 6 is not in the vocabulary of 6 tokens",
            ),
        ] {
            assert_eq!(known(row).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_blank_takes_the_space_before_it_where_tokens_do() {
        let corpus = flm_data::FnCorpus::new("a test", || {
            std::iter::once(Ok("ab ab ab ba ba".to_owned()))
        });
        let bytes = TextTokenizer::train_bpe(&corpus, 270).unwrap();
        let found = infill(&frame(&bytes, Layout::Packed, 20), "ab ___ ab").unwrap();
        let tokens = |text| bytes.encode(text).unwrap().into_iter().map(Some);
        let mut expected: Vec<_> = tokens("ab").collect();
        expected.push(None);
        expected.extend(tokens(" ab"));
        assert_eq!(found[1..][..expected.len()], expected);

        let chars = TextTokenizer::chars(&corpus).unwrap();
        let found = infill(&frame(&chars, Layout::Packed, 20), "ab ___ ab").unwrap();
        assert_eq!(
            found[1..8].iter().filter(|token| token.is_some()).count(),
            6
        );
        assert_eq!(found[4], None);
    }
}
