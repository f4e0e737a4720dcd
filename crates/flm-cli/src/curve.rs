//! Loss curves from `metrics.jsonl`.

use serde::Deserialize;
use std::path::Path;

/// Losses by step, in nats per token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Curve {
    /// Training losses, averaged over the steps between two lines.
    pub(crate) training: Vec<(f64, f64)>,
    /// Validation losses of the averaged weights.
    pub(crate) validation: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Line {
    step: f64,
    loss: Option<f64>,
    validation_loss: Option<f64>,
}

/// Reads the curves of a run. Unreadable files and lines are skipped: a picture must not fail a
/// run.
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
