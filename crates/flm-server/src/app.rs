//! What all routes share: models, limits, keys.

use crate::engine::Engine;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::queue::{Queue, Refusal, Reply, Wish, is_request};
use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use flm::{Conditioning, Frame, RewardSource, Sample, SampleOptions};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::mpsc;

/// Bytes of a request.
pub(crate) const BODY: usize = 1 << 20;
/// Time in which a request must arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes of a prompt, suffix or infill.
pub(crate) const TEXT: usize = 1 << 16;
/// Samples per prompt.
const SAMPLES: usize = 128;
/// Tokens of all samples of a request.
const TOKENS: usize = 1 << 17;
/// Steps of a sample.
const STEPS: usize = 1024;
/// Words of a reward.
const WORDS: usize = 16;

/// The state of the server.
pub(crate) struct App {
    pub(crate) models: Vec<Arc<Queue>>,
    pub(crate) metrics: Arc<Metrics>,
    /// SHA-256 of the API keys; empty if none is needed.
    pub(crate) keys: Vec<[u8; 32]>,
    pub(crate) timeout: Duration,
    /// The origin whose pages may call the server.
    pub(crate) cors: Option<String>,
    /// Unix time of the start, in seconds.
    pub(crate) started: u64,
    pub(crate) closing: AtomicBool,
}

impl App {
    /// Returns a model by its identifier; the first one if there is no identifier.
    pub(crate) fn model(&self, id: Option<&str>) -> Result<&Arc<Queue>, ApiError> {
        let Some(id) = id else {
            return Ok(&self.models[0]);
        };
        let found = self.models.iter().find(|model| model.name() == id);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(|model| model.name()).collect();
            let names = names.join(", ");
            ApiError::field(
                "model",
                format!("there is no model `{id:.100}`, expected one of: {names}"),
            )
            .with_status(StatusCode::NOT_FOUND)
        })
    }

    /// Checks that a request does not come from a page of another site.
    pub(crate) fn is_own(&self, request: &Request) -> bool {
        let text = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let Some(origin) = text(header::ORIGIN) else {
            return true;
        };
        let own = origin.split_once("://").map(|(_, host)| host);
        self.cors.as_deref() == Some(origin) || own.is_some() && own == text(header::HOST)
    }

    /// Checks the key of a request in constant time.
    pub(crate) fn allows(&self, request: &Request) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let value = request.headers().get(header::AUTHORIZATION);
        let value = value.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let digest = digest(value.unwrap_or_default());
        let equal = |found: Choice, key: &[u8; 32]| found | key[..].ct_eq(&digest[..]);
        self.keys.iter().fold(Choice::from(0), equal).into()
    }

    /// Checks a request against the model and the limits of the server.
    pub(crate) fn check(
        &self,
        engine: &dyn Engine,
        options: &SampleOptions,
    ) -> Result<(), ApiError> {
        let about = engine.about();
        let limits = [
            ("n", options.count, SAMPLES),
            ("n", options.total().saturating_mul(about.length), TOKENS),
            ("steps", options.steps.unwrap_or(1), STEPS),
        ];
        for (i, (field, found, most)) in limits.into_iter().enumerate() {
            if found > most {
                let what = ["samples", "tokens in all samples", "steps"][i];
                return Err(ApiError::field(
                    field,
                    format!("at most {most} {what} per request are allowed, found {found}"),
                ));
            }
        }
        let reward = options.guidance.reward.as_ref();
        if let Some(RewardSource::Keyword(words)) = reward.map(|reward| &reward.of)
            && (words.len() > WORDS || words.iter().any(|word| word.len() > 100))
        {
            return Err(ApiError::field(
                "reward",
                format!("at most {WORDS} words of 100 bytes are allowed"),
            ));
        }
        let texts = match &options.conditioning {
            Conditioning::Ends { prompt, suffix } => [prompt.as_deref(), suffix.as_deref()],
            Conditioning::Infill(texts) => [texts.first().map(|blanks| &*blanks.text), None],
            _ => [None, None],
        };
        for text in texts.into_iter().flatten() {
            if text.len() > TEXT {
                return Err(ApiError::bad(format!(
                    "a text may have at most {TEXT} bytes, found {}",
                    text.len()
                )));
            }
        }
        engine.check(options).map_err(|error| {
            if is_request(&error) {
                return ApiError::bad(error.to_string());
            }
            tracing::error!(%error, "a check failed");
            Refusal::Internal.into()
        })
    }

    /// Queues a checked request, in parts of at most one batch.
    pub(crate) fn submit(
        &self,
        model: &Queue,
        engine: &Arc<dyn Engine>,
        options: &SampleOptions,
        frames: Option<FrameRequest>,
    ) -> Result<Vec<Reply>, ApiError> {
        let mut parts = Vec::new();
        let mut done = 0;
        while done < options.count {
            let part = SampleOptions {
                first: options.first + done,
                count: (options.count - done).min(model.max_batch()),
                ..options.clone()
            };
            let wish = frames.as_ref().map(|frames| Wish {
                top: frames.top,
                from_step: frames.from_step,
                offset: done,
                sender: frames.sender.clone(),
            });
            done += part.count;
            parts.push((part, wish));
        }
        Ok(model.submit(engine, parts)?)
    }

    /// Waits for the samples of a request.
    pub(crate) async fn samples(
        &self,
        model: &Queue,
        parts: Vec<Reply>,
    ) -> Result<Vec<Sample>, ApiError> {
        let all = async {
            let mut samples = Vec::new();
            for part in parts {
                samples.extend(part.await.unwrap_or(Err(Refusal::Internal))?);
            }
            Ok::<_, ApiError>(samples)
        };
        let samples = tokio::time::timeout(self.timeout, all)
            .await
            .map_err(|_| self.too_slow())??;
        let tokens = samples.iter().map(|sample| sample.tokens.len()).sum();
        self.metrics.tokens(model.name(), tokens);
        Ok(samples)
    }

    pub(crate) fn too_slow(&self) -> ApiError {
        ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the samples took longer than {} s", self.timeout.as_secs()),
        )
    }
}

/// Frames that a route wants.
pub(crate) struct FrameRequest {
    pub(crate) top: usize,
    pub(crate) from_step: usize,
    pub(crate) sender: mpsc::UnboundedSender<(usize, Frame)>,
}

/// The SHA-256 of a key.
pub(crate) fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// A JSON body, with errors in the format of the API.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let too_large = || {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a body may have at most {BODY} bytes"),
            )
        };
        if request.body().size_hint().lower() > BODY as u64 {
            return Err(too_large());
        }
        let body = axum::body::to_bytes(request.into_body(), BODY);
        let body = tokio::time::timeout(BODY_TIME, body).await.map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} s", BODY_TIME.as_secs()),
            )
        })?;
        let body = body.map_err(|error| {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = source {
                if error.is::<http_body_util::LengthLimitError>() {
                    return too_large();
                }
                source = error.source();
            }
            ApiError::bad("the body was cut off")
        })?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut json);
        let value = value.map_err(|error| {
            let at = error.path().to_string();
            let place = if at == "." {
                String::new()
            } else {
                format!("{at}: ")
            };
            ApiError::bad(format!(
                "the body is not a valid request: {place}{}",
                error.inner()
            ))
        })?;
        json.end()
            .map_err(|error| ApiError::bad(format!("the body is not a valid request: {error}")))?;
        Ok(Self(value))
    }
}
