//! Plots of runs, as SVG in the text colour of the surrounding page.

use crate::curve::Curve;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Legible on white and on black.
pub(crate) const FLOW: RGBColor = RGBColor(0x1f, 0x8a, 0x9e);
pub(crate) const FLOW_MAP: RGBColor = RGBColor(0xd9, 0x6c, 0x3b);
/// A placeholder for the page's text colour, replaced when the plot is done.
pub(crate) const INK: RGBColor = RGBColor(1, 2, 3);
const SIZE: (u32, u32) = (560, 320);
const FONT: (&str, u32) = ("sans-serif", 13);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Lower bound of the loss axis range, so that the axis has a length.
const LEAST: f64 = 1e-6;

/// Plots losses over steps: a thin line for training, dots for the averaged weights on validation
/// rows.
pub(crate) fn losses(curves: &[(&Curve, RGBColor)]) -> Result<String, Failure> {
    picture(|area| {
        let all = || {
            curves
                .iter()
                .flat_map(|(curve, _)| curve.training.iter().chain(&curve.validation))
        };
        let steps = all().map(|point| point.0).fold(1.0, f64::max);
        let finite = all().map(|point| point.1).filter(|loss| loss.is_finite());
        let most = finite.fold(LEAST, f64::max);
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

/// The frontier of a model at one number of steps.
pub(crate) struct FrontierLine {
    /// Index of the model; lines of one model share a colour.
    pub(crate) model: usize,
    pub(crate) label: String,
    /// Entropy and nats at every setting.
    pub(crate) points: Vec<(f64, f64)>,
    /// The points that no other beats in both.
    pub(crate) front: Vec<(f64, f64)>,
}

/// Plots nats over entropy: a dot per setting, a line along each frontier, and a vertical line at
/// the data's entropy.
pub(crate) fn frontier(
    lines: &[FrontierLine],
    data_entropy: Option<f64>,
) -> Result<String, Failure> {
    const COLOURS: [RGBColor; 4] = [
        FLOW,
        FLOW_MAP,
        RGBColor(0x7a, 0x5c, 0xc4),
        RGBColor(0x5f, 0x8f, 0x2f),
    ];
    picture(|area| {
        let points = || lines.iter().flat_map(|line| &line.points);
        let range = |values: Vec<f64>| {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let room = (0.08 * (high - low)).max(0.05);
            low - room..high + room
        };
        let entropies = points().map(|point| point.0).chain(data_entropy).collect();
        let nats = range(points().map(|point| point.1).collect());
        let (low, high) = (nats.start, nats.end);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(48)
            .build_cartesian_2d(range(entropies), nats)?;
        chart
            .configure_mesh()
            .x_labels(6)
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.4))
            .label_style(ink())
            .x_desc("unigram entropy of a sample, nats")
            .y_desc("nats per token")
            .draw()?;
        if let Some(entropy) = data_entropy {
            let upright = [(entropy, low), (entropy, high)];
            chart.draw_series(LineSeries::new(upright, INK.mix(0.5)))?;
        }
        for line in lines {
            let colour = COLOURS[line.model % COLOURS.len()];
            chart.draw_series(
                (line.points.iter()).map(|&point| Circle::new(point, 3, colour.filled())),
            )?;
            let front = line.front.iter().copied();
            chart
                .draw_series(LineSeries::new(front, colour.stroke_width(2)))?
                .label(line.label.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(ink())
            .draw()?;
        Ok(())
    })
}

/// Makes a plot a standalone file, with a white background and a fixed size.
pub(crate) fn standalone(svg: &str) -> String {
    let (width, height) = SIZE;
    let own =
        format!("<svg width=\"{width}\" height=\"{height}\" style=\"background:#fff;color:#222\" ");
    svg.replacen("<svg ", &own, 1)
}

pub(crate) fn ink() -> TextStyle<'static> {
    FONT.into_text_style(&SIZE).color(&INK)
}

/// Draws a plot and returns it as SVG.
pub(crate) fn picture(
    draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    // The page sets the size and the text colour.
    let (width, height) = SIZE;
    Ok(svg
        .replacen(&format!("width=\"{width}\" height=\"{height}\" "), "", 1)
        .replace("#010203", "currentColor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_losses_are_no_failure() {
        assert!(
            losses(&[(&Curve::default(), FLOW)])
                .unwrap()
                .starts_with("<svg")
        );
    }

    #[test]
    fn losses_of_nothing_and_beyond_all_are_drawn() {
        let curve = Curve {
            training: vec![(1.0, -1e-7), (2.0, f64::INFINITY)],
            validation: vec![(2.0, -0.0)],
        };
        assert!(losses(&[(&curve, FLOW)]).is_ok());
    }

    #[test]
    fn a_picture_of_its_own_has_a_ground() {
        let svg = standalone(&losses(&[(&Curve::default(), FLOW)]).unwrap());
        assert!(svg.starts_with(
            "<svg width=\"560\" height=\"320\" style=\"background:#fff;color:#222\" "
        ));
        assert!(svg.contains("xmlns"), "{svg}");
    }
}
