//! Judging samples.

mod bound;
mod controls;
mod figures;
mod frontier;
mod infill;
mod perfect;
mod score;

use super::data::prepare;
use super::print;
use crate::error::{CliError, Result};
use crate::files;
use crate::purpose;
use clap::{Args, Subcommand};
use flm::Provenance;
use flm_data::{Dataset, DatasetMeta, Layout, META_FILE};
use flm_denoiser::Precision;
use flm_eval::{Copying, Diversity, GenPpl, Grammar, Mauve, Quality, mean_unigram_entropy};
use flm_simplex::stream::generator;
use flm_study::{Features, TextSet};
use rand::seq::SliceRandom;
use score::Judges;
use score::ScoreArgs;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Evaluate samples: grammar validity, perplexity, entropy and diversity
///
/// A scorer is a model that reads the samples: GPT-2 or a Llama model (a folder with tokenizer.json, or a GGUF file), an
/// autoregressive model of flm, or an n-gram model of a data folder's training rows, `ngram:DATA` or `ngram:DATA:ORDER`. For a
/// data folder its validation rows are evaluated, as a reference for samples.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  flm eval quickstart/samples --data quickstart/data
  flm eval quickstart/data
  flm eval samples.jsonl --scorer gpt2-large --scorer runs/ar --scorer ngram:data:4
  flm eval samples.jsonl --data data --scorer SmolLM2-135M-Instruct.Q4_1.gguf --mauve"
)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// A .jsonl file of `flm sample`, a text file with one sample per line, a folder of these, or a data folder
    #[arg(value_name = "SAMPLES", required = true)]
    pub(crate) samples: Option<PathBuf>,
    /// Data folder of the model
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Report the longest run of tokens shared with a training row; compare with `flm eval DATA --copying`
    #[arg(long)]
    pub(crate) copying: bool,
    /// Report MAUVE: compare samples and validation rows of --data by features of the pretrained scorers
    #[arg(long)]
    pub(crate) mauve: bool,
    #[command(flatten)]
    pub(crate) score: ScoreArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    Frontier(Box<frontier::FrontierArgs>),
    Bound(bound::BoundArgs),
    Infill(infill::InfillArgs),
    Perfect(perfect::PerfectArgs),
    Controls(controls::ControlsArgs),
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.command {
        Some(EvalCommand::Frontier(args)) => return print(&frontier::frontier(args)?),
        Some(EvalCommand::Bound(args)) => return print(&bound::bound(args)?),
        Some(EvalCommand::Infill(args)) => return print(&infill::infill(args)?),
        Some(EvalCommand::Perfect(args)) => return print(&perfect::perfect(args)?),
        Some(EvalCommand::Controls(args)) => {
            let written = controls::controls(args)?;
            let line = |path: PathBuf| format!("{}\n", path.display());
            return print(&written.into_iter().map(line).collect::<String>());
        }
        None => {}
    }
    if args.score.device.dtype != Precision::F32 {
        return Err(CliError::input(format!(
            "--dtype {}: nothing is drawn here, and judges compute in f32",
            args.score.device.dtype
        )));
    }
    let samples = args.samples.as_ref().expect("clap asks for it");
    let asked = Asked {
        copying: args.copying,
        mauve: args.mauve,
    };
    let judged = eval(samples, args.data.as_deref(), asked, &args.score)?;
    if args.json {
        return print(&(serde_json::to_string_pretty(&judged)? + "\n"));
    }
    print(&figures::figures(&judged))
}

/// The figures of one file of samples.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judged {
    /// The file's name, less its ending.
    pub(crate) name: String,
    pub(crate) figures: Figures,
    /// Unigram entropy of a sample's tokens in nats, the model's own ones, as published; of files that have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_entropy: Option<f64>,
    /// Tokens in the longest run that a sample shares with a training row, averaged over samples, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) copied: Option<f64>,
    /// By each scorer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) scores: Vec<GenPpl>,
    /// By features of each pretrained scorer, if it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mauve: Vec<MauveScore>,
    /// How the samples were drawn, of files that say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drawn: Option<Provenance>,
}

/// How near samples are to validation rows, by features of a network.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MauveScore {
    /// The identity of the network.
    pub(crate) scorer: String,
    #[serde(flatten)]
    pub(crate) mauve: Mauve,
}

/// What is asked of samples besides scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The longest run that each shares with a training row.
    pub(crate) copying: bool,
    /// How near they are to validation rows.
    pub(crate) mauve: bool,
}

/// What samples say about themselves.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    /// The distribution of the text is known.
    Grammar(Quality),
    /// It is not.
    Open(Diversity),
}

impl Figures {
    /// What is known of samples besides the distribution of their text.
    pub(crate) fn open(&self) -> Diversity {
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
}

/// A file of samples.
pub(crate) struct Samples {
    pub(crate) texts: Vec<String>,
    /// The model's tokens, if the file has them.
    pub(crate) tokens: Option<Vec<Vec<u32>>>,
    /// How they were drawn, all of a file alike.
    pub(crate) drawn: Option<Provenance>,
}

/// Judges the files that `path` means, or the validation rows of the data folder that it is.
pub(crate) fn eval(
    path: &Path,
    data: Option<&Path>,
    asked: Asked,
    score: &ScoreArgs,
) -> Result<Vec<Judged>> {
    // What is no data folder is an error even where its grammar is not needed.
    let layout = match data {
        Some(data) => Some(DatasetMeta::read(data)?.layout),
        None => None,
    };
    let own = path.join(META_FILE).is_file();
    let grammar = match data.or(own.then_some(path)) {
        Some(data) => prepare::grammar_of(data)?,
        None => None,
    };
    let mut judged = Vec::new();
    let mut all = Vec::new();
    let mut take = |name: String, samples: Samples| {
        judged.push(Judged {
            name,
            figures: judge(grammar.as_ref(), &samples.texts)?,
            token_entropy: samples.token_entropy(),
            copied: None,
            scores: Vec::new(),
            mauve: Vec::new(),
            drawn: samples.drawn.clone(),
        });
        all.push(samples);
        Ok::<_, CliError>(())
    };
    if own {
        take("validation rows".to_owned(), validation(path)?)?;
    } else {
        for path in sample_files(path)? {
            if layout == Some(Layout::Packed) && !is_json_lines(&path) {
                return Err(CliError::input(format!(
                    "{} must be a .jsonl file: texts of packed blocks may have several lines",
                    path.display()
                )));
            }
            let samples = read(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            take(name.into_owned(), samples)?;
        }
    }
    if asked.mauve && own {
        return Err(CliError::input(
            "--mauve compares samples with validation rows: name samples, and the data folder by --data",
        ));
    }
    let compared = match (asked.mauve, data) {
        (true, None) => {
            return Err(CliError::input(
                "--mauve compares samples with validation rows: name their folder by --data",
            ));
        }
        (true, data) => data,
        (false, _) => None,
    };
    let sets: Vec<TextSet<'_>> = all.iter().map(Samples::set).collect();
    let judges = Judges::open(score)?;
    if asked.mauve && !judges.have_features() {
        return Err(CliError::input(
            "--mauve needs the features of a pretrained network: name a folder of GPT-2 or Llama, or a GGUF file, by --scorer",
        ));
    }
    for (judged, scores) in judged.iter_mut().zip(judges.score(&sets)?) {
        judged.scores = scores;
    }
    if let Some(data) = compared {
        let found = mauve(&judges, data, &all)?;
        for (judged, found) in judged.iter_mut().zip(found) {
            judged.mauve = found;
        }
    }
    if asked.copying {
        let data = data.or(own.then_some(path)).ok_or_else(|| {
            CliError::input("--copying compares with training rows: name their folder by --data")
        })?;
        let dataset = Dataset::open(data)?;
        for (judged, samples) in judged.iter_mut().zip(&all) {
            judged.copied = Some(copied(&dataset, samples, &judged.name)?);
        }
    }
    Ok(judged)
}

/// How near each file's samples are to validation rows, equal numbers of both, by each pretrained scorer.
fn mauve(judges: &Judges<'_>, data: &Path, all: &[Samples]) -> Result<Vec<Vec<MauveScore>>> {
    let mut text = validation(data)?.texts;
    // Rows stand in the order of the corpus: any of them are as good a sample as others.
    text.shuffle(&mut generator(0, purpose::MAUVE, 0, 0));
    let fewest = all.iter().map(|samples| samples.texts.len()).min();
    let count = fewest.unwrap_or(0).min(text.len());
    if count < LEAST_TEXTS {
        return Err(CliError::input(format!(
            "--mauve needs {LEAST_TEXTS} samples and as many validation rows at least, found {count}"
        )));
    }
    text.truncate(count);
    let mut lists: Vec<&[String]> = all.iter().map(|samples| &samples.texts[..count]).collect();
    lists.push(&text);
    let mut found = vec![Vec::new(); all.len()];
    for Features { scorer, mut lists } in judges.features(&lists)? {
        let text = lists.pop().expect("the validation rows are last");
        for (found, samples) in found.iter_mut().zip(lists) {
            let mut rng = generator(0, purpose::MAUVE, 1, 0);
            found.push(MauveScore {
                scorer: scorer.clone(),
                mauve: Mauve::of(&samples, &text, &mut rng),
            });
        }
    }
    Ok(found)
}

/// Fewer texts say nothing about shares of clusters.
const LEAST_TEXTS: usize = 40;

/// Tokens in the longest run that a sample shares with a training row, averaged over samples. Of rows of one document what follows its end is left
/// out.
fn copied(dataset: &Dataset, samples: &Samples, name: &str) -> Result<f64> {
    let Some(tokens) = &samples.tokens else {
        return Err(CliError::input(format!(
            "--copying compares tokens, but {name} holds texts only: name a .jsonl file of `flm sample`"
        )));
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
    Ok(runs.iter().sum::<usize>() as f64 / runs.len() as f64)
}

/// The validation rows of a data folder, as if they were samples.
fn validation(data: &Path) -> Result<Samples> {
    let dataset = Dataset::open(data)?;
    let rows = (0..dataset.validation().rows()).map(|row| dataset.validation().row(row));
    let rows = rows.collect::<std::result::Result<Vec<_>, _>>()?;
    let layout = dataset.meta().layout;
    let texts = rows
        .iter()
        .map(|row| flm::text_of(row, dataset.tokenizer(), layout));
    let texts = texts.collect::<flm::Result<Vec<_>>>()?;
    if texts.is_empty() {
        return Err(CliError::input(format!(
            "{} has no validation rows",
            data.display()
        )));
    }
    Ok(Samples {
        texts,
        tokens: Some(rows),
        drawn: None,
    })
}

/// Judges texts, by the grammar if there is one.
pub(crate) fn judge<S: AsRef<str>>(grammar: Option<&Grammar>, texts: &[S]) -> Result<Figures> {
    Ok(match grammar {
        Some(grammar) => Figures::Grammar(Quality::of(grammar, texts)?),
        None => Figures::Open(Diversity::of(texts)?),
    })
}

/// The files that are meant: one, or those of a folder in the order of their names.
fn sample_files(path: &Path) -> Result<Vec<PathBuf>> {
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

fn is_json_lines(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "jsonl")
}

/// Reads a file of samples: JSON lines, or a text a line.
pub(crate) fn read(path: &Path) -> Result<Samples> {
    let content = files::read(path)?;
    let samples = if is_json_lines(path) {
        json_lines(&content, path)?
    } else {
        Samples {
            texts: content.lines().map(str::to_owned).collect(),
            tokens: None,
            drawn: None,
        }
    };
    if samples.texts.is_empty() {
        return Err(CliError::input(format!(
            "{} holds no sample",
            path.display()
        )));
    }
    Ok(samples)
}

/// What of a line of JSON is judged.
#[derive(Deserialize)]
struct Line {
    text: String,
    tokens: Option<Vec<u32>>,
}

fn json_lines(content: &str, path: &Path) -> Result<Samples> {
    let lines = || {
        content
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
    };
    let mut texts = Vec::new();
    let mut tokens = Vec::new();
    for (number, line) in lines() {
        let line: Line = serde_json::from_str(line).map_err(|error| {
            CliError::input(format!(
                "line {} of {} is not a sample: {error}",
                number + 1,
                path.display()
            ))
        })?;
        texts.push(line.text);
        tokens.extend(line.tokens);
    }
    let drawn = lines()
        .next()
        .and_then(|(_, line)| serde_json::from_str(line).ok());
    Ok(Samples {
        tokens: (tokens.len() == texts.len()).then_some(tokens),
        texts,
        drawn,
    })
}

impl Samples {
    /// Unigram entropy of a sample's tokens in nats.
    pub(crate) fn token_entropy(&self) -> Option<f64> {
        mean_unigram_entropy(self.tokens.as_ref()?)
    }
}
