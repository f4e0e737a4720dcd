//! Progress events and the metrics file.

use crate::error::TrainError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// An event of a training run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Some steps were done.
    Step(Line),
    /// The averaged weights were validated.
    Validation(&'a Evaluation),
    /// A checkpoint was written here.
    Checkpoint(&'a Path),
}

/// Progress over the steps since the last line.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Mean loss since the last line, in nats per token unless the objective uses another unit.
    pub loss: f64,
    /// The report of the last step.
    pub last: StepReport,
    /// Training time of all sessions together, in seconds.
    pub seconds: f64,
    /// Tokens trained per second.
    pub tokens_per_second: f64,
}

/// The report of one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Mean loss, in nats per token unless the objective uses another unit.
    pub loss: f64,
    /// Mean loss of each kind of row.
    pub losses: BTreeMap<&'static str, f64>,
    /// Means that the objective reports alongside its loss.
    pub diagnostics: BTreeMap<&'static str, f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of AdamW.
    pub lr: f64,
}

/// A validation of the averaged weights.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// Mean loss, in nats per token unless the objective uses another unit.
    pub loss: f64,
    /// Mean loss of each kind of row.
    pub losses: BTreeMap<&'static str, f64>,
    /// Means that the objective reports alongside its loss.
    pub diagnostics: BTreeMap<&'static str, f64>,
}

/// Sums and counts by name.
pub(crate) type Sums = BTreeMap<&'static str, (f64, f64)>;

/// Sums and counts of all parts together.
pub(crate) struct Named(Sums);

/// Sums the losses and the diagnostics of all parts.
pub(crate) fn average_by_name(parts: Vec<[Sums; 2]>) -> (Named, Named) {
    let [mut losses, mut diagnostics] = [Sums::new(), Sums::new()];
    for [part, part_diagnostics] in parts {
        for (all, part) in [(&mut losses, part), (&mut diagnostics, part_diagnostics)] {
            for (name, (sum, count)) in part {
                let entry = all.entry(name).or_insert((0.0, 0.0));
                entry.0 += sum;
                entry.1 += count;
            }
        }
    }
    (Named(losses), Named(diagnostics))
}

impl Named {
    pub(crate) fn mean(&self) -> f64 {
        let (sum, count) = self
            .0
            .values()
            .fold((0.0, 0.0), |(s, c), (sum, count)| (s + sum, c + count));
        sum / count
    }

    /// Returns the mean of each name that has values.
    pub(crate) fn means(&self) -> BTreeMap<&'static str, f64> {
        self.0
            .iter()
            .filter(|(_, (_, count))| *count > 0.0)
            .map(|(name, (sum, count))| (*name, sum / count))
            .collect()
    }
}

pub(crate) fn describe(losses: &BTreeMap<&'static str, f64>) -> String {
    losses
        .iter()
        .map(|(name, loss)| format!("{name} {loss}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// `metrics.jsonl`: one JSON object per line, for steps and validations.
pub struct MetricsFile {
    file: File,
    path: PathBuf,
}

impl MetricsFile {
    /// Opens the file for a new run, which empties it, or to resume `after` a step. Lines of later
    /// steps, left by a stopped run, are removed.
    pub fn open(path: impl Into<PathBuf>, after: Option<u64>) -> Result<Self, TrainError> {
        let path = path.into();
        let kept = match after {
            Some(step) if path.exists() => {
                let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
                text.lines()
                    .filter(|line| step_of(line).is_some_and(|at| at <= step))
                    .fold(String::new(), |mut kept, line| {
                        kept.push_str(line);
                        kept.push('\n');
                        kept
                    })
            }
            _ => String::new(),
        };
        std::fs::write(&path, kept).map_err(TrainError::io("write", &path))?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(TrainError::io("open", &path))?;
        Ok(Self { file, path })
    }

    /// Appends a line for a step or a validation.
    pub fn write(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        let (mut line, diagnostics) = match event {
            Event::Step(line) => {
                let json = serde_json::json!({
                    "step": line.step, "loss": line.loss, "losses": line.last.losses, "grad_norm": line.last.grad_norm,
                    "lr": line.last.lr, "seconds": line.seconds, "tokens_per_second": line.tokens_per_second,
                });
                (json, ("diagnostics", &line.last.diagnostics))
            }
            Event::Validation(evaluation) => {
                let json = serde_json::json!({
                    "step": evaluation.step, "validation_loss": evaluation.loss, "validation_losses": evaluation.losses,
                });
                (json, ("validation_diagnostics", &evaluation.diagnostics))
            }
            Event::Checkpoint(_) => return Ok(()),
        };
        let (key, means) = diagnostics;
        if !means.is_empty() {
            line[key] = serde_json::json!(means);
        }
        writeln!(self.file, "{line}").map_err(TrainError::io("write", &self.path))
    }
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line)
        .ok()?
        .get("step")?
        .as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_file_forgets_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let evaluation = |step| Evaluation {
            step,
            loss: 1.0,
            losses: BTreeMap::new(),
            diagnostics: BTreeMap::new(),
        };
        let mut file = MetricsFile::open(&path, None).unwrap();
        for step in [10, 20, 30] {
            file.write(&Event::Validation(&evaluation(step))).unwrap();
        }
        drop(file);
        MetricsFile::open(&path, Some(20))
            .unwrap()
            .write(&Event::Validation(&evaluation(25)))
            .unwrap();
        let steps: Vec<_> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| step_of(line).unwrap())
            .collect();
        assert_eq!(steps, [10, 20, 25]);
    }
}
