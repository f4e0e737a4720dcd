//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Why a model cannot be loaded, saved, trained, sampled or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no folder of this name.
    #[error("there is no model folder {}", path.display())]
    Missing {
        /// The folder asked for.
        path: PathBuf,
    },
    /// A folder that holds no model.
    #[error(
        "{} is neither a model folder (no config.json) nor a finished run (no model/config.json)",
        path.display()
    )]
    NotAModel {
        /// The folder.
        path: PathBuf,
    },
    /// `run.json` cannot be read as a model card.
    #[error("{} is not a model card: {source}", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// `run.json` was written by another version.
    #[error("{} has format version {found}, but only version {known} is known", path.display())]
    CardVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that is read.
        known: u32,
    },
    /// A model folder without a tokenizer.
    #[error(
        "the model folder {} has no {}: its tokens cannot be read as text",
        path.display(),
        flm_data::TOKENIZER_FILE
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// A tokenizer other than the one that the model was trained with.
    #[error(
        "{} has the hash {found:.12}, but the model was trained with the tokenizer {expected:.12}",
        path.display()
    )]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// Its hash.
        found: String,
        /// The hash in the model's card.
        expected: String,
    },
    /// The tokenizer and the network disagree about the vocabulary.
    #[error("the tokenizer in {} has {tokenizer} tokens, but its model has {network}", path.display())]
    Vocabulary {
        /// The folder.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the network.
        network: usize,
    },
    /// A model and data that do not belong together.
    #[error("{reason}")]
    Mismatch {
        /// Both, and how they differ.
        reason: String,
    },
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Option(String),
    /// The model's kind does not support what was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// The known text does not fit the model.
    #[error("{place}: {reason}")]
    Conditioning {
        /// Where the text comes from.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Guidance has driven the distributions out of the range of numbers.
    #[error("{guidance} is too far: the model's last distributions are not finite")]
    NotFinite {
        /// The guidance and its scale.
        guidance: String,
    },
    /// The observer asked to stop.
    #[error("stopped before all {work}")]
    Cancelled {
        /// What was not finished.
        work: &'static str,
    },
    /// The folder of the network cannot be written or read.
    #[error(transparent)]
    Folder(#[from] flm_denoiser::folder::FolderError),
    /// The sizes of a network are impossible.
    #[error(transparent)]
    Config(#[from] flm_denoiser::ConfigError),
    /// Settings of a flow map's distillation are impossible.
    #[error(transparent)]
    FlowMap(#[from] flm_distill::FlowMapConfigError),
    /// Settings of distribution matching are impossible.
    #[error(transparent)]
    Distribution(#[from] flm_distill::DistributionConfigError),
    /// Settings of a diffusion model of tokens are impossible.
    #[error(transparent)]
    Discrete(#[from] flm_discrete::DiscreteConfigError),
    /// A file of the published implementation cannot be read.
    #[error(transparent)]
    Reference(#[from] flm_denoiser::reference::ReferenceError),
    /// The temperature is not positive and finite.
    #[error(transparent)]
    Temperature(#[from] flm_denoiser::TemperatureError),
    /// The tokenizer or the data cannot be read.
    #[error(transparent)]
    Data(#[from] flm_data::DataError),
    /// A sampler of a flow or a flow map refused its settings.
    #[error(transparent)]
    Sampler(#[from] flm_simplex::SamplerError),
    /// A sampler of tokens refused its settings.
    #[error(transparent)]
    TokenSampler(#[from] flm_discrete::SamplingError),
    /// A reward cannot be read.
    #[error(transparent)]
    Reward(#[from] flm_reward::RewardError),
    /// Training failed, or threads cannot be started.
    #[error(transparent)]
    Train(#[from] flm_train::TrainError),
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<flm_files::FileError> for Error {
    fn from(error: flm_files::FileError) -> Self {
        Self::io(error.action, error.path)(error.source)
    }
}
