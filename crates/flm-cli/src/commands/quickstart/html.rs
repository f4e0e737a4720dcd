//! The report as a page: one file, nothing fetched from anywhere.

use super::plot::validity;
use super::report::{Report, Row, steps};
use crate::curve::Curve;
use crate::error::{CliError, Result};
use crate::plot;
use crate::table::optional;
use flm::Card;
use std::path::Path;

const TEMPLATE: &str = include_str!("page.html");

/// What the page tells.
pub(super) struct Page<'a> {
    pub(super) report: &'a Report,
    /// Samples of the flow map in the fewest steps.
    pub(super) sentences: &'a [String],
    pub(super) fewest: usize,
    /// The flow and its flow map.
    pub(super) models: [Model<'a>; 2],
    pub(super) out: &'a Path,
}

/// A model with the run that made it.
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
        let fields = [
            ("lead", self.lead()),
            ("sentences", self.sentences()),
            ("in_steps", format!("in {}", steps(self.fewest))),
            ("rows", self.rows()),
            ("drawn", self.report.drawn()),
            ("validity", validity(&self.report.rows).map_err(failed)?),
            ("losses", plot::losses(&curves).map_err(failed)?),
            ("stages", self.stages()),
            ("models", self.models.iter().map(model_row).collect()),
            ("settings", escape(&settings)),
            ("command", escape(&flow.card.command)),
            ("out", escape(&self.out.display().to_string())),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        Ok(filled(TEMPLATE, &fields))
    }

    /// The finding in one sentence: the flow's many steps beside the flow map's fewest.
    fn lead(&self) -> String {
        let rows = &self.report.rows;
        let flow = rows
            .iter()
            .filter(|row| row.model == "flm")
            .max_by_key(|row| row.steps);
        let map = rows
            .iter()
            .filter(|row| row.model == "fmlm")
            .min_by_key(|row| row.steps);
        let same = map.and_then(|map| {
            rows.iter()
                .find(|row| row.model == "flm" && row.steps == map.steps)
        });
        let share = |row: &Row| format!("<b>{:.0} %</b>", row.valid * 100.0);
        let mut lead = String::new();
        if let Some(flow) = flow {
            lead += &format!(
                "In {} the flow writes {} correct sentences. ",
                steps(flow.steps),
                share(flow)
            );
        }
        if let Some(map) = map {
            lead += &format!("Its flow map writes {} in {}", share(map), steps(map.steps));
            match same {
                Some(same) => lead += &format!("; the flow, so hurried, {}.", share(same)),
                None => lead.push('.'),
            }
        }
        lead
    }

    fn sentences(&self) -> String {
        let item = |sentence: &String| {
            let text = if sentence.is_empty() {
                "<i>(empty)</i>".to_owned()
            } else {
                escape(sentence)
            };
            format!("<li>{text}</li>\n")
        };
        self.sentences.iter().map(item).collect()
    }

    fn rows(&self) -> String {
        let row = |row: &Row| {
            format!(
                "<tr class=\"{model}\"><th>{name}</th><td>{steps}</td><td class=\"bar\" style=\"--share:{valid:.3}\">{percent:.1} %</td>\
                 <td>{nats:.2}</td><td>{frames}</td><td>{entropy:.2}</td><td>{distinct:.1} %</td></tr>\n",
                model = row.model,
                name = row.name(),
                steps = row.steps,
                valid = row.valid,
                percent = row.valid * 100.0,
                nats = row.oracle_nats_per_token,
                frames = optional(row.frame_divergence, 3),
                entropy = row.entropy,
                distinct = row.distinct * 100.0,
            )
        };
        let corpus = &self.report.corpus;
        let last = format!(
            "<tr class=\"corpus\"><th>the grammar itself</th><td>–</td><td class=\"bar\" style=\"--share:1\">100.0 %</td>\
             <td>{:.2}</td><td>{}</td><td>{:.2}</td><td>{:.1} %</td></tr>\n",
            corpus.oracle_nats_per_token,
            optional(corpus.frame_divergence, 3),
            corpus.entropy,
            corpus.distinct * 100.0
        );
        self.report
            .sorted()
            .into_iter()
            .map(row)
            .chain([last])
            .collect()
    }

    fn stages(&self) -> String {
        let seconds = &self.report.seconds;
        let stages = [
            ("corpus", seconds.prepare),
            ("flow", seconds.train),
            ("flow map", seconds.distill),
            ("samples", seconds.sample),
        ];
        stages
            .iter()
            .map(|(stage, seconds)| {
                format!("<li><span>{stage}</span> {}</li>\n", duration(*seconds))
            })
            .collect()
    }
}

fn model_row(model: &Model<'_>) -> String {
    let run = model.card.training.clone().unwrap_or_default();
    let loss = run
        .validation_loss
        .map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"));
    format!(
        "<tr><th>{}</th><td>{}</td><td>{}</td><td>{loss}</td><td>{}</td></tr>\n",
        model.label,
        model.card.parameters,
        run.steps,
        duration(run.seconds)
    )
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The template with each `{{field}}` filled in. A value is not looked into again.
fn filled(template: &str, fields: &[(&str, String)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out += before;
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = fields.iter().find(|(field, _)| *field == name);
        debug_assert!(value.is_some(), "the page has no field {name}");
        out += value.map_or("", |(_, value)| value);
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_text_and_not_a_template() {
        let fields = [("a", "{{b}}".to_owned()), ("b", escape("<i> & \"x\""))];
        assert_eq!(
            filled("{{a}} {{b}}.", &fields),
            "{{b}} &lt;i&gt; &amp; &quot;x&quot;."
        );
    }

    #[test]
    fn the_page_fetches_nothing() {
        for fetching in ["http://", "https://", "<script", "<link", "@import", "url("] {
            assert!(!TEMPLATE.contains(fetching), "{fetching}");
        }
    }
}
