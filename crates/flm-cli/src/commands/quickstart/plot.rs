//! The validity plot of the report.

use super::report::Row;
use crate::plot::{FLOW, FLOW_MAP, Failure, INK, ink, picture};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Plots the share of valid samples over the number of steps, on a logarithmic scale.
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
            .x_desc("network evaluations per sample")
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
            frame_divergence: None,
            frame_recall: None,
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
}
