//! HTTP requests with retries.
//!
//! `hf-hub` lists repositories and finds the token. Its downloader cannot be stopped, checks
//! neither size nor hash, and appends any response to a partial file. This crate therefore
//! downloads files itself.

use std::time::{Duration, Instant};

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use ureq::{Agent, AgentBuilder, ErrorKind, RedirectAuthHeaders, Request, Response};

use super::{FetchError, FetchOptions};
use crate::RepoKind;

/// A callback with the bytes received and the size, if known, or with `None` during a pause. An
/// error stops the download.
pub(super) type Poll<'a> = &'a mut dyn FnMut(Option<(u64, Option<u64>)>) -> Result<(), FetchError>;

/// The longest pause between two requests.
const LONGEST: Duration = Duration::from_secs(30);
/// The interval at which a pause checks for a stop.
const TICK: Duration = Duration::from_millis(50);

/// A failed request.
pub(super) enum Failure {
    /// A retry would give the same result.
    Stop(FetchError),
    /// A retry may succeed.
    Again {
        error: FetchError,
        /// The pause that the host requested.
        wait: Option<Duration>,
        /// Whether new data was received before the failure.
        moved: bool,
    },
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Stop(error)
    }
}

pub(super) struct Client<'a> {
    pub(super) options: &'a FetchOptions,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a FetchOptions) -> Self {
        let agent = AgentBuilder::new()
            .timeout_connect(options.timeout)
            .timeout_read(options.timeout)
            .timeout_write(options.timeout)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .try_proxy_from_env(true)
            .user_agent(concat!("flm/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { options, agent }
    }

    /// Returns a Hub repository, through the Hub's own client.
    pub(super) fn repo(&self, kind: RepoKind, repo: &str, revision: &str) -> Option<ApiRepo> {
        let kind = match kind {
            RepoKind::Dataset => RepoType::Dataset,
            RepoKind::Model => RepoType::Model,
        };
        let api: Api = ApiBuilder::from_cache(Cache::new(self.options.cache.join(".hub")))
            .with_endpoint(self.options.endpoint.clone())
            .with_token(self.options.token.clone())
            .with_progress(false)
            .build()
            .ok()?;
        Some(api.repo(Repo::with_revision(
            repo.to_owned(),
            kind,
            revision.to_owned(),
        )))
    }

    /// Creates a request for the uncompressed bytes. A compressed response has another size and
    /// does not support ranges.
    pub(super) fn get(&self, url: &str, for_hub: bool) -> Request {
        let request = self.agent.get(url).set("Accept-Encoding", "identity");
        match &self.options.token {
            Some(token) if for_hub => request.set("Authorization", &format!("Bearer {token}")),
            _ => request,
        }
    }

    /// Retries failures that may be transient, up to the configured number of times since the last
    /// progress.
    pub(super) fn patiently<T>(
        &self,
        poll: Poll<'_>,
        mut attempt: impl FnMut(Poll<'_>) -> Result<T, Failure>,
    ) -> Result<T, FetchError> {
        let mut failures = 0;
        loop {
            let (error, wait, moved) = match attempt(poll) {
                Ok(done) => return Ok(done),
                Err(Failure::Stop(error)) => return Err(error),
                Err(Failure::Again { error, wait, moved }) => (error, wait, moved),
            };
            failures = if moved { 1 } else { failures + 1 };
            if failures > self.options.retries {
                return Err(error);
            }
            let pause = self
                .options
                .backoff
                .saturating_mul(1 << (failures - 1).min(16));
            let pause = pause.max(wait.unwrap_or_default()).min(LONGEST);
            tracing::debug!(%error, ?pause, "trying again");
            let until = Instant::now() + pause;
            loop {
                poll(None)?;
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(TICK));
            }
        }
    }
}

/// Classifies the failures of a request.
pub(super) fn answer(
    url: &str,
    result: Result<Response, ureq::Error>,
) -> Result<Response, Failure> {
    let unreachable = |reason: String| FetchError::Unreachable {
        url: url.to_owned(),
        reason,
    };
    match result {
        Ok(response) => Ok(response),
        Err(ureq::Error::Status(status @ (408 | 425 | 429 | 500..=599), response)) => {
            let wait = response.header("Retry-After");
            Err(Failure::Again {
                error: unreachable(format!("status {status}")),
                wait: wait.and_then(|seconds| Some(Duration::from_secs(seconds.parse().ok()?))),
                moved: false,
            })
        }
        Err(ureq::Error::Status(status, _)) => Err(Failure::Stop(FetchError::Refused {
            url: url.to_owned(),
            status,
        })),
        Err(ureq::Error::Transport(error)) => {
            let hopeless = matches!(
                error.kind(),
                ErrorKind::InvalidUrl
                    | ErrorKind::UnknownScheme
                    | ErrorKind::TooManyRedirects
                    | ErrorKind::InvalidProxyUrl
                    | ErrorKind::ProxyUnauthorized
            );
            let reason = without_url(&error.to_string(), url);
            let error = unreachable(reason);
            Err(match hopeless {
                true => Failure::Stop(error),
                false => Failure::Again {
                    error,
                    wait: None,
                    moved: false,
                },
            })
        }
    }
}

/// Removes the address at the start of the client's message, because the errors here contain it
/// already.
fn without_url(message: &str, url: &str) -> String {
    let rest = message.strip_prefix(url).unwrap_or(message);
    rest.trim_start_matches([':', ' ']).to_owned()
}
