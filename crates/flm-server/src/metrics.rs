//! Prometheus metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

type PerModel<M> = Family<ModelLabels, M, fn() -> M>;

/// The metrics of a server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    tokens: Family<ModelLabels, Counter>,
    queue: Family<ModelLabels, Gauge>,
    batch: PerModel<Histogram>,
    step: PerModel<Histogram>,
    connections: Gauge,
}

fn rows() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 10))
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("flm");
        let metrics = Self {
            requests: Family::default(),
            seconds: seconds(),
            tokens: Family::default(),
            queue: Family::default(),
            batch: Family::new_with_constructor(rows),
            step: Family::new_with_constructor(seconds),
            connections: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Answered requests", metrics.requests.clone());
        registry.register(
            "request_seconds",
            "Seconds from a request to the head of its answer",
            metrics.seconds.clone(),
        );
        registry.register("tokens", "Sampled tokens", metrics.tokens.clone());
        registry.register("queue_rows", "Rows that wait", metrics.queue.clone());
        registry.register("batch_rows", "Rows of a batch", metrics.batch.clone());
        registry.register(
            "step_seconds",
            "Seconds of a sampling step of a batch",
            metrics.step.clone(),
        );
        registry.register(
            "connections",
            "Open connections",
            metrics.connections.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    pub(crate) fn request(&self, route: &str, status: u16, seconds: f64) {
        let labels = RequestLabels {
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(seconds);
    }

    pub(crate) fn batch(&self, model: &str, rows: usize, steps: usize, seconds: f64) {
        let labels = labels(model);
        self.batch.get_or_create(&labels).observe(rows as f64);
        self.step
            .get_or_create(&labels)
            .observe(seconds / steps as f64);
    }

    pub(crate) fn tokens(&self, model: &str, tokens: usize) {
        self.tokens
            .get_or_create(&labels(model))
            .inc_by(tokens as u64);
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// The metrics as text, with the waiting rows of each model.
    pub(crate) fn text(&self, waiting: impl Iterator<Item = (String, usize)>) -> String {
        for (model, rows) in waiting {
            self.queue.get_or_create(&labels(&model)).set(rows as i64);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn labels(model: &str) -> ModelLabels {
    ModelLabels {
        model: model.to_owned(),
    }
}
