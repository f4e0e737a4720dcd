//! The `flm inspect` command: descriptions of files and folders.

use crate::error::{CliError, Result};
use crate::files::{self, RunFolder};
use clap::Args;
use flm::{CARD_FILE, Card, grouped};
use flm_data::{Dataset, Layout, TOKENIZER_FILE, TextTokenizer};
use flm_denoiser::DitConfig;
use flm_denoiser::folder;
use flm_denoiser::reference::{Hints, ReferenceCheckpoint};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Describe a model, run, data folder, checkpoint or tensor file
#[derive(Debug, Args)]
#[command(after_long_help = "Example: flm inspect lm1b_fmlm.ckpt --tensors")]
pub(crate) struct InspectArgs {
    /// The file or folder
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// List all tensors with their shapes
    #[arg(long)]
    pub(crate) tensors: bool,
}

/// Number of rows of a data folder to show.
const ROWS: usize = 5;

/// Describes `path`, with a list of its tensors if `tensors`.
pub(crate) fn inspect(path: &Path, tensors: bool) -> Result<String> {
    if !path.exists() {
        return Err(CliError::input(format!("there is no {}", path.display())));
    }
    if path.extension().is_some_and(|extension| extension == "bin") && path.is_file() {
        return shard(path);
    }
    if !path.is_dir() {
        return weights(path, tensors);
    }
    if path.join("dataset.json").is_file() {
        return data(path, ROWS);
    }
    if path.join("state.json").is_file() {
        return checkpoint(path, tensors);
    }
    if path.join("config.toml").is_file() {
        return run(path, tensors);
    }
    if flm::has_format_version(path) {
        return model(path, tensors);
    }
    if path.join("config.json").is_file() {
        return weights(path, tensors);
    }
    Err(CliError::input(format!(
        "{} is not an flm folder: it has no config.json (a model), config.toml (a run), dataset.json (data) or state.json (a checkpoint)",
        path.display()
    )))
}

/// Describes a checkpoint of the reference implementation and its network.
pub(crate) fn foreign(file: &ReferenceCheckpoint, config: &DitConfig) -> String {
    let settings = file.settings();
    let mut about = Vec::new();
    about.extend(settings.algorithm.clone());
    about.extend(
        settings
            .step
            .map(|step| format!("step {}", grouped(step.into()))),
    );
    about.push(match (file.has_averages(), settings.decay) {
        (true, Some(decay)) => format!("parameters and their averages (decay {decay})"),
        (true, None) => "parameters and their averages".to_owned(),
        (false, _) => "one set of weights".to_owned(),
    });
    let mut out = format!("file       {}\n", about.join(" · "));
    let _ = writeln!(out, "network    {}", flm::describe(config));
    if !file.left_out().is_empty() {
        let first = &file.left_out()[0];
        let _ = writeln!(
            out,
            "left out   {} tensors of a teacher ({first}, …)",
            file.left_out().len()
        );
    }
    out
}

/// Describes a checkpoint of the reference implementation, a tensor file or a hub folder.
fn weights(path: &Path, tensors: bool) -> Result<String> {
    let file = ReferenceCheckpoint::open(path)?;
    // Settings that the file does not hold take defaults; they are not shown.
    let told = file.config(&Hints::default());
    let mut out = match &told {
        Ok(config) => foreign(&file, config),
        Err(reason) => format!(
            "file       {} tensors\nnetwork    {reason}\n",
            file.shapes().len()
        ),
    };
    if tensors {
        list(&mut out, file.shapes());
    }
    Ok(out)
}

fn list(out: &mut String, shapes: &[(String, Vec<usize>)]) {
    for (name, shape) in shapes {
        let _ = writeln!(out, "tensor     {name} {shape:?}");
    }
}

/// Describes a model folder.
fn model(path: &Path, tensors: bool) -> Result<String> {
    let config = folder::read_config(path)?;
    let mut out = format!("network    {}\n", flm::describe(&config));
    let tokenizer = path.join(TOKENIZER_FILE);
    if tokenizer.is_file() {
        let tokenizer = TextTokenizer::load(&tokenizer)?;
        let _ = writeln!(
            out,
            "tokenizer  {} tokens, {:.12}",
            grouped(tokenizer.vocab_size() as u128),
            tokenizer.hash()
        );
    } else {
        out += "tokenizer  none\n";
    }
    if Card::read(path)?.is_some() {
        let card: Value = serde_json::from_str(&files::read(&path.join(CARD_FILE))?)?;
        for (label, pointer) in [
            ("command", "/command"),
            ("converted", "/converted/file"),
            ("hash", "/converted/sha256"),
            ("weights", "/converted/weights"),
            ("data", "/training/data_source"),
            ("seed", "/training/seed"),
            ("steps", "/training/steps"),
            ("steps", "/converted/steps"),
            ("loss", "/training/validation_loss"),
        ] {
            match card.pointer(pointer) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => _ = writeln!(out, "{label:11}{text}"),
                Some(other) => _ = writeln!(out, "{label:11}{other}"),
            }
        }
    }
    if tensors {
        list(&mut out, ReferenceCheckpoint::open(path)?.shapes());
    }
    if config.residual {
        out += "denoiser\n";
        let inner = model(&path.join(folder::DENOISER_FOLDER), tensors)?;
        for line in inner.lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    Ok(out)
}

/// Describes a run folder, finished or not.
fn run(path: &Path, tensors: bool) -> Result<String> {
    let run = RunFolder::new(path);
    let mut out = String::new();
    for name in ["flm", "fmlm"] {
        let stage = path.join(name);
        // A stage of a quickstart.
        if stage.join("config.toml").is_file() {
            let _ = writeln!(out, "{name}");
            for line in self::run(&stage, tensors)?.lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
    }
    if !out.is_empty() {
        return Ok(out);
    }
    match flm_train::latest_checkpoint(&run.checkpoints())? {
        Some((step, at)) => {
            let _ = writeln!(
                out,
                "checkpoint step {} in {}",
                grouped(step.into()),
                at.display()
            );
        }
        None => out += "checkpoint none\n",
    }
    let model_folder = run.model();
    if model_folder.join("config.json").is_file() {
        out += &model(&model_folder, tensors)?;
    } else {
        out += "model      none yet: the run is not finished\n";
    }
    Ok(out)
}

/// Describes a checkpoint of a run.
fn checkpoint(path: &Path, tensors: bool) -> Result<String> {
    let file = path.join("state.json");
    let state: Value = serde_json::from_str(&files::read(&file)?).map_err(|error| {
        CliError::input(format!(
            "{} is not the state of a run: {error}",
            file.display()
        ))
    })?;
    let number = |key: &str| state.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let shapes = state.get("parameters").and_then(Value::as_object);
    let mut out = format!(
        "checkpoint step {}, after {:.0} s; weights, their averages and the optimizer's state\nnetwork    {} tensors\n",
        grouped(number("step") as u128),
        number("seconds"),
        shapes.map_or(0, serde_json::Map::len),
    );
    if tensors {
        for (name, shape) in shapes.into_iter().flatten() {
            let _ = writeln!(out, "tensor     {name} {shape}");
        }
    }
    Ok(out)
}

/// Describes a data folder, with some rows, after checking every byte.
pub(crate) fn data(path: &Path, rows: usize) -> Result<String> {
    flm_study::grammar_of(path)?;
    let dataset = Dataset::open(path)?;
    dataset.verify()?;
    let meta = dataset.meta();
    let mut out = format!(
        "corpus      {}\nvocabulary  {} tokens, tokenizer {:.12}\nrows        {} to train, {} to validate, of {} tokens ({})\n",
        meta.source,
        meta.vocabulary_size,
        meta.tokenizer_hash,
        meta.train.rows,
        meta.validation.rows,
        meta.length,
        meta.layout.name(),
    );
    let _ = writeln!(
        out,
        "dropped     {} documents that are too long",
        meta.train.dropped_too_long + meta.validation.dropped_too_long
    );
    let _ = writeln!(out, "hash        {}", meta.identity(path)?);
    for row in 0..rows.min(dataset.train().rows()) {
        let text = match meta.layout {
            Layout::Rows => dataset.tokenizer().decode(&dataset.train().row(row)?)?,
            Layout::Packed => dataset.tokenizer().decode_all(&dataset.train().row(row)?)?,
        };
        let _ = writeln!(out, "row {row:<8}{}", text.replace('\n', "⏎"));
    }
    Ok(out)
}

/// Describes a shard of a data folder.
fn shard(path: &Path) -> Result<String> {
    let shard = flm_data::ShardInfo::read(path)?;
    Ok(format!(
        "shard      {} rows of {} tokens of {} bits\nvocabulary {} tokens, tokenizer {:.12}\n",
        grouped(shard.rows.into()),
        grouped(shard.length.into()),
        shard.bits,
        grouped(shard.vocabulary.into()),
        shard.tokenizer_hash,
    ))
}
