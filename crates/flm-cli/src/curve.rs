//! Loss curves, as `metrics.jsonl` has them.

use serde::Deserialize;
use std::path::Path;

/// Losses by step, in nats per token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Curve {
    /// Means over the steps between two lines.
    pub(crate) training: Vec<(f64, f64)>,
    /// The averaged weights on validation rows.
    pub(crate) validation: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Line {
    step: f64,
    loss: Option<f64>,
    validation_loss: Option<f64>,
}

/// The curves of a run. A picture is no reason to fail: what cannot be read is left out.
pub(crate) fn read(metrics: &Path) -> Curve {
    let text = std::fs::read_to_string(metrics).unwrap_or_default();
    let mut curve = Curve::default();
    for line in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
    {
        curve
            .training
            .extend(line.loss.map(|loss| (line.step, loss)));
        curve
            .validation
            .extend(line.validation_loss.map(|loss| (line.step, loss)));
    }
    curve
}
