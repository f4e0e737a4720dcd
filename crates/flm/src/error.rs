//! Errors.

use std::io;
use std::path::PathBuf;

/// An error from loading, saving, training, sampling or scoring a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An I/O error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The source error.
        source: io::Error,
    },
    /// The model folder does not exist.
    #[error("there is no model folder {}", path.display())]
    Missing {
        /// The folder asked for.
        path: PathBuf,
    },
    /// The folder holds no model.
    #[error(
        "{} is neither a model folder (no config.json) nor a finished run (no model/config.json)",
        path.display()
    )]
    NotAModel {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is a run that has not finished.
    #[error(
        "the run {} has not finished and has no model: continue it with --resume",
        path.display()
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// `run.json` cannot be read as a model card.
    #[error("{} is not a model card: {source}", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// The source error, with its position.
        source: serde_json::Error,
    },
    /// `run.json` has an unsupported format version.
    #[error("{} has format version {found}, but only version {known} is supported", path.display())]
    CardVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The supported version.
        known: u32,
    },
    /// The model folder has no tokenizer.
    #[error(
        "the model folder {} has no {}: its tokens cannot be decoded",
        path.display(),
        flm_data::TOKENIZER_FILE
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// The tokenizer is not the one that the model was trained with.
    #[error(
        "{} has the hash {found:.12}, but the model was trained with the tokenizer {expected:.12}",
        path.display()
    )]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// The hash of the tokenizer.
        found: String,
        /// The hash in the model's card.
        expected: String,
    },
    /// The tokenizer and the network have different vocabulary sizes.
    #[error("the tokenizer in {} has {tokenizer} tokens, but its model has {network}", path.display())]
    Vocabulary {
        /// The folder.
        path: PathBuf,
        /// Number of tokens of the tokenizer.
        tokenizer: usize,
        /// Number of tokens of the network.
        network: usize,
    },
    /// Two inputs that do not match, such as a model and data.
    #[error("{reason}")]
    Mismatch {
        /// The inputs and how they differ.
        reason: String,
    },
    /// An option has an invalid value.
    #[error("{0}")]
    Option(String),
    /// The model's kind does not support the operation.
    #[error("{0}")]
    Unsupported(String),
    /// The known text does not fit the model.
    #[error("{place}: {reason}")]
    Conditioning {
        /// The source of the text.
        place: String,
        /// The reason.
        reason: String,
    },
    /// Guidance made the distributions infinite or NaN.
    #[error("{guidance} is too large: the model's last distributions are not finite")]
    NotFinite {
        /// The guidance and its scale.
        guidance: String,
    },
    /// The observer canceled the work.
    #[error("stopped before all {work}")]
    Cancelled {
        /// The unfinished work.
        work: &'static str,
    },
    /// A model folder cannot be written or read.
    #[error(transparent)]
    Folder(#[from] flm_denoiser::folder::FolderError),
    /// The configuration of a network is invalid.
    #[error(transparent)]
    Config(#[from] flm_denoiser::ConfigError),
    /// The settings of a flow map objective are invalid.
    #[error(transparent)]
    FlowMap(#[from] flm_distill::FlowMapConfigError),
    /// The settings of distribution matching are invalid.
    #[error(transparent)]
    Distribution(#[from] flm_distill::DistributionConfigError),
    /// The settings of a discrete diffusion model are invalid.
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
    /// The settings of a sampler of a flow or a flow map are invalid.
    #[error(transparent)]
    Sampler(#[from] flm_simplex::SamplerError),
    /// The settings of a sampler of a discrete model are invalid.
    #[error(transparent)]
    TokenSampler(#[from] flm_discrete::SamplingError),
    /// A reward cannot be read.
    #[error(transparent)]
    Reward(#[from] flm_reward::RewardError),
    /// Training failed, or threads could not be started.
    #[error(transparent)]
    Train(#[from] flm_train::TrainError),
}

impl Error {
    /// Returns a closure for `map_err` on file operations.
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
