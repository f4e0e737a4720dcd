//! The report of a quickstart.

use crate::config::Config;
use crate::table::{aligned, optional};
use flm_eval::Quality;
use serde::Serialize;

/// The contents of `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) corpus: Corpus,
    pub(crate) rows: Vec<Row>,
    pub(crate) seconds: Seconds,
    pub(crate) seed: u64,
    /// The time budget in minutes that set the numbers of steps, if there was one.
    pub(crate) minutes: Option<f64>,
    pub(crate) config: Config,
}

/// The figures of a perfect model: as many sentences drawn from the grammar itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Corpus {
    pub(crate) oracle_nats_per_token: f64,
    pub(crate) frame_divergence: Option<f64>,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
}

/// One model at one number of steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// "flm" or "fmlm".
    pub(crate) model: String,
    pub(crate) steps: usize,
    pub(crate) samples: usize,
    pub(crate) valid: f64,
    pub(crate) oracle_nats_per_token: f64,
    /// Divergence of the sentence frames of valid samples from the grammar's, in nats, and their
    /// recall.
    pub(crate) frame_divergence: Option<f64>,
    pub(crate) frame_recall: Option<f64>,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
}

/// Durations of the stages, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Seconds {
    pub(crate) prepare: f64,
    pub(crate) train: f64,
    pub(crate) distill: f64,
    pub(crate) sample: f64,
}

impl Row {
    pub(crate) fn new(model: &str, steps: usize, quality: &Quality) -> Self {
        Self {
            model: model.to_owned(),
            steps,
            samples: quality.samples,
            valid: quality.valid,
            oracle_nats_per_token: quality.oracle_nats_per_token,
            frame_divergence: quality.frame_divergence,
            frame_recall: quality.frame_recall,
            entropy: quality.entropy,
            distinct: quality.distinct,
        }
    }

    /// Returns the name of the model for display.
    pub(crate) fn name(&self) -> &str {
        if self.model == "flm" {
            "flow"
        } else {
            "flow map"
        }
    }
}

/// Formats a number of steps: "1 step", "4 steps".
pub(crate) fn steps(steps: usize) -> String {
    if steps == 1 {
        "1 step".to_owned()
    } else {
        format!("{steps} steps")
    }
}

impl Report {
    /// Returns the rows of the flow, then of its flow map, from many steps to few.
    pub(crate) fn sorted(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.model != "flm", std::cmp::Reverse(row.steps)));
        rows
    }

    /// Describes the samples, such as "1000 samples each, at temperature 0.5".
    pub(crate) fn drawn(&self) -> String {
        let samples = self.rows.first().map_or(0, |row| row.samples);
        let temperature = self.config.sample.temperature;
        let mut drawn = format!("{samples} samples each");
        if temperature != 1.0 {
            drawn += &format!(", at temperature {temperature}");
        }
        let scale = self.config.sample.noise_scale;
        if scale != 1.0 {
            drawn += &format!(", from noise scaled by {scale}");
        }
        if let Some(minutes) = self.minutes {
            drawn += &format!(
                "; {} and {} training steps, chosen for {minutes} minutes",
                self.config.train.steps, self.config.distill.train.steps
            );
        }
        drawn
    }

    /// Formats the figures for a terminal, in the order of [`sorted`](Self::sorted).
    pub(crate) fn table(&self) -> String {
        let header = [
            "model".into(),
            "steps".into(),
            "valid".into(),
            "nats/tok".into(),
            "frames".into(),
            "entropy".into(),
            "distinct".into(),
        ];
        let mut lines = vec![header.to_vec()];
        for row in self.sorted() {
            lines.push(vec![
                row.name().to_owned(),
                row.steps.to_string(),
                format!("{:.3}", row.valid),
                format!("{:.2}", row.oracle_nats_per_token),
                optional(row.frame_divergence, 3),
                format!("{:.2}", row.entropy),
                format!("{:.3}", row.distinct),
            ]);
        }
        lines.push(vec![
            "the grammar itself".to_owned(),
            "–".to_owned(),
            "1.000".to_owned(),
            format!("{:.2}", self.corpus.oracle_nats_per_token),
            optional(self.corpus.frame_divergence, 3),
            format!("{:.2}", self.corpus.entropy),
            format!("{:.3}", self.corpus.distinct),
        ]);
        format!("{}\n{}", self.drawn(), aligned(&lines))
    }
}
