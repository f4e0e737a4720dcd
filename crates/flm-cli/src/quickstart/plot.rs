//! Pictures of the report, as SVG that takes its ink from the page around it.

use super::report::Row;
use crate::stages::curve::Curve;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Legible on white and on black.
pub(super) const FLOW: RGBColor = RGBColor(0x1f, 0x8a, 0x9e);
pub(super) const FLOW_MAP: RGBColor = RGBColor(0xd9, 0x6c, 0x3b);
/// Stands for the page's text colour: replaced when the picture is done.
const INK: RGBColor = RGBColor(1, 2, 3);
const SIZE: (u32, u32) = (560, 320);
const FONT: (&str, u32) = ("sans-serif", 13);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure = Box<dyn std::error::Error>;

/// Share of valid samples against the number of steps, which doubles from one tick to the next.
pub(super) fn validity(rows: &[Row]) -> Result<String, Failure> {
    picture(|area| {
        let last = rows
            .iter()
            .map(|row| row.steps as f64)
            .fold(2.0, f64::max)
            .log2();
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(48)
            .build_cartesian_2d(-0.25..last + 0.25, 0.0..1.0)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.4))
            .label_style(ink())
            .x_desc("evaluations of the network per sample")
            .draw()?;
        let mut ticks: Vec<usize> = rows.iter().map(|row| row.steps).collect();
        ticks.sort_unstable();
        ticks.dedup();
        let below = ink().pos(Pos::new(HPos::Center, VPos::Top));
        for steps in ticks {
            let (x, y) = chart.backend_coord(&((steps as f64).log2(), 0.0));
            area.draw(&Text::new(steps.to_string(), (x, y + 5), below.clone()))?;
        }
        for (model, colour) in [("flm", FLOW), ("fmlm", FLOW_MAP)] {
            let mut points: Vec<(f64, f64)> = rows
                .iter()
                .filter(|row| row.model == model)
                .map(|row| ((row.steps as f64).log2(), row.valid))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            chart.draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?;
            chart.draw_series(
                points
                    .iter()
                    .map(|&point| Circle::new(point, 4, colour.filled())),
            )?;
        }
        Ok(())
    })
}

/// Losses against steps: thin lines in training, dots for the averaged weights on validation rows.
pub(super) fn losses(curves: &[(&Curve, RGBColor)]) -> Result<String, Failure> {
    picture(|area| {
        let all = || {
            curves
                .iter()
                .flat_map(|(curve, _)| curve.training.iter().chain(&curve.validation))
        };
        let steps = all().map(|point| point.0).fold(1.0, f64::max);
        let most = all().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..steps, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.4))
            .label_style(ink())
            .x_desc("training step")
            .draw()?;
        for (curve, colour) in curves {
            chart.draw_series(LineSeries::new(
                curve.training.iter().copied(),
                colour.stroke_width(1),
            ))?;
            chart.draw_series(
                curve
                    .validation
                    .iter()
                    .map(|&point| Circle::new(point, 4, colour.filled())),
            )?;
        }
        Ok(())
    })
}

fn ink() -> TextStyle<'static> {
    FONT.into_text_style(&SIZE).color(&INK)
}

fn picture(draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    // The page decides on the size, and on the ink.
    let (width, height) = SIZE;
    Ok(svg
        .replacen(&format!("width=\"{width}\" height=\"{height}\" "), "", 1)
        .replace("#010203", "currentColor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, steps: usize, valid: f64) -> Row {
        let (oracle_nats_per_token, entropy, distinct) = (1.0, 2.0, 1.0);
        Row {
            model: model.to_owned(),
            steps,
            samples: 10,
            valid,
            oracle_nats_per_token,
            entropy,
            distinct,
        }
    }

    #[test]
    fn a_picture_has_a_dot_for_each_row_and_no_colour_of_its_own_for_text() {
        let svg = validity(&[
            row("flm", 1, 0.0),
            row("flm", 128, 0.7),
            row("fmlm", 4, 0.6),
        ])
        .unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(
            svg.contains("currentColor") && !svg.contains("#000000") && !svg.contains("#010203"),
            "{svg}"
        );
    }

    #[test]
    fn no_losses_are_no_failure() {
        assert!(
            losses(&[(&Curve::default(), FLOW)])
                .unwrap()
                .starts_with("<svg")
        );
    }
}
