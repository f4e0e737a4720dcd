//! A model folder, of which only the small files are read.

use crate::{Card, Error, Result};
use flm_data::{Layout, TOKENIZER_FILE, TextTokenizer};
use flm_denoiser::{DitConfig, Family, folder};
use flm_files::sha256;
use std::path::{Path, PathBuf};

/// A model folder with its configuration and card. The weights stay on the disk until [`load`](Self::load).
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
    /// [`Error::Missing`] or [`Error::NotAModel`] if there is no model, [`Error::Folder`] if its configuration is not one,
    /// [`Error::Card`] or [`Error::CardVersion`] if its card is not one.
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

    /// Where the model named by `path` is: there, or in the `model` folder of a run.
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
        } else if path.is_dir() {
            Err(Error::NotAModel { path })
        } else {
            Err(Error::Missing { path })
        }
    }

    /// Where the model named by `path` is, if it is one with a format version, as this crate writes it. The published implementation's have none.
    pub fn find_own(path: &Path) -> Option<PathBuf> {
        let path = Self::find(path).ok()?;
        has_format_version(&path).then_some(path)
    }

    /// The name that it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the configuration and the weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration of the network; of a residual flow map that of its second network.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// How the model was made, where the folder says it.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// What a row of tokens holds. A folder without a card is taken for a model of rows.
    pub fn layout(&self) -> Layout {
        self.card.as_ref().map_or(Layout::Rows, |card| card.layout)
    }

    /// The kind of the model: [`kind`].
    pub fn kind(&self) -> &'static str {
        kind(&self.config)
    }

    /// The tokenizer, which must be the one that the model was trained with.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`], [`Error::Data`], [`Error::Tokenizer`] if it is another one, or [`Error::Vocabulary`] if the network has
    /// another number of tokens.
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

    /// Checks that the model has the tokenizer of data, `data` by name, and the length of its rows.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if it has another, and those of [`tokenizer`](Self::tokenizer).
    pub fn check_fits(&self, tokenizer: &TextTokenizer, length: usize, data: &Path) -> Result<()> {
        let (path, data, found) = (self.path.display(), data.display(), self.tokenizer()?);
        let reason = if found.hash() != tokenizer.hash() {
            format!(
                "the tokenizer of the model {path} ({} tokens, hash {:.12}) is not that of the data {data} ({} tokens, hash {:.12})",
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

    /// The beginning of the SHA-256 of the weights; of a residual flow map both, joined by `+`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be read.
    pub fn weights(&self) -> Result<String> {
        weights(&self.path)
    }
}

/// The beginning of the SHA-256 of the weights in a folder.
pub(crate) fn weights(folder: &Path) -> Result<String> {
    let files = [folder.to_path_buf(), folder.join(folder::DENOISER_FOLDER)];
    let files = files.iter().map(|folder| folder.join(folder::TENSORS_FILE));
    let hashes = files
        .filter(|file| file.is_file())
        .map(|file| Ok(format!("{:.16}", sha256(&file)?)));
    Ok(hashes.collect::<Result<Vec<_>>>()?.join("+"))
}

/// The kind of a network: "flow", "flow map", "residual flow map", or the name of another family.
pub fn kind(config: &DitConfig) -> &'static str {
    match (config.family, config.residual, config.two_time) {
        (Family::Flow, true, _) => "residual flow map",
        (Family::Flow, false, true) => "flow map",
        (Family::Flow, false, false) => "flow",
        (family, _, _) => family.name(),
    }
}

/// Whether the `config.json` of a folder has a format version.
pub fn has_format_version(folder: &Path) -> bool {
    let config = std::fs::read_to_string(folder.join(flm_denoiser::folder::CONFIG_FILE));
    let json = config.map(|text| serde_json::from_str::<serde_json::Value>(&text));
    matches!(json, Ok(Ok(json)) if json.get("format_version").is_some())
}

/// A network in a line.
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

/// A whole number with its thousands set apart.
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

/// The text of a row of tokens.
///
/// Of a packed block the begin and end token of its frame are left out, and each document inside starts a new line.
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
