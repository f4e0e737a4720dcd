//! Files of samples, and what samples say about themselves.

use crate::scorers::TextSet;
use crate::{Error, Result};
use flm::Provenance;
use flm_data::{Dataset, Layout};
use flm_eval::{Copying, Diversity, Grammar, Quality, mean_unigram_entropy};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The grammar's file in a data folder.
pub const GRAMMAR_FILE: &str = "corpus.grammar";

/// A set of samples.
#[derive(Clone, Debug)]
pub struct Samples {
    /// One text per sample.
    pub texts: Vec<String>,
    /// The model's tokens, if the file has them.
    pub tokens: Option<Vec<Vec<u32>>>,
    /// The settings that drew the samples, if the file has them.
    pub drawn: Option<Provenance>,
}

/// A line of a JSON lines file.
#[derive(Deserialize)]
struct Line {
    text: String,
    tokens: Option<Vec<u32>>,
}

impl Samples {
    /// Reads JSON lines of `flm sample`, or a text file with one sample per line.
    ///
    /// # Errors
    ///
    /// The file cannot be read, holds no sample, or a line is not a sample.
    pub fn read(path: &Path) -> Result<Self> {
        let content = fs::read_to_string(path).map_err(Error::io(path))?;
        let samples = if is_json_lines(path) {
            Self::parse(&content, path)?
        } else {
            Self {
                texts: content.lines().map(str::to_owned).collect(),
                tokens: None,
                drawn: None,
            }
        };
        if samples.texts.is_empty() {
            return Err(Error::Input(format!("{} has no samples", path.display())));
        }
        Ok(samples)
    }

    fn parse(content: &str, path: &Path) -> Result<Self> {
        let lines = || {
            let all = content.lines().enumerate();
            all.filter(|(_, line)| !line.trim().is_empty())
        };
        let (mut texts, mut tokens) = (Vec::new(), Vec::new());
        for (number, line) in lines() {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                Error::Input(format!(
                    "line {} of {} is not a sample: {error}",
                    number + 1,
                    path.display()
                ))
            })?;
            texts.push(line.text);
            tokens.extend(line.tokens);
        }
        let first = lines().next();
        Ok(Self {
            tokens: (tokens.len() == texts.len()).then_some(tokens),
            texts,
            drawn: first.and_then(|(_, line)| serde_json::from_str(line).ok()),
        })
    }

    /// The validation rows of a data folder, as a reference for samples.
    ///
    /// # Errors
    ///
    /// The folder cannot be read or has no validation rows.
    pub fn validation(data: &Path) -> Result<Self> {
        let dataset = Dataset::open(data)?;
        let rows = (0..dataset.validation().rows()).map(|row| dataset.validation().row(row));
        let rows = rows.collect::<std::result::Result<Vec<_>, _>>()?;
        let (tokenizer, layout) = (dataset.tokenizer(), dataset.meta().layout);
        let texts = rows.iter().map(|row| flm::text_of(row, tokenizer, layout));
        let texts = texts.collect::<flm::Result<Vec<_>>>()?;
        if texts.is_empty() {
            return Err(Error::Input(format!(
                "{} has no validation rows",
                data.display()
            )));
        }
        Ok(Self {
            texts,
            tokens: Some(rows),
            drawn: None,
        })
    }

    /// The file at `path`, or the `.jsonl` and `.txt` files of the folder at `path`, by name.
    ///
    /// # Errors
    ///
    /// The folder cannot be read or holds no such file.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
        if !path.is_dir() {
            return Ok(vec![path.to_path_buf()]);
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(Error::io(path))? {
            let path = entry.map_err(Error::io(path))?.path();
            if is_json_lines(&path) || path.extension().is_some_and(|ext| ext == "txt") {
                found.push(path);
            }
        }
        found.sort();
        if found.is_empty() {
            return Err(Error::Input(format!(
                "the folder {} holds no .jsonl or .txt file of samples",
                path.display()
            )));
        }
        Ok(found)
    }

    /// The texts and tokens for scorers.
    pub fn set(&self) -> TextSet<'_> {
        TextSet {
            texts: &self.texts,
            tokens: self.tokens.as_deref(),
        }
    }

    /// Mean unigram entropy of a sample's tokens in nats; none for samples without tokens.
    pub fn token_entropy(&self) -> Option<f64> {
        mean_unigram_entropy(self.tokens.as_ref()?)
    }

    /// Length in tokens of the longest run that a sample shares with a training row, averaged over
    /// samples. Tokens behind the end of a document do not count. `None` for samples without tokens.
    ///
    /// # Errors
    ///
    /// A training row cannot be read.
    pub fn copied(&self, dataset: &Dataset) -> Result<Option<f64>> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let (layout, end) = (dataset.meta().layout, dataset.tokenizer().eos_id());
        let document = |row: &[u32]| -> Vec<u32> {
            let tokens = row.iter().copied();
            match layout {
                Layout::Rows => tokens.take_while(|&token| token != end).collect(),
                Layout::Packed => tokens.collect(),
            }
        };
        let samples: Vec<Vec<u32>> = tokens.iter().map(|sample| document(sample)).collect();
        let mut copying = Copying::new(&samples);
        for row in 0..dataset.train().rows() {
            copying.read(&document(&dataset.train().row(row)?));
        }
        let runs = copying.longest_runs();
        Ok(Some(runs.iter().sum::<usize>() as f64 / runs.len() as f64))
    }
}

/// Whether a path names a JSON lines file.
pub fn is_json_lines(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "jsonl")
}

/// Figures of texts alone.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// The texts' distribution is known.
    Grammar(Quality),
    /// The texts' distribution is unknown.
    Open(Diversity),
}

impl Figures {
    /// Evaluates texts, by the grammar if there is one.
    ///
    /// # Errors
    ///
    /// There are no texts.
    pub fn of<S: AsRef<str>>(grammar: Option<&Grammar>, texts: &[S]) -> Result<Self> {
        Ok(match grammar {
            Some(grammar) => Self::Grammar(Quality::of(grammar, texts)?),
            None => Self::Open(Diversity::of(texts)?),
        })
    }

    /// The figures that need no distribution.
    pub fn open(&self) -> Diversity {
        match self {
            Self::Grammar(quality) => Diversity {
                samples: quality.samples,
                entropy: quality.entropy,
                distinct: quality.distinct,
                mean_length: quality.mean_length,
                variety: quality.variety,
            },
            Self::Open(diversity) => *diversity,
        }
    }

    /// Share of samples that the grammar accepts, if there is one.
    pub fn valid(&self) -> Option<f64> {
        match self {
            Self::Grammar(quality) => Some(quality.valid),
            Self::Open(_) => None,
        }
    }
}

/// The grammar of a data folder, if its corpus was drawn from one.
///
/// # Errors
///
/// The grammar's file cannot be read or parsed.
pub fn grammar_of(data: &Path) -> Result<Option<Grammar>> {
    let path = data.join(GRAMMAR_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let grammar = Grammar::parse(&text)
        .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
    Ok(Some(grammar))
}
