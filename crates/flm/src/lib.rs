//! Continuous flow language models: load a model, sample it, condition it, guide it.
//!
//! A [`Model`] is a network with its tokenizer, layout and card, as a model folder holds them. It
//! is generic over burn's [`Backend`](burn::tensor::backend::Backend); [`backend`] re-exports the
//! available backends. The crate prints nothing.
//!
//! ```no_run
//! use flm::backend::Flex;
//!
//! let model = flm::Model::<Flex>::load("runs/fmlm", &Default::default())?;
//! for text in model.sample(flm::SampleOptions::steps(4).count(10).seed(0))? {
//!     println!("{text}");
//! }
//! # Ok::<(), flm::Error>(())
//! ```
//!
//! A [`Trainer`] trains a model from a data folder or from texts in memory:
//!
//! ```
//! use flm::backend::{Autodiff, Flex};
//! use flm::{DitConfig, Layout, Rows, SampleOptions, TrainConfig, Trainer};
//!
//! let texts = ["the cat sleeps", "the dog sleeps", "the cat runs", "the dog runs"];
//! let rows = Rows::from_words(Layout::Rows, 5, &texts)?;
//! let network = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 16, 1, 2);
//! let settings = TrainConfig { steps: 2, batch: 4, micro_batch: 4, ..Default::default() };
//! let trained = Trainer::<Autodiff<Flex>, _>::flow(network, &rows, settings, &Default::default())?
//!     .on_event(|event| println!("{event:?}"))
//!     .train()?;
//! let samples = trained.model.sample(SampleOptions::steps(8).count(2))?;
//! assert_eq!(samples.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The layers below are re-exported: [`simplex`] (schedules, interpolants, samplers), [`denoiser`]
//! (networks and their files), [`data`] (tokenizers and data folders), [`discrete`] (discrete
//! diffusion and autoregressive models), [`objective`] (the interface of objectives), [`distill`]
//! (objectives), [`reward`] and [`train`] (the training loop).

pub mod backend;
mod card;
mod conditioning;
mod error;
mod folder;
mod guidance;
mod import;
mod likelihood;
mod model;
mod rows;
mod sampling;
mod trace;
mod trainer;

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use card::{CARD_FILE, Card, Converted, Training};
pub use conditioning::{Blanks, Condition, Conditioning};
pub use error::Error;
pub use folder::{ModelFolder, describe, grouped, has_format_version, kind, text_of};
pub use guidance::{AutoguidanceOptions, Guidance, RewardOptions, RewardSource, WeakNetwork};
pub use import::{ImportOptions, Imported};
pub use likelihood::{Likelihood, LikelihoodOptions};
pub use model::{Model, ModelNetwork};
pub use rows::Rows;
pub use sampling::{
    DenoisingStep, Observer, Provenance, Record, Sample, SampleOptions, Sampler, json_lines,
};
pub use trace::{Frame, LikelyToken, Trace, TraceFile};
pub use trainer::{Started, Trained, Trainer};

pub use burn;
pub use flm_data::{Layout, TextTokenizer};
pub use flm_denoiser::DitConfig;
pub use flm_denoiser::folder::Existing;
pub use flm_train::{Event, TrainConfig};

pub use flm_data as data;
pub use flm_denoiser as denoiser;
pub use flm_discrete as discrete;
pub use flm_distill as distill;
pub use flm_objective as objective;
pub use flm_reward as reward;
pub use flm_simplex as simplex;
pub use flm_train as train;

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Purposes of the random streams of this crate. Numbers below 100 belong to the training loop. A
/// number is never reused.
mod purpose {
    pub(crate) const INITIALIZATION: u64 = 101;
    pub(crate) const SECOND_TIME: u64 = 102;
    pub(crate) const START: u64 = 103;
    pub(crate) const FRESH: u64 = 104;
    pub(crate) const LIKELIHOOD: u64 = 106;
    pub(crate) const WEAK: u64 = 110;
    pub(crate) const ENDPOINT: u64 = 112;
    pub(crate) const AUXILIARY: u64 = 114;
}
