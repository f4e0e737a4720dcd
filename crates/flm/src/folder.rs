//! Model folders, opened without reading the weights.

use crate::{Card, Error, Result};
use flm_data::{Layout, TOKENIZER_FILE, TextTokenizer};
use flm_denoiser::{DitConfig, Family, folder};
use flm_files::sha256;
use std::path::{Path, PathBuf};

/// A model folder with its configuration and card.
///
/// The weights stay on disk until [`load`](Self::load).
#[derive(Clone, Debug)]
pub struct ModelFolder {
    name: String,
    path: PathBuf,
    config: DitConfig,
    card: Option<Card>,
}

impl ModelFolder {
    /// Opens a model folder, or the model of a finished run.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::NotAModel`] if there is no model, [`Error::Folder`] if its
    /// configuration is invalid, [`Error::Card`] or [`Error::CardVersion`] if its card is invalid.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let named = path.as_ref();
        let path = Self::find(named)?;
        Ok(Self {
            name: named.display().to_string(),
            config: folder::read_config(&path)?,
            card: Card::read(&path)?,
            path,
        })
    }

    /// Returns the model folder for `path`: `path` itself, or the `model` folder of a run.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::NotAModel`].
    pub fn find(path: &Path) -> Result<PathBuf> {
        let inner = path.join("model");
        let is_model = |path: &Path| path.join(folder::CONFIG_FILE).is_file();
        let path = path.to_path_buf();
        if is_model(&path) {
            Ok(path)
        } else if is_model(&inner) {
            Ok(inner)
        } else if path.join("checkpoints").is_dir() {
            Err(Error::Unfinished { path })
        } else if path.is_dir() {
            Err(Error::NotAModel { path })
        } else {
            Err(Error::Missing { path })
        }
    }

    /// Returns the model folder for `path` if its configuration has a format version.
    ///
    /// Folders that this crate writes have one. Folders of the published implementation do not.
    pub fn find_own(path: &Path) -> Option<PathBuf> {
        let path = Self::find(path).ok()?;
        has_format_version(&path).then_some(path)
    }

    /// The name that the folder was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uses another name in messages and records.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// The path of the folder that holds the configuration and the weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration of the network, or of the second network of a residual flow map.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The model card, if the folder has one.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// The layout of the rows; [`Layout::Rows`] for a folder without a card.
    pub fn layout(&self) -> Layout {
        self.card.as_ref().map_or(Layout::Rows, |card| card.layout)
    }

    /// The kind of the model, as [`kind`] names it.
    pub fn kind(&self) -> &'static str {
        kind(&self.config)
    }

    /// Loads the tokenizer, which must be the one that the model was trained with.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] or [`Error::Data`] if it cannot be loaded, [`Error::Tokenizer`] if
    /// its hash differs from the card, [`Error::Vocabulary`] if the network has another
    /// vocabulary size.
    pub fn tokenizer(&self) -> Result<TextTokenizer> {
        let path = self.path.join(TOKENIZER_FILE);
        if !path.is_file() {
            return Err(Error::NoTokenizer {
                path: self.path.clone(),
            });
        }
        let tokenizer = TextTokenizer::load(&path)?;
        let trained = self
            .card
            .as_ref()
            .and_then(|card| card.tokenizer_hash.as_deref());
        match trained {
            Some(trained) if trained != tokenizer.hash() => {
                return Err(Error::Tokenizer {
                    path,
                    found: tokenizer.hash().to_owned(),
                    expected: trained.to_owned(),
                });
            }
            _ => {}
        }
        if tokenizer.vocab_size() != self.config.vocab_size {
            return Err(Error::Vocabulary {
                path: self.path.clone(),
                tokenizer: tokenizer.vocab_size(),
                network: self.config.vocab_size,
            });
        }
        Ok(tokenizer)
    }

    /// Checks that the model has the tokenizer and the row length of the data named `data`.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if they differ, and the errors of [`tokenizer`](Self::tokenizer).
    pub fn check_fits(&self, tokenizer: &TextTokenizer, length: usize, data: &Path) -> Result<()> {
        let (path, data, found) = (self.path.display(), data.display(), self.tokenizer()?);
        let reason = if found.hash() != tokenizer.hash() {
            format!(
                "the tokenizer of the model {path} ({} tokens, hash {:.12}) differs from the tokenizer of the data {data} ({} tokens, hash {:.12})",
                found.vocab_size(),
                found.hash(),
                tokenizer.vocab_size(),
                tokenizer.hash(),
            )
        } else if self.config.length != length {
            let found = self.config.length;
            format!(
                "the model {path} has {found} tokens in a sequence, but the data {data} has {length}"
            )
        } else {
            return Ok(());
        };
        Err(Error::Mismatch { reason })
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the weights.
    ///
    /// For a residual flow map, the digits of both networks, joined by `+`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be read.
    pub fn weights(&self) -> Result<String> {
        weights(&self.path)
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of the weights in a folder.
pub(crate) fn weights(folder: &Path) -> Result<String> {
    let files = [folder.to_path_buf(), folder.join(folder::DENOISER_FOLDER)];
    let files = files.iter().map(|folder| folder.join(folder::TENSORS_FILE));
    let hashes = files
        .filter(|file| file.is_file())
        .map(|file| Ok(format!("{:.16}", sha256(&file)?)));
    Ok(hashes.collect::<Result<Vec<_>>>()?.join("+"))
}

/// Returns the kind of a network: "flow", "flow map", "residual flow map", or the name of
/// another family.
pub fn kind(config: &DitConfig) -> &'static str {
    match (config.family, config.residual, config.two_time) {
        (Family::Flow, true, _) => "residual flow map",
        (Family::Flow, false, true) => "flow map",
        (Family::Flow, false, false) => "flow",
        (family, _, _) => family.name(),
    }
}

/// Returns `true` if the `config.json` of a folder has a format version.
pub fn has_format_version(folder: &Path) -> bool {
    let config = std::fs::read_to_string(folder.join(flm_denoiser::folder::CONFIG_FILE));
    let json = config.map(|text| serde_json::from_str::<serde_json::Value>(&text));
    matches!(json, Ok(Ok(json)) if json.get("format_version").is_some())
}

/// Describes a network in one line.
pub fn describe(config: &DitConfig) -> String {
    format!(
        "{} · {} tokens · length {} · width {} · {} blocks of {} heads · {} parameters",
        kind(config),
        grouped(config.vocab_size as u128),
        grouped(config.length as u128),
        config.width,
        config.blocks,
        config.heads,
        grouped(config.parameter_count()),
    )
}

/// Formats an integer with commas between thousands.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Decodes a row of tokens into text.
///
/// For a packed block, the begin and end tokens of the frame are omitted, and each document starts
/// on a new line.
///
/// # Errors
///
/// [`Error::Data`] if a token is not in the vocabulary.
pub fn text_of(tokens: &[u32], tokenizer: &TextTokenizer, layout: Layout) -> Result<String> {
    if layout == Layout::Rows {
        return Ok(tokenizer.decode(tokens)?);
    }
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let tokens = tokens.strip_prefix(&[bos]).unwrap_or(tokens);
    let tokens = tokens.strip_suffix(&[eos]).unwrap_or(tokens);
    let documents = tokens
        .split(|&token| token == eos)
        .map(|document| tokenizer.decode_all(document));
    let documents = documents.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(documents.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_set_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (30_522, "30,522")] {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!(grouped(139_342_394), "139,342,394");
    }
}
