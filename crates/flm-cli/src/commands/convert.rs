//! Weights of the published implementation, in and out.

use super::inspect;
use crate::command_line::CommandLine;
use crate::device::{self, Device, Job, Place};
use crate::error::{CliError, Result};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm::{CARD_FILE, Card, Converted, ModelFolder};
use flm_data::{Layout, TOKENIZER_FILE, TextTokenizer};
use flm_denoiser::folder::{self, Content, Existing};
use flm_denoiser::reference::{
    self, ExportFormat, Hints, Kind, ReferenceCheckpoint, ReferenceError, Weights,
};
use flm_denoiser::{Dit, DitConfig};
use std::path::{Path, PathBuf};

/// Bring in weights of the published implementation, or hand a model back to it
///
/// A checkpoint (.ckpt, .pt), a .safetensors file or a folder of the Hugging Face hub becomes a model folder. A model folder becomes a
/// folder as on the hub or, if --out ends in .safetensors, one file of tensors. Nothing in a checkpoint is ever run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm convert lm1b_fmlm.ckpt --tokenizer bert/tokenizer.json --out models/lm1b
  flm convert second.ckpt --denoiser flow.ckpt --out models/residual
  flm convert models/lm1b --out for-python")]
pub(crate) struct ConvertArgs {
    /// The file or folder to convert
    #[arg(value_name = "FROM")]
    pub(crate) from: PathBuf,
    /// The model folder to make; of a model folder, the folder or .safetensors file to make
    #[arg(long, value_name = "TO")]
    pub(crate) out: PathBuf,
    /// Take the parameters as training left them, instead of their averages
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// The tokenizer.json of the model; without one it cannot be sampled as text
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// The frozen denoiser of a residual flow map: a file, a folder or a model folder
    #[arg(long, value_name = "FROM")]
    pub(crate) denoiser: Option<PathBuf>,
    /// What the network is for, where its file does not say
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<NetworkKind>,
    /// Tokens in a sequence, where the file does not say
    #[arg(long, value_name = "L")]
    pub(crate) length: Option<usize>,
    /// Attention heads, where the file does not say
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// What a sequence of tokens is: packed, as published models have it, or rows of one document; that of the model's card where it has
    /// one, otherwise packed
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<LayoutName>,
    /// Replace a model that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// What a sequence of tokens is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LayoutName {
    /// A block of a stream of documents
    Packed,
    /// One document, its end, and padding
    Rows,
}

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkKind {
    /// The denoiser of a flow
    Flow,
    /// A flow map
    FlowMap,
    /// The second network of a residual flow map
    Residual,
}

/// Converts and says what became of what.
pub(crate) fn convert(args: &ConvertArgs) -> Result<String> {
    // Computing is not needed; the processor holds the tensors.
    if is_model(&args.from) {
        device::run(Device::Cpu, Out { args })
    } else {
        device::run(Device::Cpu, In { args })
    }
}

/// Whether a path is a model folder of ours, or a run that has one.
fn is_model(path: &Path) -> bool {
    let folder = ModelFolder::find(path);
    folder.is_ok_and(|folder| inspect::is_ours(&folder))
}

fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Refuse
    }
}

/// Converting a model folder for the reference.
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
                    "{} is a model folder, which is converted as it is: {option} is for other files",
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
            inspect::network(&config),
            args.out.display()
        );
        if config.residual {
            out += &format!(
                "denoiser   another file there: flm convert {} --out …\n",
                folder.join(folder::DENOISER_FOLDER).display()
            );
        }
        Ok(out)
    }
}

/// Converting files of the reference to a model folder.
struct In<'a> {
    args: &'a ConvertArgs,
}

/// A network with what its folder holds besides.
struct Network<B: AutodiffBackend> {
    model: Dit<B::InnerBackend>,
    config: DitConfig,
    extra: Vec<(&'static str, Vec<u8>)>,
}

impl Job for In<'_> {
    type Output = String;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<String> {
        let args = self.args;
        let foreign = ReferenceCheckpoint::open(&args.from)?;
        let kind = match args.kind {
            Some(kind) => kind.into(),
            None => foreign.kind()?,
        };
        let denoiser = match (&args.denoiser, kind) {
            (Some(path), Kind::Residual) => Some(path),
            (None, Kind::Residual) => {
                return Err(CliError::input(format!(
                    "{} is the second network of a residual flow map: name the file of its denoiser by --denoiser",
                    args.from.display()
                )));
            }
            (Some(path), _) => {
                return Err(CliError::input(format!(
                    "{} is a network of its own and takes no denoiser, found --denoiser {}",
                    args.from.display(),
                    path.display()
                )));
            }
            (None, _) => None,
        };
        let layout = self.layout()?;
        let network = self.read::<B>(&foreign, &args.from, Some(kind), layout, place)?;
        let existing = existing(args.force);
        match denoiser {
            None => {
                let extra = network.extra();
                folder::save(&args.out, &network.model, &network.config, &extra, existing)?;
            }
            Some(path) => {
                let denoiser = self.denoiser::<B>(path, layout, place)?;
                let (of_second, of_denoiser) = (network.extra(), denoiser.extra());
                folder::save_residual(
                    &args.out,
                    network.content(&of_second),
                    denoiser.content(&of_denoiser),
                    existing,
                )?;
            }
        }
        let text = match &args.tokenizer {
            Some(_) => format!(
                "next       flm sample --model {} --steps {}\n",
                args.out.display(),
                if network.config.two_time { 1 } else { 128 }
            ),
            None => format!(
                "tokenizer  none{}: samples need one, by --tokenizer\n",
                (foreign.settings().tokenizer.as_ref())
                    .map_or_else(String::new, |name| format!(" (the file names {name})"))
            ),
        };
        Ok(format!(
            "{}model      {}\n{text}",
            inspect::foreign(&foreign, &network.config),
            args.out.display()
        ))
    }
}

impl In<'_> {
    /// What a sequence of the model is: what a card of ours says, or is given, and no two that differ.
    fn layout(&self) -> Result<Layout> {
        let args = self.args;
        let mut found: Option<(String, Layout)> = (args.layout).map(|layout| {
            (
                format!("--layout {}", Layout::from(layout).name()),
                layout.into(),
            )
        });
        for path in std::iter::once(&args.from).chain(&args.denoiser) {
            let card = if is_model(path) {
                Card::read(&ModelFolder::find(path)?)?
            } else {
                // A file of this name elsewhere may be anything.
                Card::read(path).ok().flatten()
            };
            let Some(layout) = card.map(|card| card.layout) else {
                continue;
            };
            match &found {
                Some((by, other)) if *other != layout => {
                    return Err(CliError::input(format!(
                        "the card of {} says that its layout is {}, which differs from {by}",
                        path.display(),
                        layout.name()
                    )));
                }
                _ => found = Some((format!("that of {}", path.display()), layout)),
            }
        }
        Ok(found.map_or(Layout::Packed, |(_, layout)| layout))
    }

    fn read<B: AutodiffBackend>(
        &self,
        foreign: &ReferenceCheckpoint,
        path: &Path,
        kind: Option<Kind>,
        layout: Layout,
        place: &Place<B>,
    ) -> Result<Network<B>> {
        let args = self.args;
        let hints = Hints {
            length: args.length,
            heads: args.heads,
            kind,
        };
        let weights = if args.no_ema {
            Weights::Live
        } else {
            Weights::Averaged
        };
        let loaded = foreign.load::<B::InnerBackend>(weights, &hints, &place.device);
        let (model, config) = loaded.map_err(with_option)?;
        let tokenizer = match &args.tokenizer {
            Some(path) => Some(fitting(path, config.vocab_size)?),
            None => None,
        };
        let averaged = foreign.has_averages() && weights == Weights::Averaged;
        let weights = if averaged { "averaged" } else { "as they are" };
        let converted = Converted {
            file: path.display().to_string(),
            sha256: flm::file_hash(&main_file(path))?,
            algorithm: foreign.settings().algorithm.clone(),
            weights: weights.to_owned(),
            steps: foreign.settings().step,
        };
        let card = Card {
            command: CommandLine::current().shown(),
            tokenizer_hash: tokenizer
                .as_ref()
                .map(|tokenizer| tokenizer.hash().to_owned()),
            converted: Some(converted.clone()),
            ..Card::new(flm::kind(&config), layout, config.parameter_count() as u64)
        };
        let mut extra = vec![
            (CARD_FILE, card.to_json().into_bytes()),
            ("README.md", readme(&card, &converted, &config).into_bytes()),
        ];
        if let Some(tokenizer) = tokenizer {
            extra.push((TOKENIZER_FILE, tokenizer.to_json()?.into_bytes()));
        }
        Ok(Network {
            model,
            config,
            extra,
        })
    }

    /// The denoiser of a residual flow map, which may be a model folder of ours.
    fn denoiser<B: AutodiffBackend>(
        &self,
        path: &Path,
        layout: Layout,
        place: &Place<B>,
    ) -> Result<Network<B>> {
        if !is_model(path) {
            let foreign = ReferenceCheckpoint::open(path)?;
            return self.read::<B>(&foreign, path, Some(Kind::Flow), layout, place);
        }
        let folder = ModelFolder::find(path)?;
        let (model, config) = folder::load::<B::InnerBackend>(&folder, &place.device)?;
        let mut extra = Vec::new();
        for name in [TOKENIZER_FILE, CARD_FILE, "README.md"] {
            let path = folder.join(name);
            if path.is_file() {
                let content = std::fs::read(&path).map_err(CliError::io("read", &path))?;
                extra.push((name, content));
            }
        }
        Ok(Network {
            model,
            config,
            extra,
        })
    }
}

impl<B: AutodiffBackend> Network<B> {
    fn extra(&self) -> Vec<(&str, &[u8])> {
        (self.extra.iter())
            .map(|(name, content)| (*name, content.as_slice()))
            .collect()
    }

    fn content<'a>(&'a self, extra: &'a [(&'a str, &'a [u8])]) -> Content<'a, B::InnerBackend> {
        Content {
            model: &self.model,
            config: &self.config,
            extra,
        }
    }
}

/// The tokenizer of a model of `vocabulary` tokens. The reference gives one without a padding token one more, the last.
fn fitting(path: &Path, vocabulary: usize) -> Result<TextTokenizer> {
    let tokenizer = TextTokenizer::load(path)?;
    let found = tokenizer.vocab_size();
    if found == vocabulary {
        return Ok(tokenizer);
    }
    if found + 1 == vocabulary && tokenizer.pad_id() == tokenizer.eos_id() {
        return Ok(tokenizer.with_padding()?);
    }
    Err(CliError::input(format!(
        "{} has {found} tokens, but the model has {vocabulary}",
        path.display()
    )))
}

/// The error with the option that it is about.
fn with_option(error: ReferenceError) -> CliError {
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

/// The file of weights that a path means.
fn main_file(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(folder::TENSORS_FILE)
    } else {
        path.to_path_buf()
    }
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

/// The card of a converted model for people.
fn readme(card: &Card, converted: &Converted, config: &DitConfig) -> String {
    let Converted {
        file,
        sha256,
        algorithm,
        weights,
        steps,
    } = converted;
    let unknown = || "not said".to_owned();
    format!(
        "# {kind}, converted\n\n\
             | | |\n| --- | --- |\n\
             | file | `{file}` |\n\
             | SHA-256 | `{sha256}` |\n\
             | its kind there | {algorithm} |\n\
             | steps there | {steps} |\n\
             | weights | {weights} |\n\
             | network | {network} |\n\
             | command | `{command}` |\n\
             | version | flm {version} |\n",
        kind = card.kind,
        algorithm = algorithm.clone().unwrap_or_else(unknown),
        steps = steps.map_or_else(unknown, |steps| steps.to_string()),
        network = inspect::network(config),
        command = card.command,
        version = card.flm_version,
    )
}
