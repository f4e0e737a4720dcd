//! The built-in presets, and configurations from files.

use crate::config::{Config, Overrides};
use crate::error::{CliError, Result};
use std::path::Path;

/// Name and text of each preset.
const PRESETS: [(&str, &str); 15] = [
    ("grammar-tiny", include_str!("../presets/grammar-tiny.toml")),
    (
        "grammar-trajectory",
        include_str!("../presets/grammar-trajectory.toml"),
    ),
    ("grammar-ar", include_str!("../presets/grammar-ar.toml")),
    ("grammar-mdlm", include_str!("../presets/grammar-mdlm.toml")),
    ("grammar-duo", include_str!("../presets/grammar-duo.toml")),
    ("grammar-long", include_str!("../presets/grammar-long.toml")),
    (
        "shakespeare-char",
        include_str!("../presets/shakespeare-char.toml"),
    ),
    ("text", include_str!("../presets/text.toml")),
    ("wordnet", include_str!("../presets/wordnet.toml")),
    ("wikitext-2", include_str!("../presets/wikitext-2.toml")),
    ("small", include_str!("../presets/small.toml")),
    ("lm1b", include_str!("../presets/lm1b.toml")),
    ("lm1b-fmlm", include_str!("../presets/lm1b-fmlm.toml")),
    ("openwebtext", include_str!("../presets/openwebtext.toml")),
    (
        "openwebtext-fmlm",
        include_str!("../presets/openwebtext-fmlm.toml"),
    ),
];

/// Returns the name of each preset and its first line, a description.
pub(crate) fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    PRESETS.iter().map(|(name, text)| {
        (
            *name,
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("# "),
        )
    })
}

/// Returns all settings with their defaults as TOML.
pub(crate) fn defaults() -> String {
    toml::to_string(&Config::default()).expect("settings are TOML")
}

/// Returns the text of a built-in preset.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    PRESETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// Returns the defaults overridden by a preset: a built-in one by name, or a TOML file by path.
pub(crate) fn load(preset: &str) -> Result<Overrides> {
    let mut overrides = Overrides::new();
    let path = Path::new(preset);
    if let Some(text) = text(preset) {
        overrides.file(text, &format!("preset {preset}"))?;
    } else if path.is_file() {
        let text = std::fs::read_to_string(path).map_err(CliError::io("read", path))?;
        overrides.file(&text, preset)?;
    } else if path.extension().is_some() || path.components().count() > 1 {
        return Err(CliError::input(format!("there is no file {preset}")));
    } else {
        let nearest = list().map(|(name, _)| name).max_by(|a, b| {
            let likeness = |name| strsim::normalized_damerau_levenshtein(preset, name);
            likeness(a).total_cmp(&likeness(b))
        });
        return Err(CliError::input(format!(
            "there is no preset and no file `{preset}`; the nearest preset is `{}`, and `flm presets` lists them all",
            nearest.unwrap_or_default()
        )));
    }
    Ok(overrides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flm_denoiser::Family;

    #[test]
    fn every_preset_can_be_trained() {
        for (name, line) in list() {
            let config = load(name).unwrap().finish().unwrap();
            config.train.validate().unwrap();
            config.distill.train.validate().unwrap();
            config.distill.flow_map.validate().unwrap();
            config.distill.distribution.validate().unwrap();
            config.distill.sdtt.steps().unwrap();
            config.distill.dcd.steps().unwrap();
            config.sample.validate().unwrap();
            crate::config::tokenizer_source(&config.data.tokenizer).unwrap();
            let is_flow = config.model.family == Family::Flow;
            config
                .model
                .network(100, config.data.length, is_flow)
                .unwrap();
            assert!(line.len() > 20, "{name} says what it is for");
        }
    }

    #[test]
    fn an_unknown_preset_is_answered_with_the_nearest() {
        let message = load("gramar-tiny").err().unwrap().to_string();
        assert!(
            message.contains("nearest preset is `grammar-tiny`"),
            "{message}"
        );
    }
}
