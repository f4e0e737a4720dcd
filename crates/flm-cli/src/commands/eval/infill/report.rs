//! The infilling report.

use crate::table;
use flm_study::{Fills, Rejection, Themselves};
use serde::Serialize;

/// The report, printed as JSON or as a table.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) data: String,
    pub(super) seed: u64,
    pub(super) temperature: f64,
    /// Gamma of flow maps.
    pub(super) gamma: f64,
    pub(super) dtype: String,
    /// Figures of the original rows, per span.
    pub(super) rows: Vec<Themselves>,
    pub(super) models: Vec<Measured>,
}

/// The results of one model at one number of steps.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) model: String,
    pub(super) kind: &'static str,
    /// Whether the model was trained with known positions.
    pub(super) conditioning: bool,
    pub(super) weights: String,
    pub(super) span: usize,
    pub(super) steps: usize,
    #[serde(flatten)]
    pub(super) fills: Fills,
    /// Rejection sampling, for several numbers of unconditional samples.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rejection: Vec<Rejection>,
}

impl Report {
    /// Formats the report as text.
    pub(super) fn render(&self) -> String {
        let header = [
            "model", "kind", "span", "steps", "exact", "valid", "distinct", "answered", "valid",
        ];
        let mut lines = vec![header.map(str::to_owned).to_vec()];
        for found in &self.models {
            let rejection = found.rejection.last();
            lines.push(vec![
                found.model.clone(),
                found.kind.to_owned(),
                found.span.to_string(),
                found.steps.to_string(),
                format!("{:.3}", found.fills.exact),
                table::optional(found.fills.valid, 3),
                format!("{:.3}", found.fills.distinct),
                table::optional(rejection.map(|rejection| rejection.answered), 3),
                table::optional(rejection.and_then(|rejection| rejection.valid), 3),
            ]);
        }
        for rows in &self.rows {
            lines.push(vec![
                "the rows".to_owned(),
                "-".to_owned(),
                rows.span.to_string(),
                "-".to_owned(),
                table::optional(rows.oracle_exact, 3),
                table::optional(rows.valid, 3),
                format!("{:.3}", rows.distinct),
                "-".to_owned(),
                "-".to_owned(),
            ]);
        }
        let mut out = table::aligned(&lines);
        let counts = self.rows.iter();
        let counts: Vec<String> = counts.map(|rows| rows.count.to_string()).collect();
        out += &format!("{} rows of {}", counts.join(", "), self.data);
        let free = self
            .models
            .iter()
            .filter_map(|found| found.rejection.last());
        if let Some(free) = free.into_iter().next() {
            out += &format!(
                "; answered: share of rows that agree with at least one of {} unconditional samples; last column: share of valid sentences among these samples",
                free.samples
            );
        }
        out + "\n"
    }
}
