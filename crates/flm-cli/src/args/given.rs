//! Options for known text in samples.

use crate::error::{CliError, Result};
use crate::files;
use clap::Args;
use flm::{Blanks, Conditioning};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Options for the text that every sample contains.
#[derive(Debug, Args)]
pub(crate) struct GivenArgs {
    /// Begin every sample with this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// End every sample with this text (models of packed blocks)
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub(crate) suffix: Option<String>,
    /// Fill the blanks of a text: ___ is one token, ___{3} are three
    ///
    /// For example "The ___ sold two ___ .".
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt", "suffix"])]
    pub(crate) infill: Option<String>,
    /// Fill the blanks of every line of a file, or of every "infill" of a .jsonl file; --count
    /// samples of each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "suffix", "infill"], hide_short_help = true)]
    pub(crate) infill_file: Option<PathBuf>,
}

impl GivenArgs {
    /// Returns the known text; reads the file of `--infill-file`.
    pub(crate) fn conditioning(&self) -> Result<Conditioning> {
        if let Some(path) = &self.infill_file {
            return Ok(Conditioning::Infill(texts(path)?));
        }
        if let Some(text) = &self.infill {
            return Ok(Conditioning::infill(text));
        }
        let (prompt, suffix) = (self.prompt.clone(), self.suffix.clone());
        Ok(match (prompt, suffix) {
            (None, None) => Conditioning::None,
            (prompt, suffix) => Conditioning::Ends { prompt, suffix },
        })
    }
}

/// A line of a `.jsonl` file.
#[derive(Deserialize)]
struct Line {
    infill: String,
}

/// Reads the texts of a file, each with its line number for errors.
fn texts(path: &Path) -> Result<Vec<Blanks>> {
    let content = files::read(path)?;
    let json = path
        .extension()
        .is_some_and(|extension| extension == "jsonl");
    let mut texts = Vec::new();
    for (number, line) in content.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("line {} of {}", number + 1, path.display());
        let text = if json {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                CliError::input(format!(
                    "{place} is not a JSON object with the key \"infill\": {error}"
                ))
            })?;
            line.infill
        } else {
            line.to_owned()
        };
        texts.push(Blanks { text, place });
    }
    if texts.is_empty() {
        return Err(CliError::input(format!(
            "{} holds no text to fill",
            path.display()
        )));
    }
    Ok(texts)
}
