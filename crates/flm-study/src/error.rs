//! Errors.

/// An error from a measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid input: what it is, expected and found.
    #[error("{0}")]
    Input(String),
    /// The watcher canceled the work.
    #[error("stopped before all {work}")]
    Cancelled {
        /// The unfinished work.
        work: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The source error.
        source: std::io::Error,
    },
    /// A model of this workspace cannot be read or evaluated.
    #[error(transparent)]
    Model(#[from] flm::Error),
    /// A model folder cannot be read.
    #[error(transparent)]
    Folder(#[from] flm_denoiser::folder::FolderError),
    /// Data or a tokenizer cannot be read.
    #[error(transparent)]
    Data(#[from] flm_data::DataError),
    /// A scorer cannot score a text.
    #[error(transparent)]
    Score(#[from] flm_eval::ScoreError),
    /// A pretrained model cannot be read.
    #[error(transparent)]
    Judge(#[from] flm_eval::judge::JudgeError),
    /// An n-gram model cannot be built.
    #[error(transparent)]
    NGram(#[from] flm_eval::ngram::NGramError),
    /// Threads could not be started.
    #[error(transparent)]
    Train(#[from] flm_train::TrainError),
    /// There are no samples.
    #[error(transparent)]
    NoSamples(#[from] flm_eval::NoSamples),
    /// Frontiers cannot be compared.
    #[error(transparent)]
    Frontier(#[from] flm_eval::frontier::FrontierError),
}

impl Error {
    /// Wraps a reading error of a file.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
