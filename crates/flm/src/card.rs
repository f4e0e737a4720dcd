//! The model card (`run.json`), a machine-readable record of how a model was made.

use crate::{Error, Result};
use flm_data::Layout;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file name of the card in a model folder.
pub const CARD_FILE: &str = "run.json";

/// The supported format version.
const FORMAT: u32 = 1;

/// A record of how a model was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Version of the file format.
    pub format_version: u32,
    /// The kind of the network, as [`kind`](crate::kind) names it.
    pub kind: String,
    /// The command that made the model; empty if it was made through the library.
    pub command: String,
    /// The version of flm that made the model.
    pub flm_version: String,
    /// The layout of the rows.
    pub layout: Layout,
    /// SHA-256 of the tokenizer, if the folder has one.
    pub tokenizer_hash: Option<String>,
    /// Number of parameters, including the denoiser of a residual flow map.
    pub parameters: u64,
    /// The training run of a trained or distilled model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// The source file of a converted model.
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
    /// Description of the data.
    pub data_source: String,
    /// Number of optimizer steps.
    pub steps: u64,
    /// Number of network evaluations in all steps, as `flm_distill::cost` counts them.
    pub evaluations: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Number type of matrix products.
    pub dtype: String,
    /// Final validation loss per token; `None` without validation rows.
    pub validation_loss: Option<f64>,
}

/// The file that a model was converted from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Converted {
    /// The file name.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The algorithm named in the file.
    pub algorithm: Option<String>,
    /// The set of weights that was used.
    pub weights: String,
    /// The number of training steps named in the file.
    pub steps: Option<u64>,
}

impl Card {
    /// Creates a card of the current format with only the required fields.
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

    /// Reads the card of a model folder, if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::Card`] if it is not a card,
    /// [`Error::CardVersion`] if its format version is unsupported.
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
        // Check the version first, so that fields of a later format are not reported as unknown.
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

    /// Serializes the card as the content of its file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a card has only string keys")
    }
}
