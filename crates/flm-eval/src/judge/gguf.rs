//! The GGUF container: metadata, tensors and vocabulary of a language model in one file.
//!
//! The reader follows the format specification
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>). It converts tensors of any
//! [supported type](Gguf::tensors) to f32.

mod blocks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::JudgeError;
use super::weights::{Tensors, hex};

/// The first bytes of every GGUF file.
const MAGIC: &[u8] = b"GGUF";
/// Default alignment of tensors in bytes.
const ALIGNMENT: u64 = 32;
/// The largest number of dimensions of a tensor.
const DIMENSIONS: u32 = 4;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

/// The location and storage type of a tensor.
#[derive(Clone, Debug)]
struct Stored {
    /// Outermost dimension first.
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// A GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    bytes: Vec<u8>,
    settings: BTreeMap<String, Value>,
    stored: Vec<(String, Stored)>,
    /// Offset of the first tensor in bytes.
    first: usize,
}

impl Gguf {
    /// Reads a GGUF file and parses its header.
    ///
    /// # Errors
    ///
    /// Returns a [`JudgeError`] if the file cannot be read or is not a GGUF file of version 2 or 3.
    pub fn read(path: &Path) -> Result<Self, JudgeError> {
        let bytes = fs::read(path).map_err(JudgeError::io(path))?;
        let corrupt = |reason: String| JudgeError::Corrupt {
            path: path.to_path_buf(),
            reason,
        };
        let mut reader = Reader {
            bytes: &bytes,
            at: 0,
        };
        if reader.take(4).map_err(corrupt)? != MAGIC {
            return Err(corrupt("it does not start with `GGUF`".to_owned()));
        }
        let version = reader.u32().map_err(corrupt)?;
        if !(2..=3).contains(&version) {
            return Err(corrupt(format!(
                "expected GGUF version 2 or 3, found {version}"
            )));
        }
        let (settings, stored) = reader.header().map_err(corrupt)?;
        let alignment = match settings.get("general.alignment") {
            Some(Value::Integer(found)) => u64::try_from(*found).unwrap_or(0),
            Some(_) => 0,
            None => ALIGNMENT,
        };
        if alignment == 0 {
            return Err(corrupt("general.alignment is not a valid size".to_owned()));
        }
        let first = (reader.at as u64).next_multiple_of(alignment) as usize;
        Ok(Self {
            path: path.to_path_buf(),
            settings,
            stored,
            first,
            bytes,
        })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the SHA-256 of the file, in hexadecimal.
    pub fn hash(&self) -> String {
        hex(Sha256::new_with_prefix(&self.bytes))
    }

    /// Returns all tensors by name, each with its shape (outermost dimension first) and values.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Tensor`] if a tensor extends beyond the file or has a value that is
    /// not finite. The supported types are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K
    /// and Q6_K; others are errors.
    pub fn tensors(&self) -> Result<Tensors, JudgeError> {
        let mut tensors = BTreeMap::new();
        for (name, stored) in &self.stored {
            let fault = |reason: String| JudgeError::Tensor {
                path: self.path.clone(),
                name: name.clone(),
                reason,
            };
            let values = self.values(stored).map_err(fault)?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(fault(format!("holds {value}; every value must be finite")));
            }
            tensors.insert(name.clone(), (stored.shape.clone(), values));
        }
        Ok(tensors)
    }

    fn values(&self, stored: &Stored) -> Result<Vec<f32>, String> {
        let kind = blocks::Kind::of(stored.kind).ok_or_else(|| {
            format!(
                "is stored as type {}, expected one of {}",
                stored.kind,
                blocks::supported()
            )
        })?;
        let count = stored
            .shape
            .iter()
            .try_fold(1_usize, |count, size| count.checked_mul(*size))
            .filter(|count| count.is_multiple_of(kind.numbers))
            .ok_or_else(|| {
                format!(
                    "of shape {:?} is not a whole number of blocks of {}",
                    stored.shape, kind.numbers
                )
            })?;
        let place = || {
            let first = self
                .first
                .checked_add(usize::try_from(stored.offset).ok()?)?;
            let length = (count / kind.numbers).checked_mul(kind.bytes)?;
            self.bytes.get(first..first.checked_add(length)?)
        };
        let bytes = place().ok_or_else(|| "extends beyond the end of the file".to_owned())?;
        let mut values = Vec::with_capacity(count);
        for block in bytes.chunks_exact(kind.bytes) {
            (kind.read)(block, &mut values);
        }
        Ok(values)
    }

    /// Returns a setting that is a size.
    pub(super) fn size(&self, key: &str) -> Result<usize, JudgeError> {
        match self.settings.get(key) {
            Some(Value::Integer(found)) => {
                usize::try_from(*found).map_err(|_| self.setting(key, "a size", found.to_string()))
            }
            found => Err(self.unexpected(key, "a size", found)),
        }
    }

    /// Returns a setting that is a number.
    pub(super) fn number(&self, key: &str) -> Result<f64, JudgeError> {
        match self.settings.get(key) {
            Some(Value::Float(found)) => Ok(*found),
            Some(Value::Integer(found)) => Ok(*found as f64),
            found => Err(self.unexpected(key, "a number", found)),
        }
    }

    /// Returns a setting that is a string.
    pub(super) fn text(&self, key: &str) -> Result<&str, JudgeError> {
        match self.settings.get(key) {
            Some(Value::Text(found)) => Ok(found),
            found => Err(self.unexpected(key, "a string", found)),
        }
    }

    /// Returns the number of rows of a matrix.
    pub(super) fn rows(&self, name: &str) -> Result<usize, JudgeError> {
        let found = self.stored.iter().find(|(found, _)| found == name);
        let shape = found.map(|(_, stored)| &stored.shape[..]);
        match shape {
            Some([rows, _]) => Ok(*rows),
            _ => Err(JudgeError::Tensor {
                path: self.path.clone(),
                name: name.to_owned(),
                reason: "is missing or is not a matrix".to_owned(),
            }),
        }
    }

    /// Returns whether the file has this setting.
    pub(super) fn has(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, JudgeError> {
        let text = |value: &'_ Value| match value {
            Value::Text(_) => Ok(()),
            other => Err(self.unexpected(key, "a list of strings", Some(other))),
        };
        match self.settings.get(key) {
            Some(Value::List(list)) => {
                list.iter().try_for_each(text)?;
                Ok(list
                    .iter()
                    .filter_map(|value| match value {
                        Value::Text(text) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect())
            }
            found => Err(self.unexpected(key, "a list of strings", found)),
        }
    }

    fn unexpected(&self, key: &str, expected: &'static str, found: Option<&Value>) -> JudgeError {
        let found = match found {
            None => "nothing".to_owned(),
            Some(Value::Integer(found)) => found.to_string(),
            Some(Value::Float(found)) => found.to_string(),
            Some(Value::Bool(found)) => found.to_string(),
            Some(Value::Text(found)) => found.clone(),
            Some(Value::List(_)) => "a list".to_owned(),
        };
        self.setting(key, expected, found)
    }

    /// Creates the error for an unexpected setting.
    pub(super) fn setting(&self, key: &str, expected: &'static str, found: String) -> JudgeError {
        JudgeError::Setting {
            path: self.path.clone(),
            key: key.to_owned(),
            expected,
            found,
        }
    }

    /// Returns a byte-pair vocabulary as the contents of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Setting`] if the vocabulary is of another kind, or the pre-tokenizer
    /// is unknown. In the first case, use the model's own `tokenizer.json`.
    pub fn tokenizer(&self) -> Result<String, JudgeError> {
        let key = "tokenizer.ggml.model";
        let model = self.text(key)?;
        if model != "gpt2" {
            return Err(self.setting(key, "gpt2, a byte-pair vocabulary", model.to_owned()));
        }
        let key = "tokenizer.ggml.pre";
        let pre = self.text(key)?;
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = match pre {
            "gpt-2" => bytes(true),
            "smollm" => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, bytes(true)]}),
            "llama-bpe" | "llama3" | "llama-v3" => {
                json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false},
                bytes(false)]})
            }
            other => {
                let expected = "gpt-2, smollm or llama-bpe";
                return Err(self.setting(key, expected, other.to_owned()));
            }
        };
        // Llama 3's vocabulary has words that no sequence of merges produces.
        let whole_words = !matches!(pre, "gpt-2" | "smollm");
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let merges = self.texts("tokenizer.ggml.merges")?;
        let kinds = match self.settings.get("tokenizer.ggml.token_type") {
            Some(Value::List(kinds)) => kinds.as_slice(),
            _ => &[],
        };
        let is = |id: usize, kind: i128| kinds.get(id) == Some(&Value::Integer(kind));
        let added: Vec<_> = (tokens.iter().enumerate())
            .filter(|(id, _)| is(*id, CONTROL) || is(*id, DEFINED))
            .map(|(id, token)| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": is(id, CONTROL)})
            })
            .collect();
        let vocabulary: BTreeMap<&str, usize> = tokens
            .into_iter()
            .enumerate()
            .map(|(id, token)| (token, id))
            .collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": split, "post_processor": null, "decoder": bytes(true),
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words,
                "vocab": vocabulary, "merges": merges},
        });
        Ok(json.to_string())
    }
}

/// The type of control tokens.
const CONTROL: i128 = 3;
/// The type of user-defined tokens, which are matched in text before byte pairs.
const DEFINED: i128 = 4;

/// The regex with which Llama 3 splits text before merging byte pairs.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A sequential reader of the file's header.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Header = (BTreeMap<String, Value>, Vec<(String, Stored)>);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count);
        let found = end.and_then(|end| self.bytes.get(self.at..end));
        let found = found.ok_or_else(|| "it ends within the header".to_owned())?;
        self.at += count;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("`take` returns N bytes"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, String> {
        let found = self.u64()?;
        usize::try_from(found).map_err(|_| format!("the size {found} is too large"))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.size()?;
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| "it contains a string that is not UTF-8".to_owned())
    }

    fn header(&mut self) -> Result<Header, String> {
        let (tensors, settings) = (self.u64()?, self.u64()?);
        let mut found = BTreeMap::new();
        for _ in 0..settings {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            if found.contains_key(&key) {
                return Err(format!("the setting {key} occurs twice"));
            }
            found.insert(key, value);
        }
        let mut stored: Vec<(String, Stored)> = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..tensors {
            let name = self.text()?;
            if !names.insert(name.clone()) {
                return Err(format!("the tensor {name} occurs twice"));
            }
            let dimensions = self.u32()?;
            if dimensions > DIMENSIONS {
                return Err(format!(
                    "tensor {name} has {dimensions} dimensions, expected at most {DIMENSIONS}"
                ));
            }
            let shape = (0..dimensions).map(|_| self.size());
            let mut shape = shape.collect::<Result<Vec<_>, _>>()?;
            shape.reverse();
            let (kind, offset) = (self.u32()?, self.u64()?);
            stored.push((
                name,
                Stored {
                    shape,
                    kind,
                    offset,
                },
            ));
        }
        Ok((found, stored))
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                if kind == 9 {
                    return Err("nested lists are unsupported".to_owned());
                }
                let count = self.u64()?;
                // Every entry takes at least one byte, so a wrong count fails at the end of
                // the file.
                Value::List(
                    (0..count)
                        .map(|_| self.value(kind))
                        .collect::<Result<_, _>>()?,
                )
            }
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("it contains a value of unknown type {other}")),
        })
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(super) mod tests;
