//! Conversion of weights of the published implementation to model folders.

use crate::{CARD_FILE, Card, Converted, Error, ModelFolder, Result, describe, kind};
use burn::tensor::backend::Backend;
use flm_data::{Layout, TOKENIZER_FILE, TextTokenizer};
use flm_denoiser::folder::{self, Content, Existing};
use flm_denoiser::reference::{Hints, Kind, ReferenceCheckpoint, Weights};
use flm_denoiser::{Dit, DitConfig};
use std::path::{Path, PathBuf};

/// Options for converting a file of the published implementation.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The frozen denoiser of a residual flow map: a file, a Hugging Face hub folder or a
    /// model folder.
    pub denoiser: Option<PathBuf>,
    /// The `tokenizer.json` of the model. Without it, the model cannot be sampled as text.
    pub tokenizer: Option<PathBuf>,
    /// The set of weights to use if the file has two.
    pub weights: Weights,
    /// Settings that the file does not contain.
    pub hints: Hints,
    /// The layout of the rows. By default the layout in a card next to the file, or packed.
    pub layout: Option<Layout>,
    /// The command line, for the card.
    pub command: String,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            denoiser: None,
            tokenizer: None,
            weights: Weights::Averaged,
            hints: Hints::default(),
            layout: None,
            command: String::new(),
        }
    }
}

/// A network of the published implementation, ready to be saved as a model folder.
pub struct Imported<B: Backend> {
    checkpoint: ReferenceCheckpoint,
    network: Part<B>,
    denoiser: Option<Part<B>>,
}

/// A network with the other files of its folder.
struct Part<B: Backend> {
    model: Dit<B>,
    config: DitConfig,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl<B: Backend> std::fmt::Debug for Imported<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Imported")
            .field("config", &self.network.config)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Imported<B> {
    /// Reads a checkpoint, a `.safetensors` file or a folder of the Hugging Face hub.
    ///
    /// No code in a checkpoint is executed.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if the file is damaged or lacks settings that no hint gives,
    /// [`Error::Option`] if a denoiser is missing or given without need, [`Error::Mismatch`] if the
    /// tokenizer or a card contradicts the file.
    pub fn read(from: &Path, options: &ImportOptions, device: &B::Device) -> Result<Self> {
        let checkpoint = ReferenceCheckpoint::open(from)?;
        let kind = match options.hints.kind {
            Some(kind) => kind,
            None => checkpoint.kind()?,
        };
        match (&options.denoiser, kind) {
            (None, Kind::Residual) => {
                return Err(Error::Option(format!(
                    "{} is the second network of a residual flow map: give the file of its denoiser with --denoiser",
                    from.display()
                )));
            }
            (Some(path), Kind::Flow | Kind::FlowMap) => {
                return Err(Error::Option(format!(
                    "{} is not a residual flow map and has no denoiser, found --denoiser {}",
                    from.display(),
                    path.display()
                )));
            }
            _ => {}
        }
        let layout = layout(from, options)?;
        let network = part(&checkpoint, from, kind, layout, options, device)?;
        let denoiser = options.denoiser.as_ref();
        let denoiser = denoiser.map(|path| denoiser_part(path, layout, options, device));
        Ok(Self {
            denoiser: denoiser.transpose()?,
            checkpoint,
            network,
        })
    }

    /// The checkpoint file.
    pub fn checkpoint(&self) -> &ReferenceCheckpoint {
        &self.checkpoint
    }

    /// The configuration of the network, or of the second network of a residual flow map.
    pub fn config(&self) -> &DitConfig {
        &self.network.config
    }

    /// Writes the model folder, which appears complete or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`] if the folder exists and may not be replaced, or on an I/O error.
    pub fn save(&self, out: &Path, existing: Existing) -> Result<()> {
        let Self {
            network, denoiser, ..
        } = self;
        let files = network.files();
        match denoiser {
            None => folder::save(out, &network.model, &network.config, &files, existing)?,
            Some(denoiser) => {
                let of_denoiser = denoiser.files();
                let (second, first) = (network.content(&files), denoiser.content(&of_denoiser));
                folder::save_residual(out, second, first, existing)?;
            }
        }
        Ok(())
    }
}

impl<B: Backend> Part<B> {
    fn files(&self) -> Vec<(&str, &[u8])> {
        let files = self.files.iter();
        files
            .map(|(name, content)| (*name, content.as_slice()))
            .collect()
    }

    fn content<'a>(&'a self, extra: &'a [(&'a str, &'a [u8])]) -> Content<'a, B> {
        Content {
            model: &self.model,
            config: &self.config,
            extra,
        }
    }
}

/// Returns the layout from the options or from cards next to the files, or an error if they differ.
fn layout(from: &Path, options: &ImportOptions) -> Result<Layout> {
    let given = |layout: Layout| (format!("--layout {}", layout.name()), layout);
    let mut found: Option<(String, Layout)> = options.layout.map(given);
    for path in std::iter::once(from).chain(options.denoiser.as_deref()) {
        let card = match ModelFolder::find_own(path) {
            Some(folder) => Card::read(&folder)?,
            // In other folders a file of this name may be unrelated.
            None => Card::read(path).ok().flatten(),
        };
        let Some(layout) = card.map(|card| card.layout) else {
            continue;
        };
        match &found {
            Some((by, other)) if *other != layout => {
                return Err(Error::Mismatch {
                    reason: format!(
                        "the card of {} has the layout {}, which differs from {by}",
                        path.display(),
                        layout.name()
                    ),
                });
            }
            _ => found = Some((format!("the card of {}", path.display()), layout)),
        }
    }
    Ok(found.map_or(Layout::Packed, |(_, layout)| layout))
}

fn part<B: Backend>(
    checkpoint: &ReferenceCheckpoint,
    path: &Path,
    of: Kind,
    layout: Layout,
    options: &ImportOptions,
    device: &B::Device,
) -> Result<Part<B>> {
    let hints = Hints {
        kind: Some(of),
        ..options.hints
    };
    let (model, config) = checkpoint.load::<B>(options.weights, &hints, device)?;
    let tokenizer = options.tokenizer.as_deref();
    let tokenizer = tokenizer
        .map(|path| fitting(path, config.vocab_size))
        .transpose()?;
    let averaged = checkpoint.has_averages() && options.weights == Weights::Averaged;
    let file = if path.is_dir() {
        path.join(folder::TENSORS_FILE)
    } else {
        path.to_path_buf()
    };
    let converted = Converted {
        file: path.display().to_string(),
        sha256: flm_files::sha256(&file)?,
        algorithm: checkpoint.settings().algorithm.clone(),
        weights: if averaged { "averaged" } else { "as they are" }.to_owned(),
        steps: checkpoint.settings().step,
    };
    let card = Card {
        command: options.command.clone(),
        tokenizer_hash: tokenizer
            .as_ref()
            .map(|tokenizer| tokenizer.hash().to_owned()),
        converted: Some(converted.clone()),
        ..Card::new(kind(&config), layout, config.parameter_count() as u64)
    };
    let mut files = vec![
        (CARD_FILE, card.to_json().into_bytes()),
        ("README.md", readme(&card, &converted, &config).into_bytes()),
    ];
    if let Some(tokenizer) = tokenizer {
        files.push((TOKENIZER_FILE, tokenizer.to_json()?.into_bytes()));
    }
    Ok(Part {
        model,
        config,
        files,
    })
}

/// Reads the denoiser of a residual flow map, from a checkpoint or a model folder.
fn denoiser_part<B: Backend>(
    path: &Path,
    layout: Layout,
    options: &ImportOptions,
    device: &B::Device,
) -> Result<Part<B>> {
    let Some(folder) = ModelFolder::find_own(path) else {
        let checkpoint = ReferenceCheckpoint::open(path)?;
        return part(&checkpoint, path, Kind::Flow, layout, options, device);
    };
    let (model, config) = folder::load::<B>(&folder, device)?;
    let mut files = Vec::new();
    for name in [TOKENIZER_FILE, CARD_FILE, "README.md"] {
        let path = folder.join(name);
        if path.is_file() {
            files.push((
                name,
                std::fs::read(&path).map_err(Error::io("read", &path))?,
            ));
        }
    }
    Ok(Part {
        model,
        config,
        files,
    })
}

/// Loads the tokenizer of a model with `vocabulary` tokens.
///
/// The published implementation appends a padding token to a tokenizer without one.
fn fitting(path: &Path, vocabulary: usize) -> Result<TextTokenizer> {
    let tokenizer = TextTokenizer::load(path)?;
    let found = tokenizer.vocab_size();
    if found == vocabulary {
        return Ok(tokenizer);
    }
    if found + 1 == vocabulary && tokenizer.pad_id() == tokenizer.eos_id() {
        return Ok(tokenizer.with_padding()?);
    }
    Err(Error::Mismatch {
        reason: format!(
            "{} has {found} tokens, but the model has {vocabulary}",
            path.display()
        ),
    })
}

/// The `README.md` of a converted model.
fn readme(card: &Card, converted: &Converted, config: &DitConfig) -> String {
    let Converted {
        file,
        sha256,
        algorithm,
        weights,
        steps,
    } = converted;
    let unknown = || "unknown".to_owned();
    format!(
        "# {kind}, converted\n\n\
             | | |\n| --- | --- |\n\
             | file | `{file}` |\n\
             | SHA-256 | `{sha256}` |\n\
             | algorithm | {algorithm} |\n\
             | training steps | {steps} |\n\
             | weights | {weights} |\n\
             | network | {network} |\n\
             | command | `{command}` |\n\
             | version | flm {version} |\n",
        kind = card.kind,
        algorithm = algorithm.clone().unwrap_or_else(unknown),
        steps = steps.map_or_else(unknown, |steps| steps.to_string()),
        network = describe(config),
        command = card.command,
        version = card.flm_version,
    )
}
