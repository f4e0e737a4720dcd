//! The animated picture.

use super::{Sample, Step};
use std::fmt::Write;

/// Seconds of each step, and of the end.
const STEP: f64 = 0.7;
const END: f64 = 3.0;
/// Sizes in pixels.
const PANEL: f64 = 540.0;
const LINE: f64 = 26.0;
const TOP: f64 = 66.0;
const MARGIN: f64 = 24.0;
/// Width of a letter.
const LETTER: f64 = 7.9;

/// Draws a panel per trace: noise, then one frame per step, then the text. All panels have equally
/// many samples.
pub(super) fn draw(panels: &[Vec<Sample>]) -> String {
    let all = panels.iter().flatten();
    let steps = all.map(|sample| sample.trace.len()).max();
    let total = (steps.unwrap_or(1) + 1) as f64 * STEP + END;
    let width = PANEL * panels.len() as f64;
    let height = TOP + panels[0].len() as f64 * LINE + 16.0;
    let (mut body, mut rules) = (String::new(), String::new());
    for (panel, samples) in panels.iter().enumerate() {
        let x = MARGIN + panel as f64 * PANEL;
        let steps = samples[0].trace.len();
        let title = match samples[0].steps {
            1 => format!("{} · 1 step", samples[0].model),
            steps => format!("{} · {steps} steps", samples[0].model),
        };
        let title = escaped(&title);
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
                    frame => {
                        if let Some(at) = sample.trace.get(frame - 1) {
                            step(&mut body, at, x, y);
                        }
                    }
                }
            }
            body.push_str("</g>\n");
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Noise becomes text, step by step\">\n\
         <style>\nsvg{{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:#fbfaf7}}\ntext{{fill:#23282d;white-space:pre}}.t{{font-weight:600;fill:#6a7178}}g{{opacity:0}}\n\
         @media (prefers-color-scheme:dark){{svg{{background:#16191c}}text{{fill:#e6e4de}}.t{{fill:#9aa1a8}}}}\n{rules}</style>\n{body}</svg>\n"
    )
}

fn escaped(text: &str) -> String {
    // Control characters are invalid in XML.
    let text = text.replace(char::is_control, " ");
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn text(body: &mut String, text: &str, x: f64, y: f64, opacity: f64) {
    let text = escaped(text);
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
