//! An HTTP server for flow language models.
//!
//! [`serve`] answers the OpenAI routes `/v1/models` and `/v1/completions`, its own route
//! `/v1/denoise`, which reports every step of a sample, and a web page at `/`. Requests that fit
//! together are drawn in one batch; a seed gives the same text in any batch.
//!
//! ```no_run
//! use flm::backend::Flex;
//! use flm_server::{Engine, Loaded, Settings, Source};
//! use std::sync::Arc;
//!
//! let load = |source: &Source| -> flm::Result<Arc<dyn Engine>> {
//!     let folder = flm::ModelFolder::open(&source.path)?.named(&source.name);
//!     Ok(Arc::new(Loaded::new(folder.load::<Flex>(&Default::default())?, 2)))
//! };
//! let models = vec![Source { name: "fmlm".into(), path: "runs/fmlm".into() }];
//! flm_server::serve(Settings::default(), models, load, |address| println!("http://{address}"))?;
//! # Ok::<(), flm_server::Error>(())
//! ```
//!
//! Limits of a request: body 1 MiB, text 64 KiB, 128 samples, 131,072 tokens, 1,024 steps.

mod app;
mod connections;
mod denoise;
mod engine;
mod error;
mod metrics;
mod openai;
mod page;
mod queue;

pub use engine::{About, Engine, Loaded, Watch};
pub use page::trace_page;

use app::App;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use error::ApiError;
use metrics::Metrics;
use queue::Queue;
use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;

/// Time for the last batch after all connections have ended.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Rows of a batch.
    pub max_batch: usize,
    /// Rows of one model that may wait; further requests get the status 429.
    pub queue: usize,
    /// Time in which the samples of a request must be drawn.
    pub timeout: Duration,
    /// Open connections; further ones wait.
    pub connections: usize,
    /// Accepted API keys; empty if none is needed.
    pub keys: Vec<String>,
    /// The origin that may call the server from a browser; `None` for its own page only.
    pub cors: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_batch: 32,
            queue: 512,
            timeout: Duration::from_secs(60),
            connections: 1024,
            keys: Vec::new(),
            cors: None,
        }
    }
}

/// A model to serve.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its identifier in requests.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
}

/// An error that prevents a server from running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No model was given.
    #[error("there is no model to serve")]
    NoModel,
    /// Two models have the same identifier.
    #[error("two models have the identifier `{name}`: give one another, as in other={}", path.display())]
    Duplicate {
        /// The identifier.
        name: String,
        /// The folder of the second model.
        path: PathBuf,
    },
    /// A model cannot be loaded.
    #[error(transparent)]
    Model(#[from] flm::Error),
    /// The allowed origin is not a header value.
    #[error("`{0}` is not an origin, expected a URL such as https://example.org")]
    Origin(String),
    /// The address cannot be used, or threads cannot be started.
    #[error("cannot {action}: {source}")]
    Io {
        /// The operation.
        action: String,
        /// The source error.
        source: std::io::Error,
    },
}

fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let action = action.into();
    move |source| Error::Io { action, source }
}

/// Loads the models and serves them until SIGINT or SIGTERM; SIGHUP loads them again.
///
/// After the signal, new connections are rejected and running requests are finished. `ready` is
/// called with the address once the server listens.
///
/// # Errors
///
/// [`Error`] if a model cannot be loaded or the address cannot be used.
pub fn serve<L>(
    settings: Settings,
    models: Vec<Source>,
    load: L,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Error>
where
    L: Fn(&Source) -> flm::Result<Arc<dyn Engine>> + Send + Sync + 'static,
{
    let stop = async {
        stopped().await;
        tokio::spawn(async {
            stopped().await;
            // The user asks for the second time: what runs is cut.
            std::process::exit(130);
        });
    };
    serve_until(settings, models, load, ready, stop)
}

/// Like [`serve`], until `stop` is ready.
///
/// # Errors
///
/// The errors of [`serve`].
pub fn serve_until<L>(
    settings: Settings,
    models: Vec<Source>,
    load: L,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), Error>
where
    L: Fn(&Source) -> flm::Result<Arc<dyn Engine>> + Send + Sync + 'static,
{
    if models.is_empty() {
        return Err(Error::NoModel);
    }
    for (i, model) in models.iter().enumerate() {
        if models[..i].iter().any(|other| other.name == model.name) {
            return Err(Error::Duplicate {
                name: model.name.clone(),
                path: model.path.clone(),
            });
        }
    }
    let metrics = Arc::new(Metrics::new());
    let queues = models.iter().map(|source| {
        let limits = (settings.max_batch, settings.queue);
        let queue = Queue::new(
            source.name.clone(),
            load(source)?,
            limits,
            Arc::clone(&metrics),
        );
        Ok(Arc::new(queue))
    });
    let queues = queues.collect::<flm::Result<Vec<_>>>()?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let app = Arc::new(App {
        models: queues.clone(),
        metrics,
        keys: settings
            .keys
            .iter()
            .map(|key| app::digest(key.as_bytes()))
            .collect(),
        timeout: settings.timeout,
        cors: settings.cors.clone(),
        started: started.map_or(0, |time| time.as_secs()),
        closing: AtomicBool::new(false),
    });
    let router = router(&app, settings.cors.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start threads"))?;
    let workers: Vec<_> = queues
        .iter()
        .map(|queue| {
            let queue = Arc::clone(queue);
            thread::Builder::new()
                .name(format!("model {}", queue.name()))
                .spawn(move || queue.work())
        })
        .collect::<Result<_, _>>()
        .map_err(io("start threads"))?;
    let result = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(settings.address)
            .await
            .map_err(io(format!("listen on {}", settings.address)))?;
        let address = listener.local_addr().map_err(io("read the address"))?;
        tokio::spawn(reload(queues.clone(), models, Arc::new(load)));
        ready(address);
        let open = app.metrics.connections().clone();
        let stop = async {
            stop.await;
            app.closing.store(true, Ordering::Relaxed);
        };
        let grace = settings.timeout;
        connections::serve(listener, router, settings.connections, open, stop, grace).await;
        Ok(())
    });
    queues.iter().for_each(|queue| queue.close());
    // A model that is being reloaded must not delay the end.
    runtime.shutdown_background();
    // A batch without clients may run for long: the end of the process ends it.
    let end = Instant::now() + LAST_BATCH;
    while workers.iter().any(|worker| !worker.is_finished()) && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    result
}

/// Waits for SIGINT or SIGTERM.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Loads the models again at SIGHUP. A model that cannot be loaded stays as it is.
async fn reload<L>(queues: Vec<Arc<Queue>>, models: Vec<Source>, load: Arc<L>)
where
    L: Fn(&Source) -> flm::Result<Arc<dyn Engine>> + Send + Sync + 'static,
{
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        while hangup.recv().await.is_some() {
            for (queue, source) in queues.iter().zip(&models) {
                let (load, owned) = (Arc::clone(&load), source.clone());
                match tokio::task::spawn_blocking(move || load(&owned)).await {
                    Ok(Ok(engine)) => {
                        let weights = engine.about().weights.clone();
                        queue.replace(engine);
                        tracing::info!(model = source.name, weights, "reloaded");
                    }
                    Ok(Err(error)) => {
                        tracing::error!(model = source.name, %error, "not reloaded");
                    }
                    Err(_) => {
                        tracing::error!(model = source.name, "not reloaded: loading panicked")
                    }
                }
            }
        }
    }
    #[cfg(not(unix))]
    drop((queues, models, load));
}

/// The routes of the server.
fn router(app: &Arc<App>, cors: Option<&str>) -> Result<Router, Error> {
    let api = Router::new()
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{id}", get(openai::model))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/denoise", post(denoise::denoise))
        .layer(from_fn_with_state(Arc::clone(app), authorized));
    let router = page::routes()
        .merge(api)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "there is no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this route does not support the method",
            )
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(app), observed))
        .with_state(Arc::clone(app));
    let Some(origin) = cors else {
        return Ok(router);
    };
    let value = HeaderValue::from_str(origin).ok();
    let is_origin = origin.starts_with("http") && origin.matches('/').count() == 2;
    let value = value.filter(|_| is_origin);
    let value = value.ok_or_else(|| Error::Origin(origin.to_owned()))?;
    let methods = [Method::GET, Method::POST];
    let layer = CorsLayer::new().allow_origin(value).allow_methods(methods);
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE];
    Ok(router.layer(layer.allow_headers(headers)))
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response()
}

/// Rejects requests of other sites, and those without a valid key.
async fn authorized(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !app.is_own(&request) {
        return ApiError::new(
            StatusCode::FORBIDDEN,
            "pages of other sites may not call this server: start it with --cors-origin",
        )
        .into_response();
    }
    if app.allows(&request) {
        return next.run(request).await;
    }
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "this server needs an API key: send the header Authorization: Bearer KEY",
    )
    .into_response()
}

/// Counts and logs a request.
async fn observed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    // The pattern of the route: other paths would be labels without bound.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let (status, seconds) = (response.status().as_u16(), start.elapsed().as_secs_f64());
    app.metrics.request(&route, status, seconds);
    tracing::info!(%method, route, status, seconds, "request");
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.closing.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics_text(State(app): State<Arc<App>>) -> Response {
    let waiting = app
        .models
        .iter()
        .map(|model| (model.name().to_owned(), model.waiting_rows()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(waiting)).into_response()
}
