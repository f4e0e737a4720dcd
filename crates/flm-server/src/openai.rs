//! Routes of the OpenAI API.

use crate::app::{App, Body, FrameRequest};
use crate::denoise::{collected, random_seed};
use crate::engine::Engine;
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use flm::data::Layout;
use flm::{Conditioning, Frame, Sample, SampleOptions, Sampler};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Prompts of one request.
const PROMPTS: usize = 16;
/// Stop sequences of one request.
const STOPS: usize = 4;
/// Likeliest tokens that `logprobs` lists.
const LOGPROBS: usize = 20;

/// One value or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// A request for completions. Fields that a client sends and that have no meaning here are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    model: Option<String>,
    #[serde(default)]
    prompt: Option<Value>,
    suffix: Option<String>,
    max_tokens: Option<usize>,
    n: Option<usize>,
    best_of: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<u64>,
    stop: Option<OneOrMany>,
    logprobs: Option<usize>,
    #[serde(default)]
    echo: bool,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<String, f64>>,
    // Fields of this server.
    steps: Option<usize>,
    gamma: Option<f64>,
    sampler: Option<Sampler>,
    noise_scale: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// One completion.
#[derive(Debug, Serialize)]
struct Choice {
    text: String,
    index: usize,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

/// Log-probabilities of the tokens of a completion at the last step.
#[derive(Debug, Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<BTreeMap<String, f64>>,
    text_offset: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl CompletionRequest {
    /// The prompts; `None` for a text without one.
    fn prompts(&self) -> Result<Vec<Option<String>>, ApiError> {
        let refused = || {
            ApiError::field(
                "prompt",
                "expected a text or a list of texts; tokens are unsupported, send them to /v1/denoise",
            )
        };
        let texts = match &self.prompt {
            None | Some(Value::Null) => return Ok(vec![None]),
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => {
                let text = |text: &Value| text.as_str().map(str::to_owned).ok_or_else(refused);
                texts.iter().map(text).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(refused()),
        };
        if texts.is_empty() || texts.len() > PROMPTS {
            return Err(ApiError::field(
                "prompt",
                format!("expected 1 to {PROMPTS} prompts, found {}", texts.len()),
            ));
        }
        let texts = texts.into_iter();
        Ok(texts
            .map(|text| Some(text).filter(|text| !text.is_empty()))
            .collect())
    }

    /// Rejects fields that this server cannot respect.
    fn reject_unsupported(&self) -> Result<(), ApiError> {
        let n = self.n.unwrap_or(1);
        let unsupported = [
            ("best_of", self.best_of.is_some_and(|best| best != n)),
            (
                "presence_penalty",
                self.presence_penalty.is_some_and(|value| value != 0.0),
            ),
            (
                "frequency_penalty",
                self.frequency_penalty.is_some_and(|value| value != 0.0),
            ),
            (
                "logit_bias",
                self.logit_bias
                    .as_ref()
                    .is_some_and(|bias| !bias.is_empty()),
            ),
        ];
        match unsupported.into_iter().find(|(_, found)| *found) {
            Some((field, _)) => Err(ApiError::field(
                field,
                format!("{field} is unsupported: omit it"),
            )),
            None => Ok(()),
        }
    }

    fn options(&self, prompt: Option<String>, seed: u64) -> SampleOptions {
        let defaults = SampleOptions::default();
        let suffix = self.suffix.clone().filter(|suffix| !suffix.is_empty());
        SampleOptions {
            steps: self.steps,
            count: self.n.unwrap_or(1),
            seed,
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            gamma: self.gamma.unwrap_or(defaults.gamma),
            sampler: self.sampler.unwrap_or(defaults.sampler),
            noise_scale: self.noise_scale.unwrap_or(defaults.noise_scale),
            conditioning: if prompt.is_none() && suffix.is_none() {
                Conditioning::None
            } else {
                Conditioning::Ends { prompt, suffix }
            },
            ..defaults
        }
    }
}

/// Answers `POST /v1/completions`.
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Body(mut body): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = Arc::clone(app.model(body.model.as_deref())?);
    let engine = model.engine();
    body.reject_unsupported()?;
    let stops = body
        .stop
        .take()
        .map(OneOrMany::into_vec)
        .unwrap_or_default();
    if stops.len() > STOPS || stops.iter().any(String::is_empty) {
        return Err(ApiError::field(
            "stop",
            format!("expected at most {STOPS} texts that are not empty"),
        ));
    }
    if body.logprobs.is_some_and(|top| top > LOGPROBS) {
        return Err(ApiError::field(
            "logprobs",
            format!("at most {LOGPROBS} tokens per position are allowed"),
        ));
    }
    if body.logprobs.is_some() && !engine.about().has_frames {
        let kind = engine.about().kind;
        return Err(ApiError::field(
            "logprobs",
            format!("the probabilities of a {kind} cannot be observed"),
        ));
    }
    let seed = body.seed.unwrap_or_else(random_seed);
    let prompts = body.prompts()?;
    let requests: Vec<SampleOptions> = (prompts.iter())
        .map(|prompt| body.options(prompt.clone(), seed))
        .collect();
    for request in &requests {
        app.check(engine.as_ref(), request)?;
    }
    let whole = SampleOptions {
        count: requests.iter().map(|request| request.count).sum(),
        ..requests[0].clone()
    };
    app.check(engine.as_ref(), &whole)?;
    let drawn = requests.iter().map(async |request| {
        let (sender, receiver) = mpsc::unbounded_channel();
        let frames = body.logprobs.map(|top| FrameRequest {
            top: top.max(1),
            from_step: engine.about().steps(request) - 1,
            sender,
        });
        let parts = app.submit(&model, &engine, request, frames)?;
        let samples = app.samples(&model, parts).await?;
        let frames = collected(receiver, samples.len()).await;
        Ok::<_, ApiError>((samples, frames))
    });
    let (mut choices, mut usage) = (Vec::new(), Usage::default());
    for (samples, mut frames) in try_join_all(drawn).await? {
        for (i, sample) in samples.into_iter().enumerate() {
            let frame = frames[i].pop();
            let completion = Completion::new(engine.as_ref(), &sample, body.max_tokens)?;
            if i == 0 {
                usage.prompt_tokens += completion.given;
            }
            usage.completion_tokens += completion.tokens.len();
            let index = choices.len();
            choices.push(completion.choice(engine.as_ref(), index, &body, &stops, frame)?);
        }
    }
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
    let created = SystemTime::now().duration_since(UNIX_EPOCH);
    let head = json!({
        "id": format!("cmpl-{:016x}", rand::random::<u64>()),
        "object": "text_completion",
        "created": created.map_or(0, |time| time.as_secs()),
        "model": model.name(),
        "system_fingerprint": engine.about().weights,
        "seed": seed,
    });
    let with = |fields: &[(&str, Value)]| {
        let mut answer = head.clone();
        for (name, value) in fields {
            answer[*name] = value.clone();
        }
        answer
    };
    if !body.stream {
        let fields = [("choices", json!(choices)), ("usage", json!(usage))];
        return Ok(Json(with(&fields)).into_response());
    }
    // All tokens of a text are ready at the same time: one event per completion.
    let mut events: Vec<String> = (choices.iter())
        .map(|choice| with(&[("choices", json!([choice]))]).to_string())
        .collect();
    if body
        .stream_options
        .is_some_and(|options| options.include_usage)
    {
        events.push(with(&[("choices", json!([])), ("usage", json!(usage))]).to_string());
    }
    events.push("[DONE]".to_owned());
    let events = events
        .into_iter()
        .map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    Ok(Sse::new(tokio_stream::iter(events)).into_response())
}

/// The sampled part of a row.
struct Completion {
    /// Tokens before the completion.
    before: Vec<u32>,
    /// Known tokens of the row, without frame and padding.
    given: usize,
    tokens: Vec<u32>,
    /// The position of each token.
    positions: Vec<usize>,
    is_stopped: bool,
}

impl Completion {
    fn new(engine: &dyn Engine, sample: &Sample, max: Option<usize>) -> Result<Self, ApiError> {
        let about = engine.about();
        let frame = usize::from(about.layout == Layout::Packed);
        let length = sample.tokens.len();
        let open: Vec<usize> = match &sample.condition {
            Some(condition) => condition.open.clone(),
            None => (frame..length - frame).collect(),
        };
        let start = open.first().copied().unwrap_or(length);
        let is_end = |at: usize| [about.end, about.padding].contains(&sample.tokens[at]);
        let ended = open.iter().position(|at| is_end(*at));
        let mut positions = open[..ended.unwrap_or(open.len())].to_vec();
        let max = max.unwrap_or(usize::MAX);
        let is_stopped = ended.is_some() && positions.len() <= max;
        positions.truncate(max);
        Ok(Self {
            before: sample.tokens[frame.min(start)..start].to_vec(),
            given: length - open.len() - 2 * frame.min(start),
            tokens: positions.iter().map(|at| sample.tokens[*at]).collect(),
            positions,
            is_stopped,
        })
    }

    fn choice(
        self,
        engine: &dyn Engine,
        index: usize,
        body: &CompletionRequest,
        stops: &[String],
        frame: Option<Frame>,
    ) -> Result<Choice, ApiError> {
        let decode = |tokens: &[u32]| {
            engine
                .decode(tokens)
                .map_err(|error| ApiError::bad(error.to_string()))
        };
        let before = decode(&self.before)?;
        // The text after the prompt, with the space between them.
        let after = |tokens: &[u32]| -> Result<String, ApiError> {
            let all = decode(&[&self.before[..], tokens].concat())?;
            match all.strip_prefix(&before) {
                Some(rest) => Ok(rest.to_owned()),
                None => decode(tokens),
            }
        };
        let mut text = after(&self.tokens)?;
        let cut = stops
            .iter()
            .filter_map(|stop| text.find(stop.as_str()))
            .min();
        if let Some(cut) = cut {
            text.truncate(cut);
        }
        let logprobs = match (body.logprobs, frame) {
            (Some(top), Some(frame)) => {
                let mut logprobs = Logprobs::default();
                let (mut offset, mut last) = (0, self.before.last().copied());
                for (token, at) in self.tokens.iter().zip(&self.positions) {
                    if cut.is_some_and(|cut| offset >= cut) {
                        break;
                    }
                    logprobs.push(
                        engine,
                        *token,
                        &frame.positions[*at],
                        top,
                        before.len() + offset,
                    );
                    let pair: Vec<u32> = last.into_iter().chain([*token]).collect();
                    let alone =
                        last.map_or(Ok(0), |last| decode(&[last]).map(|text| text.len()))?;
                    offset += decode(&pair)?.len().saturating_sub(alone);
                    last = Some(*token);
                }
                Some(logprobs)
            }
            _ => None,
        };
        if body.echo {
            text.insert_str(0, &before);
        }
        Ok(Choice {
            text,
            index,
            logprobs,
            finish_reason: if self.is_stopped || cut.is_some() {
                "stop"
            } else {
                "length"
            },
        })
    }
}

impl Logprobs {
    fn push(
        &mut self,
        engine: &dyn Engine,
        token: u32,
        likeliest: &[flm::LikelyToken],
        top: usize,
        offset: usize,
    ) {
        let log = |probability: f64| probability.max(f64::MIN_POSITIVE).ln();
        let own = likeliest.iter().find(|likely| likely.id == token);
        self.tokens.push(engine.token(token));
        self.token_logprobs
            .push(own.map_or(f64::MIN_POSITIVE.ln(), |own| log(own.probability)));
        let listed = likeliest.iter().take(top);
        let listed = listed.map(|likely| (likely.token.clone(), log(likely.probability)));
        self.top_logprobs.push(listed.collect());
        self.text_offset.push(offset);
    }
}

/// Answers `POST /v1/chat/completions`: no model has a chat template.
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Body(body): Body<Value>,
) -> Result<Response, ApiError> {
    let model = app.model(body.get("model").and_then(Value::as_str))?;
    Err(ApiError::field(
        "messages",
        format!(
            "the model {} has no chat template: use /v1/completions",
            model.name()
        ),
    ))
}

fn described(app: &App, index: usize) -> Value {
    let model = &app.models[index];
    let engine = model.engine();
    let about = engine.about();
    json!({
        "id": model.name(),
        "object": "model",
        "created": app.started,
        "owned_by": "flm",
        "kind": about.kind,
        "length": about.length,
        "vocabulary": about.vocabulary,
        "parameters": about.parameters,
        "layout": about.layout,
        "default_steps": about.default_steps,
        "frames": about.has_frames,
        "weights": about.weights,
    })
}

/// Answers `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let data: Vec<Value> = (0..app.models.len()).map(|i| described(&app, i)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// Answers `GET /v1/models/{id}`.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = app.models.iter().position(|model| model.name() == id);
    match found {
        Some(index) => Ok(Json(described(&app, index))),
        None => Err(
            ApiError::field("model", format!("there is no model `{id:.100}`"))
                .with_status(StatusCode::NOT_FOUND),
        ),
    }
}
