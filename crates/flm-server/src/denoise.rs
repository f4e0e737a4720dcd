//! `/v1/denoise`: samples with all options of the library, and their steps as events.

use crate::app::{App, Body, FrameRequest};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::queue::{Queue, Reply};
use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use flm::{
    AutoguidanceOptions, Conditioning, Frame, Guidance, RewardOptions, RewardSource, Sample,
    SampleOptions, Sampler, WeakNetwork,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Tokens per position of a frame.
const TOP: usize = 20;
/// Tokens in all frames of a request.
const FRAME_TOKENS: usize = 1 << 20;

/// A request for samples.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DenoiseRequest {
    model: Option<String>,
    prompt: Option<String>,
    suffix: Option<String>,
    infill: Option<String>,
    tokens: Option<Vec<Option<u32>>>,
    n: Option<usize>,
    seed: Option<u64>,
    steps: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    gamma: Option<f64>,
    sampler: Option<Sampler>,
    noise_scale: Option<f64>,
    greedy_tail: bool,
    guidance: Option<GuidanceRequest>,
    reward: Option<RewardRequest>,
    top: Option<usize>,
    frames: bool,
    stream: bool,
}

/// Autoguidance by dropout.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuidanceRequest {
    eta: f64,
    dropout: f64,
}

/// Guidance towards words.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RewardRequest {
    words: Vec<String>,
    scale: f64,
}

impl DenoiseRequest {
    fn options(&self) -> Result<SampleOptions, ApiError> {
        let ends = self.prompt.is_some() || self.suffix.is_some();
        let given = [ends, self.infill.is_some(), self.tokens.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err(ApiError::bad(
                "a request has either prompt and suffix, or infill, or tokens: omit the others",
            ));
        }
        let nonempty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (prompt, suffix) = (nonempty(&self.prompt), nonempty(&self.suffix));
        let conditioning = match (&self.infill, &self.tokens) {
            (Some(text), _) => Conditioning::infill(text),
            (_, Some(row)) => Conditioning::Tokens(vec![row.clone()]),
            _ if prompt.is_some() || suffix.is_some() => Conditioning::Ends { prompt, suffix },
            _ => Conditioning::None,
        };
        let auto = self.guidance.as_ref().map(|guidance| AutoguidanceOptions {
            eta: guidance.eta,
            weak: WeakNetwork::Dropout(guidance.dropout),
        });
        let reward = self.reward.as_ref().map(|reward| RewardOptions {
            scale: reward.scale,
            of: RewardSource::Keyword(reward.words.clone()),
        });
        let defaults = SampleOptions::default();
        Ok(SampleOptions {
            steps: self.steps,
            count: self.n.unwrap_or(1),
            seed: self.seed.unwrap_or_else(random_seed),
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            gamma: self.gamma.unwrap_or(defaults.gamma),
            sampler: self.sampler.unwrap_or(defaults.sampler),
            noise_scale: self.noise_scale.unwrap_or(defaults.noise_scale),
            greedy_tail: self.greedy_tail,
            guidance: Guidance { auto, reward },
            conditioning,
            ..defaults
        })
    }
}

/// A seed that JavaScript can represent.
pub(crate) fn random_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

/// A sample in an answer.
#[derive(Debug, Serialize)]
struct SampleBody {
    sample: usize,
    text: String,
    tokens: Vec<u32>,
    /// The spelling of each token.
    pieces: Vec<String>,
    /// The positions that were sampled.
    open: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Vec<Frame>>,
}

impl SampleBody {
    fn new(engine: &dyn Engine, number: usize, sample: Sample, frames: Option<Vec<Frame>>) -> Self {
        let open = match sample.condition {
            Some(condition) => condition.open,
            None => (0..sample.tokens.len()).collect(),
        };
        Self {
            sample: number,
            text: sample.text,
            pieces: sample.tokens.iter().map(|id| engine.token(*id)).collect(),
            tokens: sample.tokens,
            open,
            frames,
        }
    }
}

/// The head of an answer: what was asked, with defaults.
#[derive(Clone, Debug, Serialize)]
struct Head {
    model: String,
    kind: &'static str,
    weights: String,
    steps: usize,
    seed: u64,
    n: usize,
}

#[derive(Debug, Serialize)]
struct FrameEvent {
    sample: usize,
    #[serde(flatten)]
    frame: Frame,
}

/// Answers `POST /v1/denoise`.
pub(crate) async fn denoise(
    State(app): State<Arc<App>>,
    Body(body): Body<DenoiseRequest>,
) -> Result<Response, ApiError> {
    let model = Arc::clone(app.model(body.model.as_deref())?);
    let options = body.options()?;
    let engine = model.engine();
    app.check(engine.as_ref(), &options)?;
    let about = engine.about();
    let top = body.top.unwrap_or(3);
    let frames = body.stream || body.frames;
    if frames && !about.has_frames {
        return Err(ApiError::field(
            if body.stream { "stream" } else { "frames" },
            format!("the steps of a {} cannot be observed", about.kind),
        ));
    }
    if frames && !(1..=TOP).contains(&top) {
        return Err(ApiError::field(
            "top",
            format!("expected 1 to {TOP} tokens per position, found {top}"),
        ));
    }
    let numbers = [options.count, about.length, about.steps(&options), top];
    let numbers = numbers.into_iter().fold(1, usize::saturating_mul);
    if frames && numbers > FRAME_TOKENS {
        return Err(ApiError::field(
            if body.stream { "stream" } else { "frames" },
            format!("at most {FRAME_TOKENS} tokens in all frames are allowed, found {numbers}"),
        ));
    }
    let head = Head {
        model: model.name().to_owned(),
        kind: about.kind,
        weights: about.weights.clone(),
        steps: about.steps(&options),
        seed: options.seed,
        n: options.count,
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    let request = frames.then_some(FrameRequest {
        top,
        from_step: 0,
        sender,
    });
    let parts = app.submit(&model, &engine, &options, request)?;
    if body.stream {
        return Ok(events(app, model, engine, head, (parts, receiver)));
    }
    let samples = app.samples(&model, parts).await?;
    let mut all = collected(receiver, samples.len()).await;
    let samples: Vec<SampleBody> = (samples.into_iter().enumerate())
        .map(|(i, sample)| {
            let frames = frames.then(|| std::mem::take(&mut all[i]));
            SampleBody::new(engine.as_ref(), i, sample, frames)
        })
        .collect();
    Ok(Json(serde_json::json!({"request": head, "samples": samples})).into_response())
}

/// The frames of each sample, in the order of steps.
pub(crate) async fn collected(
    mut receiver: mpsc::UnboundedReceiver<(usize, Frame)>,
    samples: usize,
) -> Vec<Vec<Frame>> {
    let mut all = vec![Vec::new(); samples];
    receiver.close();
    while let Some((sample, frame)) = receiver.recv().await {
        all[sample].push(frame);
    }
    all
}

/// Answers with events: `request`, a `frame` for each sample and step, a `sample` each, `done`; or
/// `error`.
fn events(
    app: Arc<App>,
    model: Arc<Queue>,
    engine: Arc<dyn Engine>,
    head: Head,
    (parts, mut frames): (Vec<Reply>, mpsc::UnboundedReceiver<(usize, Frame)>),
) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Event, Infallible>>(64);
    tokio::spawn(async move {
        // A closed client drops the parts, which leave the queue.
        let send = async |name: &str, value: serde_json::Value| {
            let event = Event::default().event(name).data(value.to_string());
            sender.send(Ok(event)).await.map_err(|_| ())
        };
        let frame = async |(sample, frame)| {
            let event = FrameEvent { sample, frame };
            send("frame", serde_json::json!(event)).await
        };
        let all = async {
            send("request", serde_json::json!(head)).await?;
            let drawing = app.samples(&model, parts);
            tokio::pin!(drawing);
            let result = loop {
                tokio::select! {
                    biased;
                    Some(next) = frames.recv() => frame(next).await?,
                    result = &mut drawing => break result,
                    () = sender.closed() => return Err(()),
                }
            };
            while let Ok(next) = frames.try_recv() {
                frame(next).await?;
            }
            match result {
                Ok(samples) => {
                    for (i, sample) in samples.into_iter().enumerate() {
                        let body = SampleBody::new(engine.as_ref(), i, sample, None);
                        send("sample", serde_json::json!(body)).await?;
                    }
                    send("done", serde_json::json!({})).await
                }
                Err(error) => send("error", error.body()).await,
            }
        };
        // The time covers a client that reads slowly.
        if tokio::time::timeout(app.timeout, all).await.is_err() {
            let error = app.too_slow().body().to_string();
            let _ = sender.try_send(Ok(Event::default().event("error").data(error)));
        }
    });
    Sse::new(ReceiverStream::new(receiver))
        .keep_alive(KeepAlive::default())
        .into_response()
}
