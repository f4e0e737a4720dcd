//! The model card: how a model was made, for programs (`run.json`).

use crate::{Error, Result};
use flm_data::Layout;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file of a model folder that holds its card.
pub const CARD_FILE: &str = "run.json";

/// The format version that is written and read.
const FORMAT: u32 = 1;

/// How a model was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Version of the file's format.
    pub format_version: u32,
    /// The kind of the network, as [`kind`](crate::kind) names it.
    pub kind: String,
    /// The command that made the model; empty if a program did.
    pub command: String,
    /// The version of flm that made it.
    pub flm_version: String,
    /// What a row of tokens holds.
    pub layout: Layout,
    /// SHA-256 of the tokenizer, where the folder has one.
    pub tokenizer_hash: Option<String>,
    /// Parameters of the network, or of both.
    pub parameters: u64,
    /// Of a trained or distilled model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// Of a converted model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converted: Option<Converted>,
}

/// The run that trained or distilled a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Seed of batches, times and noise.
    pub seed: u64,
    /// SHA-256 of the data.
    pub data_hash: String,
    /// What the data is.
    pub data_source: String,
    /// Steps of the optimizer.
    pub steps: u64,
    /// Network evaluations that the steps took, as `flm_distill::cost` counts them.
    pub evaluations: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Number type of the matrix products.
    pub dtype: String,
    /// Loss on validation rows at the end, per token; `None` without such rows.
    pub validation_loss: Option<f64>,
}

/// The file that a model was converted from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Converted {
    /// Its name.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// The algorithm that it names.
    pub algorithm: Option<String>,
    /// Which of its weights were taken.
    pub weights: String,
    /// The training steps that it names.
    pub steps: Option<u64>,
}

impl Card {
    /// A card of the current format, with nothing but what every model has.
    pub fn new(kind: &str, layout: Layout, parameters: u64) -> Self {
        Self {
            format_version: FORMAT,
            kind: kind.to_owned(),
            command: String::new(),
            flm_version: env!("CARGO_PKG_VERSION").to_owned(),
            layout,
            tokenizer_hash: None,
            parameters,
            training: None,
            converted: None,
        }
    }

    /// The card of a model folder, if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::Card`] and [`Error::CardVersion`] if it is not a card.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(CARD_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let wrong = |source| Error::Card {
            path: path.clone(),
            source,
        };
        // The version first: what a later one changed should not look like a mistake.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_str(&text).map_err(wrong)?;
        if format_version != FORMAT {
            return Err(Error::CardVersion {
                path,
                found: format_version,
                known: FORMAT,
            });
        }
        Ok(Some(serde_json::from_str(&text).map_err(wrong)?))
    }

    /// The content of its file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a card has only names for keys")
    }
}
