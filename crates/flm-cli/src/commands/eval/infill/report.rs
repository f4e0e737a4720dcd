//! What is said of holes and what fills them.

use crate::table;
use serde::Serialize;

/// What is printed as JSON.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) data: String,
    pub(super) seed: u64,
    pub(super) temperature: f64,
    /// Of flow maps.
    pub(super) gamma: f64,
    pub(super) dtype: String,
    /// The rows as they are, of each span.
    pub(super) rows: Vec<Themselves>,
    pub(super) models: Vec<Measured>,
}

/// The rows that holes are made in.
#[derive(Serialize)]
pub(super) struct Themselves {
    /// Tokens in a hole.
    pub(super) span: usize,
    /// Rows, each with one hole.
    pub(super) count: usize,
    /// Share of sentences among them, where the law is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid: Option<f64>,
    /// Different spans among all that were taken out.
    pub(super) distinct: f64,
    /// How often one who draws from the law, given all other words, finds those that were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) law_exact: Option<f64>,
}

/// What one model does at a number of steps.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) model: String,
    pub(super) kind: &'static str,
    /// Whether it was trained with known positions.
    pub(super) conditioning: bool,
    pub(super) weights: String,
    pub(super) span: usize,
    pub(super) steps: usize,
    #[serde(flatten)]
    pub(super) fills: Fills,
    /// By samples with nothing given, for several numbers of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rejection: Vec<Rejection>,
}

/// One fill for each hole.
#[derive(Serialize)]
pub(super) struct Fills {
    pub(super) count: usize,
    /// Share of holes that are filled with what was there.
    pub(super) exact: f64,
    /// Share of whole rows that are sentences, where the law is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid: Option<f64>,
    /// Different fills among all.
    pub(super) distinct: f64,
}

/// Samples that happen to agree with what is known.
#[derive(Serialize)]
pub(super) struct Rejection {
    /// Samples drawn.
    pub(super) samples: usize,
    /// Share that agrees with a row, averaged over rows.
    pub(super) accepted: f64,
    /// Share of rows with which at least one agrees.
    pub(super) answered: f64,
    /// Share of sentences among those that agree; none where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid: Option<f64>,
    /// Share of those that agree with the hole as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exact: Option<f64>,
}

impl Report {
    /// The report in text.
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
                table::optional(rows.law_exact, 3),
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
                "; answered: rows that one of {} samples with nothing given agrees with, and how many of these are valid",
                free.samples
            );
        }
        out + "\n"
    }
}
