//! An animated picture of denoising, from traces of `flm sample --trace`: `cargo xtask denoising`.

use anyhow::{Context, ensure};
use serde::Deserialize;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The traces to show.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Trace of a flow in several steps
    #[arg(value_name = "FLOW.json")]
    flow: PathBuf,
    /// Trace of its flow map in one step
    #[arg(value_name = "MAP.json")]
    map: PathBuf,
    /// Number of sentences
    #[arg(long, value_name = "N", default_value_t = 4)]
    sentences: usize,
    /// Output file
    #[arg(long, value_name = "FILE", default_value = "docs/denoising.svg")]
    out: PathBuf,
}

#[derive(Deserialize)]
struct Trace {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    text: String,
    trace: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    positions: Vec<Vec<Token>>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    probability: f64,
}

/// Seconds of each step, and of the end.
const STEP: f64 = 0.7;
const END: f64 = 3.0;
/// Sizes in pixels.
const WIDTH: f64 = 1_080.0;
const LINE: f64 = 26.0;
const TOP: f64 = 66.0;
const MARGIN: f64 = 24.0;
/// Width of a letter.
const LETTER: f64 = 7.9;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (flow, map) = (read(&arguments.flow)?, read(&arguments.map)?);
    let count = arguments.sentences;
    for (path, trace) in [(&arguments.flow, &flow), (&arguments.map, &map)] {
        ensure!(
            trace.samples.len() >= count && count > 0,
            "{} has {} samples, {count} are shown",
            path.display(),
            trace.samples.len()
        );
    }
    fs::write(
        &arguments.out,
        picture(&flow.samples[..count], &map.samples[..count]),
    )
    .with_context(|| format!("cannot write {}", arguments.out.display()))
}

fn read(path: &Path) -> anyhow::Result<Trace> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no trace", path.display()))
}

/// Two panels: noise, then one frame per step, then the text.
fn picture(flow: &[Sample], map: &[Sample]) -> String {
    let steps = flow
        .iter()
        .chain(map)
        .map(|sample| sample.trace.len())
        .max();
    let total = (steps.unwrap_or(1) + 1) as f64 * STEP + END;
    let height = TOP + flow.len() as f64 * LINE + 16.0;
    let (mut body, mut rules) = (String::new(), String::new());
    for (panel, samples) in [flow, map].into_iter().enumerate() {
        let x = MARGIN + panel as f64 * WIDTH / 2.0;
        let steps = samples[0].trace.len();
        let title = match steps {
            1 => "flow map · 1 step".to_owned(),
            steps => format!("flow · {steps} steps"),
        };
        let _ = writeln!(body, r#"<text class="t" x="{x}" y="34">{title}</text>"#);
        for frame in 0..steps + 2 {
            let from = frame as f64 * STEP;
            let until = if frame == steps + 1 {
                total
            } else {
                from + STEP
            };
            let name = format!("f{panel}-{frame}");
            let share = |time: f64| 100.0 * time / total;
            let _ = writeln!(
                rules,
                "@keyframes {name}{{0%,{:.2}%{{opacity:0}}{:.2}%,{:.2}%{{opacity:1}}{:.2}%,100%{{opacity:{}}}}}",
                (share(from) - 0.01).max(0.0),
                share(from),
                share(until) - 0.01,
                share(until),
                u8::from(frame == steps + 1),
            );
            let _ = writeln!(body, r#"<g style="animation:{name} {total}s infinite">"#);
            for (row, sample) in samples.iter().enumerate() {
                let y = TOP + row as f64 * LINE;
                match frame {
                    0 => noise(&mut body, sample, x, y, row + panel * samples.len()),
                    frame if frame > steps => text(&mut body, &sample.text, x, y, 1.0),
                    frame => step(&mut body, &sample.trace[frame - 1], x, y),
                }
            }
            body.push_str("</g>\n");
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Noise becomes sentences: by a flow in several steps, by its flow map in one\">\n\
         <style>\nsvg{{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:#fbfaf7}}\ntext{{fill:#23282d;white-space:pre}}.t{{font-weight:600;fill:#6a7178}}g{{opacity:0}}\n\
         @media (prefers-color-scheme:dark){{svg{{background:#16191c}}text{{fill:#e6e4de}}.t{{fill:#9aa1a8}}}}\n{rules}</style>\n{body}</svg>\n"
    )
}

fn text(body: &mut String, text: &str, x: f64, y: f64, opacity: f64) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        r#"<text x="{x:.0}" y="{y:.0}" opacity="{opacity:.2}">{text}</text>"#
    );
}

/// The likeliest token of each position, fainter where its probability is low.
fn step(body: &mut String, step: &Step, x: f64, y: f64) {
    let mut x = x;
    for position in &step.positions {
        let Some(likeliest) = position.first() else {
            continue;
        };
        if likeliest.token.starts_with('<') || likeliest.token.starts_with('[') {
            break;
        }
        text(
            body,
            &likeliest.token,
            x,
            y,
            likeliest.probability.max(0.12),
        );
        x += (likeliest.token.chars().count() + 1) as f64 * LETTER;
    }
}

/// Symbols instead of words, the same at every call.
fn noise(body: &mut String, sample: &Sample, x: f64, y: f64, seed: usize) {
    const SIGNS: [char; 12] = ['#', '%', '*', '+', '=', '~', '?', '/', ':', '^', '$', '!'];
    let words = sample.text.split(' ');
    let mut place = seed * 31;
    let signs = words.map(|word| {
        let sign = |_| {
            place = (place * 73 + 41) % 9_973;
            SIGNS[place / 7 % SIGNS.len()]
        };
        word.chars().map(sign).collect::<String>()
    });
    let signs = signs.collect::<Vec<_>>().join(" ");
    text(body, &signs, x, y, 0.35);
}
