//! The `flm convert` command: import and export of the published implementation's weights.

use super::inspect;
use crate::command_line::CommandLine;
use crate::device::{self, Device, Job, Place};
use crate::error::{CliError, Result};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm::{Existing, ImportOptions, Imported, ModelFolder};
use flm_data::Layout;
use flm_denoiser::folder;
use flm_denoiser::reference::{self, ExportFormat, Hints, Kind, ReferenceError, Weights};
use std::path::PathBuf;

/// Convert checkpoints of the published implementation, in either direction
///
/// A checkpoint (.ckpt, .pt), a .safetensors file or a folder of the Hugging Face hub becomes a
/// model folder. A model folder becomes a hub folder or, if --out ends in .safetensors, a file of
/// tensors. Code in a checkpoint is never executed.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm convert lm1b_fmlm.ckpt --tokenizer bert/tokenizer.json --out models/lm1b
  flm convert second.ckpt --denoiser flow.ckpt --out models/residual
  flm convert models/lm1b --out for-python")]
pub(crate) struct ConvertArgs {
    /// The file or folder to convert
    #[arg(value_name = "FROM")]
    pub(crate) from: PathBuf,
    /// Output: a model folder, or a hub folder or .safetensors file
    #[arg(long, value_name = "TO")]
    pub(crate) out: PathBuf,
    /// Take the last parameters instead of their averages
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// tokenizer.json of the model; needed to sample text
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Frozen denoiser of a residual flow map: a file, a hub folder or a model folder
    #[arg(long, value_name = "FROM")]
    pub(crate) denoiser: Option<PathBuf>,
    /// Kind of the network, if the file does not say
    #[arg(long, value_name = "KIND", hide_short_help = true)]
    pub(crate) kind: Option<NetworkKind>,
    /// Sequence length, if the file does not say
    #[arg(long, value_name = "L", hide_short_help = true)]
    pub(crate) length: Option<usize>,
    /// Attention heads, if the file does not say
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) heads: Option<usize>,
    /// Layout of a sequence: packed blocks, or rows of one document
    ///
    /// The default is that of the model card, otherwise packed.
    #[arg(long, value_name = "LAYOUT", hide_short_help = true)]
    pub(crate) layout: Option<LayoutName>,
    /// Replace an existing model
    #[arg(long)]
    pub(crate) force: bool,
}

/// The contents of a token sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LayoutName {
    /// A block of a stream of documents
    Packed,
    /// One document, its end, and padding
    Rows,
}

/// The role of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkKind {
    /// The denoiser of a flow
    Flow,
    /// A flow map
    FlowMap,
    /// The second network of a residual flow map
    Residual,
}

/// Converts and reports the result.
pub(crate) fn convert(args: &ConvertArgs) -> Result<String> {
    // Conversion computes nothing; the tensors are in host memory.
    if ModelFolder::find_own(&args.from).is_some() {
        device::run(Device::Cpu, Out { args })
    } else {
        device::run(Device::Cpu, In { args })
    }
}

fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Refuse
    }
}

/// Exports a model folder to the format of the reference implementation.
struct Out<'a> {
    args: &'a ConvertArgs,
}

impl Job for Out<'_> {
    type Output = String;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<String> {
        let args = self.args;
        for (given, option) in [
            (args.no_ema, "--no-ema"),
            (args.tokenizer.is_some(), "--tokenizer"),
            (args.denoiser.is_some(), "--denoiser"),
            (args.kind.is_some(), "--kind"),
            (args.length.is_some(), "--length"),
            (args.heads.is_some(), "--heads"),
            (args.layout.is_some(), "--layout"),
        ] {
            if given {
                return Err(CliError::input(format!(
                    "{} is a model folder, which is converted unchanged: {option} applies to other files",
                    args.from.display()
                )));
            }
        }
        let folder = ModelFolder::find(&args.from)?;
        let config = folder::read_config(&folder)?;
        let (model, config) = if config.residual {
            let (both, [config, _]) =
                folder::load_residual::<B::InnerBackend>(&folder, &place.device)?;
            (both.second, config)
        } else {
            folder::load::<B::InnerBackend>(&folder, &place.device)?
        };
        let target = match args.out.extension() {
            Some(extension) if extension == "safetensors" => ExportFormat::StateDict,
            _ => ExportFormat::HuggingFace,
        };
        reference::export(&args.out, &model, &config, target, existing(args.force))?;
        let mut out = format!(
            "network    {}\nwritten    {}\n",
            flm::describe(&config),
            args.out.display()
        );
        if config.residual {
            out += &format!(
                "denoiser   exported separately: flm convert {} --out …\n",
                folder.join(folder::DENOISER_FOLDER).display()
            );
        }
        Ok(out)
    }
}

/// Imports files of the reference implementation to a model folder.
struct In<'a> {
    args: &'a ConvertArgs,
}

impl Job for In<'_> {
    type Output = String;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<String> {
        let args = self.args;
        let options = ImportOptions {
            denoiser: args.denoiser.clone(),
            tokenizer: args.tokenizer.clone(),
            weights: if args.no_ema {
                Weights::Live
            } else {
                Weights::Averaged
            },
            hints: Hints {
                length: args.length,
                heads: args.heads,
                kind: args.kind.map(Kind::from),
            },
            layout: args.layout.map(Layout::from),
            command: CommandLine::current().shown(),
        };
        let imported = Imported::<B::InnerBackend>::read(&args.from, &options, &place.device);
        let imported = imported.map_err(with_option)?;
        imported.save(&args.out, existing(args.force))?;
        let file = imported.checkpoint();
        let text = match &args.tokenizer {
            Some(_) => format!(
                "next       flm sample --model {} --steps {}\n",
                args.out.display(),
                if imported.config().two_time { 1 } else { 128 }
            ),
            None => format!(
                "tokenizer  none{}: sampling needs one, pass it with --tokenizer\n",
                (file.settings().tokenizer.as_ref())
                    .map_or_else(String::new, |name| format!(" (the file names {name})"))
            ),
        };
        Ok(format!(
            "{}model      {}\n{text}",
            inspect::foreign(file, imported.config()),
            args.out.display()
        ))
    }
}

/// Adds the option that the error concerns.
fn with_option(error: flm::Error) -> CliError {
    let flm::Error::Reference(error) = error else {
        return error.into();
    };
    let option = match &error {
        ReferenceError::Untold { key, .. } => format!(" by --{key}"),
        ReferenceError::Contradiction { key, .. } => format!(" by --{key}"),
        ReferenceError::Averages { .. } | ReferenceError::NoAverages { .. } => {
            " by --no-ema".to_owned()
        }
        ReferenceError::OneSet { .. } => ", without --no-ema".to_owned(),
        _ => return error.into(),
    };
    CliError::input(format!("{error}{option}"))
}

impl From<LayoutName> for Layout {
    fn from(name: LayoutName) -> Self {
        match name {
            LayoutName::Packed => Self::Packed,
            LayoutName::Rows => Self::Rows,
        }
    }
}

impl From<NetworkKind> for Kind {
    fn from(kind: NetworkKind) -> Self {
        match kind {
            NetworkKind::Flow => Self::Flow,
            NetworkKind::FlowMap => Self::FlowMap,
            NetworkKind::Residual => Self::Residual,
        }
    }
}
