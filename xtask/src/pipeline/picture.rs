//! The picture of the study.

use super::distillations::{Finished, Group, STEPS, VARIANTS};
use plotters::prelude::*;

const SIZE: (u32, u32) = (720, 420);
/// Legible on white.
pub(crate) const COLOURS: [RGBColor; 7] = [
    RGBColor(0x1f, 0x8a, 0x9e),
    RGBColor(0xd9, 0x6c, 0x3b),
    RGBColor(0x6a, 0x4c, 0x93),
    RGBColor(0x3a, 0x7d, 0x44),
    RGBColor(0xb0, 0x8a, 0x1e),
    RGBColor(0xc2, 0x3b, 0x6d),
    RGBColor(0x8a, 0x8a, 0x8a),
];

type Failure = Box<dyn std::error::Error>;

/// The mean share of valid samples against the steps, with the spread of the seeds, for the objectives as they come and for the teacher.
pub(crate) fn validity(runs: &[Finished], teacher: &Finished) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, runs, teacher).map_err(|error| anyhow::anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

/// Shares of valid samples, one for each seed.
fn shares(runs: &[&Finished], steps: usize) -> Vec<f64> {
    let figures = runs.iter().flat_map(|run| &run.figures);
    figures
        .filter(|figures| figures.steps == steps)
        .map(|figures| figures.valid)
        .collect()
}

fn draw(svg: &mut String, runs: &[Finished], teacher: &Finished) -> Result<(), Failure> {
    let objectives = VARIANTS
        .iter()
        .filter(|variant| variant.group == Group::Objective)
        .map(|variant| {
            let mine: Vec<&Finished> = runs.iter().filter(|r| r.variant == variant.name).collect();
            (variant.name, mine)
        });
    let curves: Vec<(&str, Vec<&Finished>)> =
        objectives.chain([("the teacher", vec![teacher])]).collect();
    let most = curves
        .iter()
        .flat_map(|(_, runs)| STEPS.iter().flat_map(|&steps| shares(runs, steps)))
        .fold(0.01, f64::max);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(-0.2..3.2, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(4)
        .x_label_formatter(&|power: &f64| format!("{:.0}", power.exp2()))
        .y_label_formatter(&|share: &f64| format!("{:.0} %", share * 100.0))
        .light_line_style(TRANSPARENT)
        .x_desc("evaluations of the network per sample")
        .y_desc("valid samples: mean and range of the seeds")
        .draw()?;
    for ((name, runs), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<(f64, Vec<f64>)> = STEPS
            .iter()
            .map(|&steps| ((steps as f64).log2(), shares(runs, steps)))
            .filter(|(_, shares)| !shares.is_empty())
            .collect();
        let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len() as f64;
        chart
            .draw_series(LineSeries::new(
                points.iter().map(|(x, shares)| (*x, mean(shares))),
                colour.stroke_width(2),
            ))?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        for (x, shares) in &points {
            let ends = [f64::min, f64::max]
                .map(|end: fn(f64, f64) -> f64| shares.iter().copied().reduce(end));
            let ends = ends.into_iter().flatten().map(|share| (*x, share));
            chart.draw_series([PathElement::new(
                ends.collect::<Vec<_>>(),
                colour.stroke_width(1),
            )])?;
            chart.draw_series([Circle::new((*x, mean(shares)), 4, colour.filled())])?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(())
}
