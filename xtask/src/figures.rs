//! Figures of the book and the README, light and dark: `cargo xtask figures`.

use anyhow::{Context, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The page whose table the speed chart shows.
const TABLE: &str = "docs/internals/performance.md";

/// Colours of both themes: background, text, faint lines, and three series.
const STYLE: &str = "svg{font:13px system-ui,sans-serif;background:#fbfaf7}text{fill:#23282d}\
    .faint{fill:#6a7178}.line{stroke:#d8d5cd}.a{fill:#1f8a9e;stroke:#1f8a9e}\
    .b{fill:#d96c3b;stroke:#d96c3b}.c{fill:#6a4c93;stroke:#6a4c93}.curve{fill:none}\
    @media (prefers-color-scheme:dark){svg{background:#16191c}text{fill:#e6e4de}\
    .faint{fill:#9aa1a8}.line{stroke:#3a4046}.a{fill:#4fb7ca;stroke:#4fb7ca}\
    .b{fill:#ee8e60;stroke:#ee8e60}.c{fill:#a78bd0;stroke:#a78bd0}.curve{fill:none}}";

/// Draws every figure.
pub(crate) fn run() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let example = "run --quiet --release --package flm-simplex --example trajectories";
    let csv = duct::cmd(cargo, example.split(' ')).read()?;
    write("docs/concepts/trajectories.svg", &trajectories(&csv)?)?;
    let page = fs::read_to_string(TABLE).with_context(|| format!("cannot read {TABLE}"))?;
    write("docs/speed.svg", &speed(&page)?)
}

fn write(path: &str, body: &str) -> anyhow::Result<()> {
    flm_files::write(Path::new(path), body.as_bytes())?;
    println!("{path}");
    Ok(())
}

fn svg(width: f64, height: f64, label: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n\
         <style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// The probability of the city that each noise draw reaches, against τ.
fn trajectories(csv: &str) -> anyhow::Result<String> {
    const SIZE: (f64, f64) = (720.0, 300.0);
    const PLOT: (f64, f64, f64, f64) = (60.0, 20.0, 600.0, 230.0);
    let mut lines = csv.lines();
    let cities: Vec<&str> = lines
        .next()
        .context("no head")?
        .split(',')
        .skip(2)
        .collect();
    let mut draws: Vec<Vec<(f64, Vec<f64>)>> = Vec::new();
    for line in lines {
        let mut values = line.split(',').map(str::parse::<f64>);
        let draw = values.next().context("no draw")?? as usize;
        let tau = values.next().context("no time")??;
        draws.resize(draws.len().max(draw + 1), Vec::new());
        draws[draw].push((tau, values.collect::<Result<_, _>>()?));
    }
    let (left, top, width, height) = PLOT;
    let x = |tau: f64| left + tau * width;
    let y = |share: f64| top + (1.0 - share) * height;
    let mut body = String::new();
    for share in [0.0, 0.5, 1.0] {
        let (at, end) = (y(share), left + width);
        writeln!(
            body,
            r#"<line class="line" x1="{left}" x2="{end}" y1="{at}" y2="{at}"/>"#
        )?;
        writeln!(
            body,
            r#"<text class="faint" x="{}" y="{}" text-anchor="end">{share}</text>"#,
            left - 8.0,
            at + 4.0
        )?;
    }
    for draw in &draws {
        let (_, last) = draw.last().context("an empty draw")?;
        let reached = (0..last.len())
            .max_by(|a, b| last[*a].total_cmp(&last[*b]))
            .context("no city")?;
        let points: Vec<String> = draw
            .iter()
            .map(|(tau, shares)| format!("{:.1},{:.1}", x(*tau), y(shares[reached])))
            .collect();
        writeln!(
            body,
            r#"<polyline class="{} curve" opacity="0.8" stroke-width="1.5" points="{}"/>"#,
            ["a", "b", "c"][reached % 3],
            points.join(" ")
        )?;
    }
    for (i, city) in cities.iter().enumerate() {
        let at = left + 20.0 + i as f64 * 130.0;
        writeln!(
            body,
            r#"<circle class="{}" cx="{at}" cy="282" r="4"/>"#,
            ["a", "b", "c"][i % 3]
        )?;
        writeln!(body, r#"<text x="{}" y="286">{city}</text>"#, at + 10.0)?;
    }
    writeln!(
        body,
        r#"<text class="faint" x="{}" y="266" text-anchor="end">τ: noise at 0, text at 1</text>"#,
        left + width
    )?;
    let label = "The probability of the city that each of 24 noise draws reaches, against time";
    Ok(svg(SIZE.0, SIZE.1, label, &body))
}

/// Bars of the seconds of each row of the first table that compares with PyTorch.
fn speed(page: &str) -> anyhow::Result<String> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let mut rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| work | flm"));
    let head = cells(rows.next().context("no table with work and flm")?);
    let rows = rows
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells);
    let seconds = |cell: &str| -> Option<f64> { cell.split(' ').next()?.parse().ok() };
    let bars: Vec<(String, Vec<f64>)> = rows
        .filter_map(|row| {
            Some((
                row[0].clone(),
                row[1..4]
                    .iter()
                    .map(|cell| seconds(cell))
                    .collect::<Option<_>>()?,
            ))
        })
        .collect();
    ensure!(!bars.is_empty(), "the table of {TABLE} has no seconds");
    let (left, width) = (300.0, 380.0);
    let mut body = String::new();
    for (i, name) in head[1..4].iter().enumerate() {
        let at = 16.0 + i as f64 * 170.0;
        writeln!(
            body,
            r#"<rect class="{}" x="{at}" y="14" width="12" height="12"/>"#,
            ["a", "b", "c"][i]
        )?;
        writeln!(body, r#"<text x="{}" y="25">{name}</text>"#, at + 18.0)?;
    }
    let mut y = 48.0;
    for (work, times) in &bars {
        let most = times.iter().copied().fold(0.0, f64::max);
        writeln!(body, r#"<text x="16" y="{}">{work}</text>"#, y + 20.0)?;
        for (i, time) in times.iter().enumerate() {
            let at = y + i as f64 * 11.0;
            let long = width * time / most;
            writeln!(
                body,
                r#"<rect class="{}" x="{left}" y="{at}" width="{long:.1}" height="9"/>"#,
                ["a", "b", "c"][i]
            )?;
            writeln!(
                body,
                r#"<text class="faint" x="{:.1}" y="{}" font-size="10">{time} s</text>"#,
                left + long + 5.0,
                at + 8.5
            )?;
        }
        y += 42.0;
    }
    Ok(svg(760.0, y, "Seconds per step of flm and PyTorch", &body))
}
