//! A tokenizer with the three tokens that rows are made of.

pub(crate) mod bpe;
pub(crate) mod closed;
mod specials;
mod words;

use std::fs;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::{ModelWrapper, OffsetReferential, OffsetType, PreTokenizer, Tokenizer};

pub use bpe::MINIMUM_BPE_VOCABULARY;
pub(crate) use specials::SPECIALS;
pub use specials::{BOS, EOS, PAD};

use crate::corpus::{Piece, cut};
use crate::error::tokenizer_error;
use crate::guard::guarded;
use crate::{Corpus, DataError};
use specials::SpecialIds;
use words::Words;

/// Called with each piece of text that was read for a vocabulary; an error ends the reading.
pub(crate) type Pass<'a> = &'a mut dyn FnMut(&Piece) -> Result<(), DataError>;

/// The most of a text that is given to the `tokenizers` crate at once, in bytes; it takes some hundred times as
/// much memory.
const LONGEST: usize = 1 << 20;

/// Turns text into tokens and back, and knows which tokens begin, end and pad a row.
///
/// Four kinds are built here, all of them ordinary tokenizers of the `tokenizers` crate that save
/// as `tokenizer.json`:
///
/// - [`words`](Self::words): a closed vocabulary of words split at white space. Text comes back
///   with one space between words.
/// - [`chars`](Self::chars): a closed vocabulary of characters (Unicode scalar values). Text comes
///   back exactly.
/// - [`train_bpe`](Self::train_bpe): byte pairs learnt from a corpus, over bytes, so that any text
///   can be encoded and comes back exactly.
/// - [`load`](Self::load): any `tokenizer.json`.
///
/// The first three have `[PAD]`, `[BOS]` and `[EOS]` as tokens 0, 1 and 2. In a file from
/// elsewhere they are found by name among the added tokens marked special, the first that is there:
///
/// - end: `[EOS]`, `</s>`, `<eos>`, `<|endoftext|>`, `<|end_of_text|>`, `[SEP]`; without one the
///   file is refused;
/// - begin: `[BOS]`, `<s>`, `<bos>`, `<|begin_of_text|>`, `[CLS]`, otherwise the end token;
/// - padding: `[PAD]`, `<pad>`, `<|pad|>`, `<|padding|>`, otherwise the end token.
///
/// So GPT-2 has `<|endoftext|>` for all three, and BERT `[CLS]`, `[SEP]` and `[PAD]`.
///
/// Special tokens never come out of text: a document that spells `<|endoftext|>` is encoded as
/// those characters and cannot end a row. In the closed word vocabulary, where it would be a word
/// of its own, such a text is an error. Truncation, padding and dropout that a file asks for are
/// switched off.
///
/// Tokens are those of the `tokenizers` crate, but for two cases in which it would take a hundred times the size of a
/// text in memory. Of a word (a run of letters, of digits, of signs or of spaces) of more than 64 KiB, no token spans two
/// segments of that size. A pipeline that is not known here takes a text of more than 1 MiB in parts, cut at a
/// line end or else at a space, if there is one.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// The quick way to the same tokens, where there is one.
    words: Option<Words>,
    /// Whether a special token that is spelt in a text is that token.
    reads_specials: bool,
    specials: SpecialIds,
    vocabulary: usize,
    hash: String,
}

impl TextTokenizer {
    /// The closed vocabulary of all words of a corpus, sorted by their bytes. Memory grows with
    /// the number of different words, not with the corpus.
    ///
    /// # Errors
    /// What reading the corpus gives; [`DataError::EmptyCorpus`] when there is no word;
    /// [`DataError::BadWord`] when a word is one of the special tokens.
    pub fn words(corpus: &dyn Corpus) -> Result<Self, DataError> {
        closed::words(corpus, &mut |_| Ok(()))
    }

    /// The closed vocabulary of the given words, in the given order from token 3 on.
    ///
    /// # Errors
    /// [`DataError::BadWord`] when a word is empty, holds white space, occurs twice or is one of
    /// the special tokens.
    pub fn from_words<I>(words: I) -> Result<Self, DataError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        closed::from_words(words.into_iter().map(Into::into).collect())
    }

    /// The closed vocabulary of all characters of a corpus, sorted by code point.
    ///
    /// # Errors
    /// What reading the corpus gives; [`DataError::EmptyCorpus`] when there is no character.
    pub fn chars(corpus: &dyn Corpus) -> Result<Self, DataError> {
        closed::chars(corpus, &mut |_| Ok(()))
    }

    /// A byte-level vocabulary of at most `size` tokens learnt from a corpus. A small corpus, in
    /// which no more pairs occur twice, gives fewer.
    ///
    /// # Errors
    /// What reading the corpus gives; [`DataError::BpeTooSmall`] for a size below
    /// [`MINIMUM_BPE_VOCABULARY`]; [`DataError::EmptyCorpus`] when there is no text.
    pub fn train_bpe(corpus: &dyn Corpus, size: usize) -> Result<Self, DataError> {
        bpe::train(corpus, size, &mut |_| Ok(()))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read or understood, or has no end token.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(DataError::io("read", path))?;
        Self::of_bytes(&bytes, path)
    }

    /// The tokenizer with the content `json` of a `tokenizer.json`, from the file of that `name`.
    ///
    /// # Errors
    /// When it cannot be understood, or has no end token.
    pub fn from_json(json: &str, name: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::of_bytes(json.as_bytes(), name.as_ref())
    }

    fn of_bytes(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        let bad = |reason: String| DataError::BadTokenizer {
            path: path.to_path_buf(),
            reason,
        };
        // The library takes for granted that its decoder, for one, is JSON.
        let inner = guarded(|| Tokenizer::from_bytes(bytes))
            .ok_or_else(|| bad("its parts cannot be read".to_owned()))?
            .map_err(|error| bad(error.to_string()))?;
        Self::new(inner, &path.display().to_string())
    }

    /// The same tokenizer with a token of its own for padding, `[PAD]`, after all others, if it has none. So the paper's code
    /// makes 50,258 tokens of GPT-2's 50,257.
    ///
    /// # Errors
    /// When the tokenizer cannot be written out again.
    pub fn with_padding(mut self) -> Result<Self, DataError> {
        if self.specials.pad != self.specials.eos {
            return Ok(self);
        }
        self.inner
            .add_special_tokens(&[tokenizers::AddedToken::from(PAD, true)]);
        Self::new(self.inner, PAD)
    }

    /// The same tokenizer, but it reads a special token that is spelt in a text as that token, as published evaluations cut
    /// samples: `<|endoftext|>` ends GPT-2's text.
    #[must_use]
    pub fn reading_specials(mut self) -> Self {
        self.inner.set_encode_special_tokens(false);
        // It knows nothing of special tokens.
        self.words = None;
        self.reads_specials = true;
        self
    }

    /// The content of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizer cannot be written out.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(tokenizer_error)
    }

    /// Writes a `tokenizer.json`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), DataError> {
        let path = path.as_ref();
        let json = self.to_json()?;
        Ok(flm_files::write(path, json.as_bytes())?)
    }

    /// The tokens of a text, without a begin or end token.
    ///
    /// # Errors
    /// [`DataError::UnknownWord`] for a word or character that a closed vocabulary lacks,
    /// [`DataError::BadWord`] for a special token spelt in a text of words.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        if let Some(tokens) = self.words.and_then(|words| words.encode(&self.inner, text)) {
            return self.checked(tokens);
        }
        let mut tokens = Vec::new();
        for part in parts(text) {
            match self.inner.encode_fast(part, false) {
                Ok(encoding) => tokens.extend_from_slice(encoding.get_ids()),
                Err(error) => return Err(self.explain(part, error)),
            }
        }
        self.checked(tokens)
    }

    /// The tokens of many texts, in their order; on several cores, which changes nothing in the
    /// result.
    ///
    /// # Errors
    /// That of [`encode`](Self::encode) for the first text that has one.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, DataError> {
        let encoded: Vec<_> = texts.par_iter().map(|text| self.encode(text)).collect();
        encoded.into_iter().collect()
    }

    /// The text of a row, as far as it goes: a begin token at the front is dropped and the text
    /// ends before the first end token. Any other special token stays visible in it.
    ///
    /// # Errors
    /// [`DataError::UnknownToken`] for a token before that end which is not in the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        let tokens = match tokens {
            [first, rest @ ..] if *first == self.specials.bos => rest,
            _ => tokens,
        };
        let end = tokens.iter().position(|&token| token == self.specials.eos);
        self.decode_all(&tokens[..end.unwrap_or(tokens.len())])
    }

    /// The text of all the given tokens, with every special token visible: how a packed row looks.
    ///
    /// # Errors
    /// [`DataError::UnknownToken`] for a token that is not in the vocabulary.
    pub fn decode_all(&self, tokens: &[u32]) -> Result<String, DataError> {
        if let Some(&token) = tokens.iter().find(|&&token| self.token(token).is_none()) {
            return Err(DataError::UnknownToken {
                token,
                vocabulary: self.vocabulary,
            });
        }
        self.inner.decode(tokens, false).map_err(tokenizer_error)
    }

    /// The number of tokens: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary
    }

    /// How a token is spelt in the vocabulary (for byte-level tokenizers not yet text: a space is
    /// `Ġ`), or `None` when there is no such token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token of this spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that fills a row after its end.
    pub fn pad_id(&self) -> u32 {
        self.specials.pad
    }

    /// The token that begins a packed block.
    pub fn bos_id(&self) -> u32 {
        self.specials.bos
    }

    /// The token that ends a text.
    pub fn eos_id(&self) -> u32 {
        self.specials.eos
    }

    /// SHA-256 in hexadecimal of the tokenizer's JSON without white space and with sorted keys:
    /// the same for every tokenizer that encodes alike, however its file is laid out.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn new(mut inner: Tokenizer, name: &str) -> Result<Self, DataError> {
        // GPT-2's published file cuts texts at 50 tokens; none of these suits a corpus.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(tokenizer_error)?;
        if let ModelWrapper::BPE(model) = inner.get_model()
            && model.dropout.is_some()
        {
            let mut model = model.clone();
            model.dropout = None;
            inner.with_model(model);
        }
        inner.set_encode_special_tokens(true);
        let specials = SpecialIds::find(&inner, name)?;
        // A vocabulary may have holes, so its number of entries is not enough.
        let vocabulary = inner.get_vocab(true);
        let entries = vocabulary.len();
        let largest = vocabulary.into_values().max().unwrap_or(0) as usize;
        // Holes are written out one by one, and everything here is as large as the largest number.
        if largest > 4 * entries + (1 << 16) {
            return Err(DataError::BadTokenizer {
                path: name.into(),
                reason: format!("it has token {largest} in a vocabulary of {entries}"),
            });
        }
        Ok(Self {
            specials,
            vocabulary: if entries == 0 { 0 } else { largest + 1 },
            hash: hash(&inner)?,
            words: Words::of(&inner),
            reads_specials: false,
            inner,
        })
    }

    /// Refuses special tokens in the text of a closed vocabulary, where they are words.
    fn checked(&self, tokens: Vec<u32>) -> Result<Vec<u32>, DataError> {
        if !self.reads_specials && matches!(self.inner.get_model(), ModelWrapper::WordLevel(_)) {
            let specials = [self.specials.pad, self.specials.bos, self.specials.eos];
            if let Some(&token) = tokens.iter().find(|token| specials.contains(token)) {
                return Err(bad_word(
                    &self.token(token).unwrap_or_default(),
                    specials::RESERVED,
                ));
            }
        }
        Ok(tokens)
    }

    /// Finds the word behind the failure of a closed vocabulary, which the model does not name.
    fn explain(&self, text: &str, error: tokenizers::Error) -> DataError {
        let words = if matches!(self.inner.get_model(), ModelWrapper::WordLevel(_)) {
            pre_tokens(&self.inner, text).unwrap_or_default()
        } else {
            Vec::new()
        };
        let unknown = words.into_iter().find(|word| self.token_id(word).is_none());
        match unknown {
            Some(word) => DataError::UnknownWord {
                word: shown(&word),
                vocabulary: self.vocabulary,
            },
            None => tokenizer_error(error),
        }
    }
}

fn bad_word(word: &str, reason: &'static str) -> DataError {
    DataError::BadWord {
        word: shown(word),
        reason,
    }
}

/// A word in a message: a very long one by its beginning.
fn shown(word: &str) -> String {
    const MOST: usize = 80;
    let end = word.floor_char_boundary(MOST);
    let rest = if end < word.len() { "…" } else { "" };
    format!("{}{rest}", word[..end].escape_debug())
}

/// A text in parts that are not too long for the `tokenizers` crate.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.as_bytes().get(..LONGEST) {
            Some(full) if rest.len() > LONGEST => cut(full),
            _ => rest.len(),
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// The words that a tokenizer would look up in its model.
fn pre_tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<String>, DataError> {
    let mut text = tokenizer
        .get_added_vocabulary()
        .extract_and_normalize(tokenizer.get_normalizer(), text);
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer
            .pre_tokenize(&mut text)
            .map_err(tokenizer_error)?;
    }
    Ok(text
        .get_splits(OffsetReferential::Original, OffsetType::None)
        .into_iter()
        .filter(|(_, _, tokens)| tokens.is_none())
        .map(|(word, _, _)| word.to_owned())
        .collect())
}

fn hash(tokenizer: &Tokenizer) -> Result<String, DataError> {
    let json = tokenizer.to_string(false).map_err(tokenizer_error)?;
    let value: serde_json::Value =
        serde_json::from_str(&json).map_err(|error| tokenizer_error(error.into()))?;
    let mut canonical = String::with_capacity(json.len());
    write_canonical(&value, &mut canonical);
    Ok(Sha256::digest(canonical.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// JSON with the keys of every object sorted, whatever order the serializer's maps are in.
fn write_canonical(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (key, value) in entries {
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        serde_json::Value::Array(values) => {
            out.push('[');
            for value in values {
                write_canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
