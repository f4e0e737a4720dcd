//! The report as a self-contained HTML page.

use super::plot::validity;
use super::report::{Report, Row, steps};
use crate::curve::Curve;
use crate::error::{CliError, Result};
use crate::plot;
use crate::table::optional;
use flm::Card;
use minijinja::{AutoEscape, Environment, Value, context};
use std::path::Path;

const TEMPLATE: &str = include_str!("page.html");

/// The contents of the page.
pub(super) struct Page<'a> {
    pub(super) report: &'a Report,
    /// Samples of the flow map in the fewest steps.
    pub(super) sentences: &'a [String],
    pub(super) fewest: usize,
    /// The flow and its flow map.
    pub(super) models: [Model<'a>; 2],
    pub(super) out: &'a Path,
}

/// A model with the card and losses of its run.
pub(super) struct Model<'a> {
    pub(super) label: &'static str,
    pub(super) card: &'a Card,
    pub(super) curve: Curve,
}

impl Page<'_> {
    pub(super) fn render(&self) -> Result<String> {
        let failed = |error| CliError::input(format!("cannot draw the report: {error}"));
        let [flow, flow_map] = &self.models;
        let curves = [(&flow.curve, plot::FLOW), (&flow_map.curve, plot::FLOW_MAP)];
        let settings = toml::to_string_pretty(&self.report.config)
            .map_err(|error| CliError::input(format!("the configuration: {error}")))?;
        let seconds = &self.report.seconds;
        let stages = [
            ("corpus", seconds.prepare),
            ("flow", seconds.train),
            ("flow map", seconds.distill),
            ("samples", seconds.sample),
        ];
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_filter("steps", steps);
        environment.add_filter("optional", |value: Option<f64>| optional(value, 3));
        environment.add_filter("fixed", |value: f64, digits: usize| {
            format!("{value:.digits$}")
        });
        environment.add_filter("percent", |share: f64, digits: usize| {
            format!("{:.digits$} %", share * 100.0)
        });
        let page = environment.render_str(
            TEMPLATE,
            context! {
                flow => self.rows("flm").max_by_key(|row| row.steps),
                map => self.rows("fmlm").min_by_key(|row| row.steps),
                hurried => self.rows("flm").find(|row| row.steps == self.fewest),
                sentences => self.sentences,
                fewest => self.fewest,
                rows => (self.report.sorted().iter())
                    .map(|row| context! { name => row.name(), ..Value::from_serialize(row) })
                    .collect::<Vec<_>>(),
                corpus => self.report.corpus,
                drawn => self.report.drawn(),
                validity => validity(&self.report.rows).map_err(failed)?,
                losses => plot::losses(&curves).map_err(failed)?,
                models => self.models.iter().map(model).collect::<Vec<_>>(),
                stages => stages.map(|(stage, seconds)| (stage, duration(seconds))),
                command => flow.card.command,
                version => env!("CARGO_PKG_VERSION"),
                out => self.out.display().to_string(),
                settings,
            },
        );
        page.map_err(|error| CliError::input(format!("cannot write the report: {error:#}")))
    }

    /// Returns the rows of a model.
    fn rows<'r>(&'r self, model: &'r str) -> impl Iterator<Item = &'r Row> {
        let rows = self.report.rows.iter();
        rows.filter(move |row| row.model == model)
    }
}

fn model(model: &Model<'_>) -> Value {
    let run = model.card.training.clone().unwrap_or_default();
    context! {
        label => model.label,
        parameters => model.card.parameters,
        steps => run.steps,
        loss => run.validation_loss,
        time => duration(run.seconds),
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    format!(
        "{} min {:02} s",
        (seconds / 60.0) as u64,
        seconds as u64 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_fetches_nothing() {
        for fetching in ["http://", "https://", "<script", "<link", "@import", "url("] {
            assert!(!TEMPLATE.contains(fetching), "{fetching}");
        }
    }
}
