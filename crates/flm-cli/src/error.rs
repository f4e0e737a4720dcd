//! The error type of the command line: one sentence and an exit code.

use crate::command_line::CommandLine;
use flm_data::{DataError, FetchError};
use flm_train::TrainError;
use std::error::Error;
use std::fmt;

/// An error that ends the program.
#[derive(Debug)]
pub(crate) struct CliError {
    kind: Kind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Invalid request: exit code 2, as for invalid arguments.
    Input,
    /// Failure of started work: exit code 1.
    Failed,
    /// Stopped on request, resumable: exit code 130, as shells use for Ctrl-C.
    Interrupted,
    /// Stopped on request before there was anything to resume: exit code 130.
    Cancelled,
}

pub(crate) type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// Returns an error for an invalid request.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Input,
            message: message.into(),
        }
    }

    /// Returns an error for resumable work that was stopped on request.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Interrupted,
            message: message.into(),
        }
    }

    /// Returns a closure for `map_err` on file operations.
    pub(crate) fn io<'a>(
        action: &'a str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |error| Self::input(format!("cannot {action} {}: {error}", path.display()))
    }

    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self.kind, Kind::Interrupted | Kind::Cancelled)
    }

    /// Adds the resume command to the message of an interruption.
    pub(crate) fn or_resume(mut self, command: &CommandLine) -> Self {
        if self.kind == Kind::Interrupted {
            self.message = format!("{}; continue with: {}", self.message, command.resumed());
        }
        self
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Input => 2,
            Kind::Failed => 1,
            Kind::Interrupted | Kind::Cancelled => 130,
        }
    }

    fn of(kind: Kind, error: &dyn Error) -> Self {
        Self {
            kind,
            message: sentence(error),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Joins an error and its sources on one line. A source that its error already quotes is not
/// repeated.
fn sentence(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !message.contains(&reason) {
            message = format!("{message}: {reason}");
        }
        source = error.source();
    }
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<DataError> for CliError {
    fn from(error: DataError) -> Self {
        let kind = match error {
            DataError::Cancelled => Kind::Cancelled,
            _ => Kind::Input,
        };
        Self::of(kind, &error)
    }
}

impl From<FetchError> for CliError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Cancelled => Self::of(Kind::Cancelled, &error),
            // The message lists its files, one per line, so it is not joined.
            FetchError::Offline { .. } => Self {
                kind: Kind::Failed,
                message: error.to_string(),
            },
            _ => Self::of(Kind::Input, &error),
        }
    }
}

impl From<flm::Error> for CliError {
    fn from(error: flm::Error) -> Self {
        let kind = match error {
            flm::Error::Cancelled { .. } => Kind::Interrupted,
            flm::Error::Train(error) => return error.into(),
            _ => Kind::Input,
        };
        Self::of(kind, &error)
    }
}

impl From<flm_study::Error> for CliError {
    fn from(error: flm_study::Error) -> Self {
        let kind = match error {
            flm_study::Error::Cancelled { .. } => Kind::Interrupted,
            flm_study::Error::Model(error) => return error.into(),
            _ => Kind::Input,
        };
        Self::of(kind, &error)
    }
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        let kind = match error {
            TrainError::Diverged { .. } => Kind::Failed,
            _ => Kind::Input,
        };
        Self::of(kind, &error)
    }
}

macro_rules! input_errors {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::of(Kind::Input, &error)
            }
        })*
    };
}

input_errors!(
    flm_data::ManifestError,
    flm_files::FileError,
    flm_denoiser::ConfigError,
    flm_denoiser::TemperatureError,
    flm_denoiser::folder::FolderError,
    flm_denoiser::reference::ReferenceError,
    flm_discrete::DiscreteConfigError,
    flm_discrete::SamplingError,
    flm_distill::DistributionConfigError,
    flm_distill::FlowMapConfigError,
    flm_eval::GrammarError,
    flm_eval::ScoreError,
    flm_eval::frontier::FrontierError,
    flm_eval::judge::JudgeError,
    flm_eval::ngram::NGramError,
    flm_eval::NoSamples,
    flm_reward::RewardError,
    flm_server::Error,
    flm_simplex::SamplerError,
    flm_simplex::ScheduleError,
    flm_train::TrainConfigError,
    serde_json::Error,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_once_and_on_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("two\n  lines")]
        struct Inner;
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read y: {0}")]
        struct Quoting(#[source] Inner);
        assert_eq!(sentence(&Outer(Inner)), "cannot read x: two lines");
        assert_eq!(sentence(&Quoting(Inner)), "cannot read y: two lines");
    }
}
