//! The `flm data` commands.

mod datasets;
pub(crate) mod prepare;

pub(crate) use datasets::manifest;

use super::{inspect, print};
use crate::args::{SettingsArgs, settings};
use crate::config::Unit;
use crate::error::{CliError, Result};
use clap::{Args, Subcommand};
use flm_data::Layout;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    List(DataListArgs),
    Fetch(FetchArgs),
    Prepare(Box<PrepareArgs>),
    Inspect(DataInspectArgs),
}

/// List the known data sets, or show the manifest of one
#[derive(Debug, Args)]
pub(crate) struct DataListArgs {
    /// Show the manifest of this data set
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Download the files of a data set
///
/// Resumes partial downloads and checks sizes and checksums where they are known. Without a network
/// it lists the files and where to get them. Reads HF_ENDPOINT and HF_TOKEN.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm data fetch wikitext-2
  flm data fetch lm1b --from /mnt/datasets/lm1b")]
pub(crate) struct FetchArgs {
    /// A data set by name (`flm data list`), or the path of a manifest
    #[arg(value_name = "NAME|FILE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Location of a data set's files.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Use a local copy: a folder, or a single file
    ///
    /// Nothing is downloaded or changed.
    #[arg(long, value_name = "PATH")]
    pub(crate) from: Option<PathBuf>,
    /// Download folder [default: $FLM_CACHE/datasets or ~/.cache/flm/datasets]
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "from",
        hide_short_help = true
    )]
    pub(crate) cache: Option<PathBuf>,
}

/// Turn a corpus into a data folder of token rows
///
/// The corpus is a data set by name (`flm data list`), or --input: a file or a folder of text, JSON
/// lines or Parquet, plain or compressed by gzip or zstd, or `grammar` for sentences of the
/// built-in grammar. Options that are not given come from the manifest, the preset's `[data]`
/// section or the defaults. Rerun the command to continue an interrupted preparation.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm data prepare wikitext-2 --train-bpe 4096 --length 64 --out data
  flm data prepare --input grammar --count 40000 --length 24 --out data
  flm data prepare --input corpus.txt --tokenizer chars --length 128 --pack --whole --out data
  flm data prepare --input docs/ --train-bpe 8000 --length 128 --pack --out data")]
pub(crate) struct PrepareArgs {
    /// A data set by name, or the path of a manifest
    #[arg(value_name = "NAME|FILE", conflicts_with = "input")]
    pub(crate) dataset: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A file, a folder, or `grammar`
    #[arg(long, value_name = "PATH", required_unless_present_any = ["preset", "dataset"])]
    pub(crate) input: Option<String>,
    /// Column of Parquet files, or field of JSON lines, with the text
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) column: Option<String>,
    /// Detokenizer for an older corpus: lm1b, wikitext, ptb, lambada, scientific_papers or none
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) detokenizer: Option<flm_data::Detokenizer>,
    /// `words` or `chars` of the corpus, or a tokenizer.json
    #[arg(long, value_name = "words|chars|FILE")]
    pub(crate) tokenizer: Option<String>,
    /// Train a byte-pair tokenizer of N tokens on the corpus
    #[arg(long, value_name = "N", conflicts_with = "tokenizer")]
    pub(crate) train_bpe: Option<usize>,
    /// Tokens per row
    #[arg(long, value_name = "L")]
    pub(crate) length: Option<usize>,
    /// Pack documents into full rows, instead of one document per row
    #[arg(long)]
    pub(crate) pack: bool,
    /// Read each text file as one document, instead of one per line (needs --pack)
    #[arg(long, requires = "pack")]
    pub(crate) whole: bool,
    /// Number of grammar sentences
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) count: Option<u64>,
    /// Seed of the grammar sentences
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) seed: Option<u64>,
    /// Share of documents for validation
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    pub(crate) validation_share: Option<f64>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Output data folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace an existing data folder
    #[arg(long)]
    pub(crate) force: bool,
}

/// Check a data folder, and show its contents and some rows
#[derive(Debug, Args)]
pub(crate) struct DataInspectArgs {
    /// The data folder
    #[arg(value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Number of rows to show
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) rows: usize,
}

pub(crate) fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::List(args) => print(&datasets::list(args.name.as_deref())?),
        DataCommand::Fetch(args) => print(&datasets::fetch(&args)?),
        DataCommand::Prepare(args) => data_prepare(*args),
        DataCommand::Inspect(args) => print(&inspect::data(&args.data, args.rows)?),
    }
}

fn data_prepare(args: PrepareArgs) -> Result<()> {
    let mut data = settings(&args.settings, None, &["data"])?.data;
    let named = args.dataset.as_deref().or(match &args.input {
        None => data.dataset(),
        Some(_) => None,
    });
    if let Some(name) = named {
        return datasets::prepare(name, &args);
    }
    for (given, option) in [
        (args.place.from.is_some(), "--from"),
        (args.place.cache.is_some(), "--cache"),
    ] {
        if given {
            return Err(CliError::input(format!(
                "{option} applies to data sets by name, not to --input"
            )));
        }
    }
    if let Some(input) = args.input {
        data.source = input;
    }
    if let Some(tokenizer) = args.tokenizer {
        data.tokenizer = tokenizer;
    }
    if let Some(size) = args.train_bpe {
        data.tokenizer = format!("bpe:{size}");
    }
    if args.pack {
        data.layout = Layout::Packed;
    }
    if args.whole {
        data.unit = Unit::Whole;
    }
    data.column = args.column.unwrap_or(data.column);
    data.detokenizer = args.detokenizer.unwrap_or(data.detokenizer);
    data.length = args.length.unwrap_or(data.length);
    data.sentences = args.count.unwrap_or(data.sentences);
    data.seed = args.seed.unwrap_or(data.seed);
    data.validation_share = args.validation_share.unwrap_or(data.validation_share);
    prepare::prepare(&data, &args.out, args.force)?;
    Ok(())
}
