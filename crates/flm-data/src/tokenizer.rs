//! Tokenizers with begin, end and padding tokens for rows.

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

/// A callback for each piece of text read for a vocabulary. An error stops the pass.
pub(crate) type Pass<'a> = &'a mut dyn FnMut(&Piece) -> Result<(), DataError>;

/// The largest text passed to the `tokenizers` crate at once, in bytes. The crate uses about a
/// hundred times as much memory.
const LONGEST: usize = 1 << 20;

/// Converts text to tokens and back, and knows the tokens that begin, end and pad a row.
///
/// This crate builds three kinds of tokenizers and loads others. All are tokenizers of the
/// `tokenizers` crate and are saved as `tokenizer.json`:
///
/// - [`words`](Self::words): a closed vocabulary of words split at white space. Decoding puts one
///   space between words.
/// - [`chars`](Self::chars): a closed vocabulary of characters (Unicode scalar values). Decoding
///   restores the text exactly.
/// - [`train_bpe`](Self::train_bpe): byte pairs learned from a corpus. They work on bytes, so any
///   text can be encoded, and decoding restores it exactly.
/// - [`load`](Self::load): any `tokenizer.json`.
///
/// The first three have `[PAD]`, `[BOS]` and `[EOS]` as tokens 0, 1 and 2. In other files they are
/// found by name among the added tokens marked special; the first name present is used:
///
/// - end: `[EOS]`, `</s>`, `<eos>`, `<|endoftext|>`, `<|end_of_text|>`, `[SEP]`; a file without any
///   of these is an error;
/// - begin: `[BOS]`, `<s>`, `<bos>`, `<|begin_of_text|>`, `[CLS]`, otherwise the end token;
/// - padding: `[PAD]`, `<pad>`, `<|pad|>`, `<|padding|>`, otherwise the end token.
///
/// So GPT-2 uses `<|endoftext|>` for all three, and BERT uses `[CLS]`, `[SEP]` and `[PAD]`.
///
/// Encoding text never yields special tokens: a document that contains `<|endoftext|>` is encoded
/// as those characters and cannot end a row. In the closed word vocabulary, where it would be a
/// separate word, such a text is an error. Truncation, padding and dropout settings of a file are
/// disabled.
///
/// The tokens equal those of the `tokenizers` crate, with two exceptions that avoid a memory use of
/// a hundred times the text size. A word (a run of letters, digits, signs or spaces) of more than
/// 64 KiB is split into segments of that size, and no token spans two of them. For an unknown
/// pipeline, a text of more than 1 MiB is encoded in parts, cut at a line end or otherwise at a
/// space, if there is one.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// A faster implementation that gives the same tokens, for known pipelines.
    words: Option<Words>,
    /// Whether a special token that appears in a text is encoded as that token.
    reads_specials: bool,
    specials: SpecialIds,
    vocabulary: usize,
    hash: String,
}

impl TextTokenizer {
    /// Builds the closed vocabulary of all words of a corpus, sorted by their bytes. Memory grows
    /// with the number of different words, not with the corpus.
    ///
    /// # Errors
    /// Returns the errors of reading the corpus; [`DataError::EmptyCorpus`] if there are no words;
    /// [`DataError::BadWord`] if a word is a special token.
    pub fn words(corpus: &dyn Corpus) -> Result<Self, DataError> {
        closed::words(corpus, &mut |_| Ok(()))
    }

    /// Builds the closed vocabulary of the given words, in the given order, starting at token 3.
    ///
    /// # Errors
    /// Returns [`DataError::BadWord`] if a word is empty, contains white space, occurs twice or is
    /// a special token.
    pub fn from_words<I>(words: I) -> Result<Self, DataError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        closed::from_words(words.into_iter().map(Into::into).collect())
    }

    /// Builds the closed vocabulary of all characters of a corpus, sorted by code point.
    ///
    /// # Errors
    /// Returns the errors of reading the corpus; [`DataError::EmptyCorpus`] if there are no
    /// characters.
    pub fn chars(corpus: &dyn Corpus) -> Result<Self, DataError> {
        closed::chars(corpus, &mut |_| Ok(()))
    }

    /// Learns a byte-level vocabulary of at most `size` tokens from a corpus. Training stops
    /// earlier, with fewer tokens, when no pair occurs twice.
    ///
    /// # Errors
    /// Returns the errors of reading the corpus; [`DataError::BpeTooSmall`] for a size below
    /// [`MINIMUM_BPE_VOCABULARY`]; [`DataError::EmptyCorpus`] if there is no text.
    pub fn train_bpe(corpus: &dyn Corpus, size: usize) -> Result<Self, DataError> {
        bpe::train(corpus, size, &mut |_| Ok(()))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or parsed, or has no end token.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(DataError::io("read", path))?;
        Self::of_bytes(&bytes, path)
    }

    /// Creates a tokenizer from `json`, the content of a `tokenizer.json`. Errors use `name` as the
    /// file name.
    ///
    /// # Errors
    /// Returns an error if the content cannot be parsed, or has no end token.
    pub fn from_json(json: &str, name: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::of_bytes(json.as_bytes(), name.as_ref())
    }

    fn of_bytes(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        let bad = |reason: String| DataError::BadTokenizer {
            path: path.to_path_buf(),
            reason,
        };
        // The library panics on some invalid parts, such as a decoder that is not JSON.
        let inner = guarded(|| Tokenizer::from_bytes(bytes))
            .ok_or_else(|| bad("its parts cannot be read".to_owned()))?
            .map_err(|error| bad(error.to_string()))?;
        Self::new(inner, &path.display().to_string())
    }

    /// Adds a separate padding token, `[PAD]`, after all other tokens, if padding uses the end
    /// token. The paper's code extends GPT-2's 50,257 tokens to 50,258 in this way.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot be serialized.
    pub fn with_padding(mut self) -> Result<Self, DataError> {
        if self.specials.pad != self.specials.eos {
            return Ok(self);
        }
        self.inner
            .add_special_tokens(&[tokenizers::AddedToken::from(PAD, true)]);
        Self::new(self.inner, PAD)
    }

    /// Encodes special tokens that appear in a text as those tokens. Published evaluations truncate
    /// samples in this way: `<|endoftext|>` ends GPT-2's text.
    #[must_use]
    pub fn reading_specials(mut self) -> Self {
        self.inner.set_encode_special_tokens(false);
        // The fast implementation does not support special tokens.
        self.words = None;
        self.reads_specials = true;
        self
    }

    /// Returns the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot be serialized.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(tokenizer_error)
    }

    /// Writes a `tokenizer.json` atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), DataError> {
        let path = path.as_ref();
        let json = self.to_json()?;
        Ok(flm_files::write(path, json.as_bytes())?)
    }

    /// Encodes a text, without a begin or end token.
    ///
    /// # Errors
    /// Returns [`DataError::UnknownWord`] for a word or character that is not in a closed
    /// vocabulary, and [`DataError::BadWord`] for a special token in a text of words.
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

    /// Encodes several texts on several cores, in order. The number of cores does not affect the
    /// result.
    ///
    /// # Errors
    /// Returns the error of [`encode`](Self::encode) for the first text that fails.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, DataError> {
        let encoded: Vec<_> = texts.par_iter().map(|text| self.encode(text)).collect();
        encoded.into_iter().collect()
    }

    /// Decodes a row. Drops a begin token at the front and stops before the first end token. Any
    /// other special token stays visible in the text.
    ///
    /// # Errors
    /// Returns [`DataError::UnknownToken`] for a token before that end that is not in the
    /// vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        let tokens = match tokens {
            [first, rest @ ..] if *first == self.specials.bos => rest,
            _ => tokens,
        };
        let end = tokens.iter().position(|&token| token == self.specials.eos);
        self.decode_all(&tokens[..end.unwrap_or(tokens.len())])
    }

    /// Decodes all given tokens, with every special token visible, as for a packed row.
    ///
    /// # Errors
    /// Returns [`DataError::UnknownToken`] for a token that is not in the vocabulary.
    pub fn decode_all(&self, tokens: &[u32]) -> Result<String, DataError> {
        if let Some(&token) = tokens.iter().find(|&&token| self.token(token).is_none()) {
            return Err(DataError::UnknownToken {
                token,
                vocabulary: self.vocabulary,
            });
        }
        self.inner.decode(tokens, false).map_err(tokenizer_error)
    }

    /// Returns the vocabulary size: the largest token number plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary
    }

    /// Returns the spelling of a token in the vocabulary, or `None` if the token does not exist. In
    /// byte-level vocabularies the spelling is not text: a space is `Ġ`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Returns the token with this spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the token that pads a row after its end.
    pub fn pad_id(&self) -> u32 {
        self.specials.pad
    }

    /// Returns the token that begins a packed block.
    pub fn bos_id(&self) -> u32 {
        self.specials.bos
    }

    /// Returns the token that ends a text.
    pub fn eos_id(&self) -> u32 {
        self.specials.eos
    }

    /// Returns the SHA-256, in hexadecimal, of the tokenizer's JSON without white space and with
    /// sorted keys. It does not depend on the formatting of the file.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn new(mut inner: Tokenizer, name: &str) -> Result<Self, DataError> {
        // GPT-2's published file truncates texts to 50 tokens. A corpus needs neither padding,
        // truncation nor dropout.
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
        // A vocabulary can have gaps, so the number of entries is not enough.
        let vocabulary = inner.get_vocab(true);
        let entries = vocabulary.len();
        let largest = vocabulary.into_values().max().unwrap_or(0) as usize;
        // Serialization fills gaps one by one, and tables here grow with the largest token number.
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

    /// Returns an error for special tokens in the text of a closed vocabulary, where they are
    /// words.
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

    /// Finds the unknown word of a closed vocabulary, which the model's error does not name.
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

/// Formats a word for a message; truncates a long one.
fn shown(word: &str) -> String {
    const MOST: usize = 80;
    let end = word.floor_char_boundary(MOST);
    let rest = if end < word.len() { "…" } else { "" };
    format!("{}{rest}", word[..end].escape_debug())
}

/// Splits a text into parts that are short enough for the `tokenizers` crate.
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

/// Returns the words that a tokenizer looks up in its model.
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

/// Writes JSON with sorted keys in every object, independent of the serializer's map order.
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
