//! Models: networks with their tokenizer, layout and card.

use crate::folder::kind;
use crate::guidance::WeakModel;
use crate::{CARD_FILE, Card, Error, ModelFolder, Result, text_of};
use burn::module::Module;
use burn::tensor::backend::Backend;
use flm_data::{Layout, TOKENIZER_FILE, TextTokenizer};
use flm_denoiser::folder::{self, Content, Existing};
use flm_denoiser::{Dit, DitConfig, Execution, Family, Prior, Residual};
use flm_simplex::Schedule;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A network of any family with its tokenizer, layout and card.
///
/// ```no_run
/// use flm::backend::Flex;
/// use flm::{Model, SampleOptions};
///
/// let model = Model::<Flex>::load("runs/fmlm", &Default::default())?;
/// for text in model.sample(SampleOptions::steps(1).count(10))? {
///     println!("{text}");
/// }
/// # Ok::<(), flm::Error>(())
/// ```
pub struct Model<B: Backend> {
    network: ModelNetwork<B>,
    config: DitConfig,
    /// Configuration and card of the denoiser of a residual flow map.
    denoiser: Option<(DitConfig, Option<Card>)>,
    schedule: Schedule,
    tokenizer: TextTokenizer,
    card: Card,
    name: String,
    weights: String,
    device: B::Device,
    /// Weaker models that were loaded for guidance.
    pub(crate) weak: Mutex<Vec<Arc<WeakModel<B>>>>,
}

/// The networks of a model.
pub enum ModelNetwork<B: Backend> {
    /// A flow or a flow map on projected states, and its noise prior.
    Flow(Box<Dit<B>>, Prior<B>),
    /// A residual flow map: two networks on states as wide as the vocabulary.
    Residual(Box<Residual<B>>),
    /// A masked, uniform-state or autoregressive model on tokens.
    Tokens(Box<Dit<B>>),
}

impl<B: Backend> ModelNetwork<B> {
    /// Wraps a network according to its family.
    fn new(model: Dit<B>, family: Family) -> Self {
        match family {
            Family::Flow => {
                let prior = Prior::new(model.embed());
                Self::Flow(Box::new(model), prior)
            }
            _ => Self::Tokens(Box::new(model)),
        }
    }
}

/// The denoiser of a residual flow map, saved together with the second network.
pub(crate) struct Frozen<B: Backend> {
    pub(crate) network: Dit<B>,
    pub(crate) config: DitConfig,
    pub(crate) card: Option<Card>,
}

impl<B: Backend> Frozen<B> {
    /// The number of parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.network.num_params()
    }
}

/// Checks that a configuration matches the network.
pub(crate) fn check_network<B: Backend>(
    network: &Dit<B>,
    config: &DitConfig,
    has_denoiser: bool,
) -> Result<()> {
    if config.residual && !has_denoiser {
        return Err(Error::Unsupported(
            "a residual flow map has two networks: load it from a folder, or train it by Trainer::residual".to_owned(),
        ));
    }
    Ok(folder::check_config(network, config)?)
}

impl<B: Backend> fmt::Debug for Model<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}

impl ModelFolder {
    /// Loads the model with its weights.
    ///
    /// # Errors
    ///
    /// The errors of [`Model::load`].
    pub fn load<B: Backend>(self, device: &B::Device) -> Result<Model<B>> {
        Model::from_folder(self, device)
    }
}

impl<B: Backend> Model<B> {
    /// Loads a model from its folder, or from a finished run.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelFolder::open`] and [`ModelFolder::tokenizer`], and [`Error::Folder`] if
    /// a tensor is missing, unexpected, of the wrong shape or not finite.
    pub fn load(path: impl AsRef<Path>, device: &B::Device) -> Result<Self> {
        ModelFolder::open(path)?.load(device)
    }

    pub(crate) fn from_folder(folder: ModelFolder, device: &B::Device) -> Result<Self> {
        let tokenizer = folder.tokenizer()?;
        let path = folder.path();
        let (network, config, denoiser) = if folder.config().residual {
            let (model, [config, denoiser]) = folder::load_residual(path, device)?;
            let card = Card::read(&path.join(folder::DENOISER_FOLDER))?;
            let network = ModelNetwork::Residual(Box::new(model));
            (network, config, Some((denoiser, card)))
        } else {
            let (model, config) = folder::load(path, device)?;
            (ModelNetwork::new(model, config.family), config, None)
        };
        let card = folder.card().cloned().unwrap_or_else(|| {
            let other = denoiser.iter().map(|(config, _)| config.parameter_count());
            let parameters = config.parameter_count() + other.sum::<u128>();
            Card::new(kind(&config), Layout::Rows, parameters as u64)
        });
        Ok(Self {
            schedule: config.schedule()?,
            weights: folder.weights()?,
            name: folder.name().to_owned(),
            device: device.clone(),
            weak: Mutex::default(),
            network,
            config,
            denoiser,
            tokenizer,
            card,
        })
    }

    /// Creates a model from one network in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`] if the configuration does not match the network, [`Error::Unsupported`] if
    /// it is for a residual flow map, [`Error::Vocabulary`] if network and tokenizer have different
    /// vocabulary sizes, [`Error::Config`] if the schedule is invalid.
    pub fn new(
        network: Dit<B>,
        config: DitConfig,
        tokenizer: TextTokenizer,
        card: Card,
    ) -> Result<Self> {
        Self::assemble(network, None, config, tokenizer, card)
    }

    /// Creates a model from one network, or from a second network and its denoiser.
    pub(crate) fn assemble(
        network: Dit<B>,
        denoiser: Option<Frozen<B>>,
        config: DitConfig,
        tokenizer: TextTokenizer,
        card: Card,
    ) -> Result<Self> {
        let name = card.kind.clone();
        check_network(&network, &config, denoiser.is_some())?;
        if tokenizer.vocab_size() != config.vocab_size {
            return Err(Error::Vocabulary {
                path: name.into(),
                tokenizer: tokenizer.vocab_size(),
                network: config.vocab_size,
            });
        }
        let device = network.embed().embedding.device();
        let (network, denoiser) = match denoiser {
            None => (ModelNetwork::new(network, config.family), None),
            Some(frozen) => {
                let pair = Residual {
                    denoiser: frozen.network,
                    second: network,
                };
                let denoiser = (frozen.config, frozen.card);
                (ModelNetwork::Residual(Box::new(pair)), Some(denoiser))
            }
        };
        Ok(Self {
            schedule: config.schedule()?,
            weights: String::new(),
            weak: Mutex::default(),
            device,
            network,
            denoiser,
            config,
            tokenizer,
            card,
            name,
        })
    }

    /// Writes the model as a folder, which appears complete or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`] if the folder exists and may not be replaced, or on an I/O error. In that
    /// case nothing is left behind.
    pub fn save(&self, path: impl AsRef<Path>, existing: Existing) -> Result<()> {
        self.save_with(path, existing, &[])
    }

    /// Like [`save`](Self::save), with additional files, each a name and its content.
    ///
    /// # Errors
    ///
    /// The errors of [`save`](Self::save).
    pub fn save_with(
        &self,
        path: impl AsRef<Path>,
        existing: Existing,
        files: &[(&str, &[u8])],
    ) -> Result<()> {
        let card = Card {
            tokenizer_hash: Some(self.tokenizer.hash().to_owned()),
            ..self.card.clone()
        };
        let (tokenizer, card) = (self.tokenizer.to_json()?, card.to_json());
        let mut extra = vec![
            (TOKENIZER_FILE, tokenizer.as_bytes()),
            (CARD_FILE, card.as_bytes()),
        ];
        extra.extend_from_slice(files);
        let path = path.as_ref();
        match (&self.network, &self.denoiser) {
            (ModelNetwork::Flow(model, _) | ModelNetwork::Tokens(model), _) => {
                folder::save(path, model, &self.config, &extra, existing)?;
            }
            (ModelNetwork::Residual(model), denoiser) => {
                let config = denoiser.as_ref().map_or(&self.config, |(config, _)| config);
                let card = denoiser.as_ref().and_then(|(_, card)| card.as_ref());
                let card = card.map_or_else(
                    || Card::new("flow", self.layout(), config.parameter_count() as u64).to_json(),
                    Card::to_json,
                );
                let of_denoiser = [
                    (TOKENIZER_FILE, tokenizer.as_bytes()),
                    (CARD_FILE, card.as_bytes()),
                ];
                let second = Content {
                    model: &model.second,
                    config: &self.config,
                    extra: &extra,
                };
                let denoiser = Content {
                    model: &model.denoiser,
                    config,
                    extra: &of_denoiser,
                };
                folder::save_residual(path, second, denoiser, existing)?;
            }
        }
        Ok(())
    }

    /// Sets how the networks are evaluated.
    pub fn with_execution(mut self, execution: Execution) -> Self {
        self.network = match self.network {
            ModelNetwork::Flow(model, prior) => {
                ModelNetwork::Flow(Box::new(model.with_execution(execution)), prior)
            }
            ModelNetwork::Residual(model) => {
                ModelNetwork::Residual(Box::new(model.with_execution(execution)))
            }
            ModelNetwork::Tokens(model) => {
                ModelNetwork::Tokens(Box::new(model.with_execution(execution)))
            }
        };
        // Cached weaker models use the previous execution.
        self.weak = Mutex::default();
        self
    }

    /// Encodes a text, without the tokens of the row's frame and padding.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if a word or character is not in a closed vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text)?)
    }

    /// Decodes a row of tokens into text. Each document of a packed block is a line.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if a token is not in the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        text_of(tokens, &self.tokenizer, self.card.layout)
    }

    /// The networks.
    pub fn network(&self) -> &ModelNetwork<B> {
        &self.network
    }

    /// The configuration of the network, or of the second network of a residual flow map.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The configuration of the denoiser of a residual flow map.
    pub fn denoiser_config(&self) -> Option<&DitConfig> {
        self.denoiser.as_ref().map(|(config, _)| config)
    }

    /// The noise schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The layout of the rows.
    pub fn layout(&self) -> Layout {
        self.card.layout
    }

    /// The model card, which records how the model was made.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The model card, mutable, for changes before the model is saved.
    pub fn card_mut(&mut self) -> &mut Card {
        &mut self.card
    }

    /// The name that the model was loaded by, or the kind of a model that was not loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first digits of the SHA-256 of the weights; empty if the model was not loaded.
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// The device of the parameters.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// How the networks are evaluated.
    pub fn execution(&self) -> Execution {
        match &self.network {
            ModelNetwork::Flow(model, _) | ModelNetwork::Tokens(model) => model.execution(),
            ModelNetwork::Residual(model) => model.denoiser.execution(),
        }
    }
}

/// The number of batches to compute in parallel: one per core on CPUs, one on other devices.
pub(crate) fn side_by_side<B: Backend>() -> usize {
    if flm_ops::on_host::<B>() {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    }
}
