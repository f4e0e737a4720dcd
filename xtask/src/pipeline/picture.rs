//! The picture of a study: quality against steps, and against time where it was measured.

use super::compare::{Figures, Finished, Measure, VALID, at, mean};
use super::perfect::{Ceiling, Perfect};
use super::report::{measure, models, steps};
use super::study::{Found, Table, Text};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Size of a panel, and width of the legend.
const PANEL: (u32, u32) = (520, 440);
const LEGEND: u32 = 280;
/// Legible on white.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0x1f, 0x8a, 0x9e),
    RGBColor(0xd9, 0x6c, 0x3b),
    RGBColor(0x6a, 0x4c, 0x93),
    RGBColor(0x3a, 0x7d, 0x44),
    RGBColor(0xb0, 0x8a, 0x1e),
    RGBColor(0xc2, 0x3b, 0x6d),
    RGBColor(0x8a, 0x8a, 0x8a),
    RGBColor(0x3b, 0x5b, 0xb5),
    RGBColor(0x7a, 0x4a, 0x2a),
];
/// Dots are filled where the samples' entropy reaches the text's less this many nats.
const MATCHED: f64 = 0.05;
/// Exact denoisers: shades, and lengths of dashes.
const DASHED: [(RGBColor, u32); 4] = [
    (RGBColor(110, 110, 110), 5),
    (RGBColor(60, 60, 60), 2),
    (RGBColor(0, 0, 0), 5),
    (RGBColor(170, 170, 170), 5),
];

type Failure = Box<dyn std::error::Error>;
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One model's line.
struct Line {
    name: &'static str,
    colour: RGBColor,
    points: Vec<Point>,
}

/// All seeds in a number of steps.
struct Point {
    steps: f64,
    /// For 1,000 samples, where it was measured.
    seconds: Option<f64>,
    quality: Vec<f64>,
    matched: bool,
}

/// One or two panels: means of the seeds, and their range.
pub(super) fn draw(table: &Table, found: &Found) -> anyhow::Result<String> {
    let mut svg = String::new();
    panels(&mut svg, table, found).map_err(|error| anyhow::anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn panels(svg: &mut String, table: &Table, found: &Found) -> Result<(), Failure> {
    let Found { runs, text, .. } = found;
    let measure = measure(runs);
    let lines = lines(table, runs, text, measure);
    let perfect = found.perfect.as_ref();
    let ceilings = perfect.map_or_else(Vec::new, Perfect::ceilings);
    let timed = lines
        .iter()
        .flat_map(|line| &line.points)
        .all(|point| point.seconds.is_some());
    let (width, height) = PANEL;
    let panels = if timed { 2 } else { 1 };
    let area = SVGBackend::with_string(svg, (panels * width + LEGEND, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, rest) = area.split_horizontally(width);
    let mut side = rest;
    panel(&left, &lines, &ceilings, measure, "steps", &|point| {
        point.steps
    })?;
    if timed {
        let (right, rest) = side.split_horizontally(width);
        let seconds = |point: &Point| point.seconds.unwrap_or(f64::NAN);
        let along = "seconds for 1,000 samples";
        panel(&right, &lines, &[], measure, along, &seconds)?;
        side = rest;
    }
    legend(&side, &lines, &ceilings)?;
    area.present()?;
    Ok(())
}

fn lines(table: &Table, runs: &[Finished], text: &Text, measure: Measure) -> Vec<Line> {
    let chosen = steps(table, runs);
    models(table, runs)
        .iter()
        .filter(|(model, _)| model.drawn)
        .zip(COLOURS.iter().cycle())
        .map(|((model, mine), &colour)| {
            let there = |steps: &usize| at(mine[0], *steps).is_some();
            let mut own: Vec<usize> = chosen.iter().copied().filter(there).collect();
            if own.is_empty() {
                own.extend(mine[0].figures.first().map(|figures| figures.steps));
            }
            let point = |steps: usize| {
                let all: Vec<&Figures> = mine.iter().filter_map(|run| at(run, steps)).collect();
                let entropies: Vec<f64> = all.iter().map(|f| f.entropy).collect();
                let seconds = all
                    .iter()
                    .map(|f| Some(f.seconds? * 1e3 / f.samples as f64));
                let seconds: Option<Vec<f64>> = seconds.collect();
                Point {
                    steps: steps as f64,
                    seconds: seconds.as_deref().map(mean),
                    quality: all.iter().map(|f| (measure.of)(f)).collect(),
                    matched: mean(&entropies) > text.entropy - MATCHED,
                }
            };
            Line {
                name: model.name,
                colour,
                points: own.into_iter().map(point).collect(),
            }
        })
        .collect()
}

fn panel(
    area: &Panel<'_>,
    lines: &[Line],
    ceilings: &[Ceiling],
    measure: Measure,
    along: &str,
    place: &dyn Fn(&Point) -> f64,
) -> Result<(), Failure> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let ends = |values: Vec<f64>| {
        let all = values.into_iter();
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (first, last) = ends(points().map(place).collect());
    let perfect = ceilings.iter().flat_map(|ceiling| &ceiling.points);
    let perfect = perfect.flat_map(|(_, valid)| valid.iter().copied());
    let all = points().flat_map(|p| p.quality.clone()).chain(perfect);
    let (low, high) = ends(all.collect());
    let bottom = if measure.name == VALID.name { 0.0 } else { low };
    let room = 0.06 * (high - bottom).max(1e-3);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (first / 1.25..last * 1.25).log_scale(),
            bottom - room..high + room,
        )?;
    let unit = if measure.name == VALID.name { " %" } else { "" };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_label_formatter(&|x: &f64| {
            if *x < 1.0 {
                format!("{x}")
            } else {
                format!("{x:.0}")
            }
        })
        .y_label_formatter(&|y: &f64| format!("{y:.0}{unit}"))
        .light_line_style(TRANSPARENT)
        .x_desc(along)
        .y_desc(format!("{}: mean and range of the seeds", measure.name))
        .draw()?;
    for line in lines {
        let colour = line.colour;
        let means = line.points.iter().map(|p| (place(p), mean(&p.quality)));
        chart.draw_series(LineSeries::new(means, colour.stroke_width(2)))?;
        for point in &line.points {
            let x = place(point);
            let (low, high) = ends(point.quality.clone());
            chart.draw_series([PathElement::new(
                [(x, low), (x, high)],
                colour.stroke_width(1),
            )])?;
            let middle = (x, mean(&point.quality));
            let fill = if point.matched {
                colour.filled()
            } else {
                WHITE.filled()
            };
            chart.draw_series([Circle::new(middle, 4, fill)])?;
            chart.draw_series([Circle::new(middle, 4, colour.stroke_width(1))])?;
        }
    }
    for (ceiling, (shade, dash)) in ceilings.iter().zip(DASHED) {
        let means = ceiling
            .points
            .iter()
            .map(|(steps, valid)| (*steps as f64, mean(valid)));
        let means: Vec<(f64, f64)> = means.collect();
        let dashes = DashedLineSeries::new(means, dash, 4, shade.stroke_width(1));
        chart.draw_series(dashes)?;
    }
    Ok(())
}

/// Names of all lines, in a column next to the panels.
fn legend(area: &Panel<'_>, lines: &[Line], ceilings: &[Ceiling]) -> Result<(), Failure> {
    let font = ("sans-serif", 13).into_font();
    let solid = |line: &Line| (line.name, line.colour.stroke_width(2), vec![(4, 24)]);
    let dashed = |(ceiling, (shade, _)): (&Ceiling, (RGBColor, u32))| {
        (ceiling.name, shade.stroke_width(1), vec![(4, 12), (16, 24)])
    };
    let all = lines.iter().map(solid);
    let all = all.chain(ceilings.iter().zip(DASHED).map(dashed));
    for ((name, style, strokes), y) in all.zip((30..).step_by(20)) {
        for (from, to) in strokes {
            area.draw(&PathElement::new([(from, y), (to, y)], style))?;
        }
        let text = plotters::element::Text::new(name, (30, y - 7), font.clone());
        area.draw(&text)?;
    }
    Ok(())
}
