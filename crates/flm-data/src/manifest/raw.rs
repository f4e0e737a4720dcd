//! The manifest before its checks, as deserialized from TOML.

use serde::Deserialize;

use super::check::Checker;
use super::{Manifest, ManifestError};
use crate::{Detokenizer, Layout};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawManifest {
    pub(super) format: u32,
    pub(super) title: String,
    pub(super) license: String,
    pub(super) page: String,
    pub(super) split: toml::Value,
    pub(super) column: String,
    pub(super) unit: RawUnit,
    pub(super) detokenizer: Detokenizer,
    pub(super) tokenizer: RawTokenizer,
    pub(super) length: usize,
    pub(super) layout: Layout,
    pub(super) train: Vec<RawSource>,
    #[serde(default)]
    pub(super) validation: Vec<RawSource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawUnit {
    Lines,
    Whole,
    Glosses,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokenizer {
    pub(super) name: String,
    pub(super) file: Option<RawSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    pub(super) url: Option<String>,
    pub(super) repo: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) path: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
    pub(super) files: Option<usize>,
}

/// Parses and checks a manifest. Errors use `manifest` as its name.
pub(super) fn parse(text: &str, name: &str, manifest: &str) -> Result<Manifest, ManifestError> {
    let not_understood = |key: String, reason: &str| ManifestError::NotUnderstood {
        manifest: manifest.to_owned(),
        key,
        reason: reason.trim_end().replace('\n', ", "),
    };
    let document = toml::Deserializer::parse(text).map_err(|error| {
        let end = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..end]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        not_understood(format!("line {line}"), error.message())
    })?;
    let raw: RawManifest = serde_path_to_error::deserialize(document).map_err(|error| {
        let key = match error.path().to_string().as_str() {
            "." => "the top".to_owned(),
            key => key.to_owned(),
        };
        not_understood(key, error.inner().message())
    })?;
    Checker { manifest }.check(raw, name)
}
