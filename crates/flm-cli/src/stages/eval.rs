//! Judging samples.

use crate::error::{CliError, Result};
use crate::files;
use flm_eval::{Diversity, Grammar, Quality};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What of a line of JSON is judged.
#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The figures of one file of samples.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    /// The law of the text is known.
    Grammar(Quality),
    /// It is not.
    Open(Diversity),
}

/// Judges texts, by the grammar if there is one.
pub(crate) fn judge<S: AsRef<str>>(grammar: Option<&Grammar>, texts: &[S]) -> Result<Figures> {
    Ok(match grammar {
        Some(grammar) => Figures::Grammar(Quality::of(grammar, texts)?),
        None => Figures::Open(Diversity::of(texts)?),
    })
}

/// The files that are meant: one, or those of a folder in the order of their names.
pub(crate) fn sample_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).map_err(CliError::io("read", path))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(CliError::io("read", path))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl" || extension == "txt")
        {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(CliError::input(format!(
            "the folder {} holds no .jsonl or .txt file of samples",
            path.display()
        )));
    }
    Ok(found)
}

/// The texts of a file of samples: the field `text` of JSON lines, or every line.
pub(crate) fn texts(path: &Path) -> Result<Vec<String>> {
    let content = files::read(path)?;
    let texts: Vec<String> = if path
        .extension()
        .is_some_and(|extension| extension == "jsonl")
    {
        let lines = content
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(number, line)| {
                let sample: std::result::Result<Line, _> = serde_json::from_str(line);
                sample.map(|sample| sample.text).map_err(|error| {
                    CliError::input(format!(
                        "line {} of {} is no sample: {error}",
                        number + 1,
                        path.display()
                    ))
                })
            })
            .collect::<Result<_>>()?
    } else {
        content.lines().map(str::to_owned).collect()
    };
    if texts.is_empty() {
        return Err(CliError::input(format!(
            "{} holds no sample",
            path.display()
        )));
    }
    Ok(texts)
}
