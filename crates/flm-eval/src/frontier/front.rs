//! The best quality of a model at each entropy.

use serde::Serialize;

use super::{Curve, FrontierError, Point};

/// The Pareto front of a [`Curve`]: its non-dominated points.
///
/// A point dominates another if it has at least its entropy and at most its nats, and is better in
/// one of them. So nats rise with entropy along the front.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Front {
    label: String,
    /// Strictly increasing in entropy and nats.
    points: Vec<Point>,
}

impl Front {
    /// Keeps the non-dominated points, and the first of several equal points.
    ///
    /// # Errors
    ///
    /// Returns [`FrontierError::NoPoints`] for an empty curve, and [`FrontierError::NotFinite`] for
    /// a point that is not finite.
    pub fn of(curve: &Curve) -> Result<Self, FrontierError> {
        let label = curve.label.clone();
        let is_broken = |point: &Point| !(point.entropy.is_finite() && point.nats.is_finite());
        if let Some(index) = curve.points.iter().position(is_broken) {
            let Point { entropy, nats, .. } = curve.points[index];
            return Err(FrontierError::NotFinite {
                label,
                index,
                entropy,
                nats,
            });
        }
        if curve.points.is_empty() {
            return Err(FrontierError::NoPoints { label });
        }
        let mut sorted = curve.points.clone();
        // The sort is stable, so the first of equal points stays first.
        sorted.sort_by(|a, b| {
            let by_nats = a.nats.total_cmp(&b.nats);
            b.entropy.total_cmp(&a.entropy).then(by_nats)
        });
        let mut points: Vec<Point> = Vec::new();
        for point in sorted {
            if points.last().is_none_or(|last| point.nats < last.nats) {
                points.push(point);
            }
        }
        points.reverse();
        Ok(Self { label, points })
    }

    /// Returns the model's name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the points by increasing entropy and nats. There is at least one.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Returns the lowest and the highest entropy of the front, in nats.
    pub fn range(&self) -> (f64, f64) {
        let entropy = |point: Option<&Point>| point.map_or(f64::NAN, |point| point.entropy);
        (entropy(self.points.first()), entropy(self.points.last()))
    }

    /// Returns nats per token at an entropy, interpolated linearly between the neighbouring points.
    ///
    /// Returns `None` outside [`range`](Self::range), where the model was not measured.
    pub fn nats_at(&self, entropy: f64) -> Option<f64> {
        let above = self.points.partition_point(|p| p.entropy < entropy);
        let right = self.points.get(above)?;
        if right.entropy == entropy {
            return Some(right.nats);
        }
        let left = &self.points[above.checked_sub(1)?];
        let share = (entropy - left.entropy) / (right.entropy - left.entropy);
        Some(left.nats + share * (right.nats - left.nats))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn curve(label: &str, figures: &[(f64, f64)]) -> Curve {
        let point = |(steps, &(entropy, nats))| Point {
            steps,
            gamma: None,
            temperature: None,
            entropy,
            nats,
        };
        Curve {
            label: label.to_owned(),
            points: (1..).zip(figures).map(point).collect(),
        }
    }

    pub(crate) fn front(figures: &[(f64, f64)]) -> Front {
        Front::of(&curve("model", figures)).unwrap()
    }

    fn figures(front: &Front) -> Vec<(f64, f64)> {
        (front.points().iter())
            .map(|p| (p.entropy, p.nats))
            .collect()
    }

    #[test]
    fn beaten_points_are_left_out() {
        // (3.5, 5) has less entropy and more nats than (4, 4). (4, 4.5) has equal entropy and
        // more nats.
        let front = front(&[(5.0, 6.0), (3.5, 5.0), (4.0, 4.5), (4.0, 4.0), (3.0, 3.0)]);
        assert_eq!(figures(&front), [(3.0, 3.0), (4.0, 4.0), (5.0, 6.0)]);
        assert_eq!(front.range(), (3.0, 5.0));
        assert_eq!(front.label(), "model");
    }

    #[test]
    fn of_equal_points_the_first_stays() {
        let front = front(&[(4.0, 4.0), (4.0, 4.0)]);
        assert_eq!(front.points().len(), 1);
        assert_eq!(front.points()[0].steps, 1);
    }

    #[test]
    fn between_points_nats_are_linear_and_outside_there_are_none() {
        let front = front(&[(3.0, 3.0), (4.0, 4.0), (5.0, 6.0)]);
        assert_eq!(front.nats_at(3.25), Some(3.25));
        assert_eq!(front.nats_at(4.5), Some(5.0));
        for outside in [2.9, 5.1, f64::NAN, f64::INFINITY] {
            assert_eq!(front.nats_at(outside), None, "{outside}");
        }
    }

    #[test]
    fn what_is_no_curve_is_an_error() {
        let error = |figures: &[_]| Front::of(&curve("m", figures)).unwrap_err().to_string();
        assert_eq!(error(&[]), "expected at least one point of m, found none");
        assert_eq!(
            error(&[(1.0, 1.0), (2.0, f64::INFINITY)]),
            "expected finite figures in point 1 of m, found an entropy of 2 and inf nats"
        );
    }

    #[test]
    fn points_read_without_the_settings_they_lack() {
        let point: Point =
            serde_json::from_str(r#"{"steps": 4, "entropy": 4.2, "nats": 4.7}"#).unwrap();
        assert_eq!((point.gamma, point.temperature), (None, None));
    }

    proptest! {
        #[test]
        fn the_front_rises_reproduces_its_points_and_is_beaten_by_none(
            // A coarse grid produces ties in both values.
            figures in prop::collection::vec((0_u8..12, 0_u8..12), 1..20),
        ) {
            let figures: Vec<_> = (figures.iter())
                .map(|&(entropy, nats)| (f64::from(entropy) / 4.0, f64::from(nats) / 3.0))
                .collect();
            let front = front(&figures);
            for pair in front.points().windows(2) {
                prop_assert!(pair[0].entropy < pair[1].entropy && pair[0].nats < pair[1].nats);
            }
            for point in front.points() {
                prop_assert_eq!(front.nats_at(point.entropy), Some(point.nats));
            }
            for (entropy, nats) in figures {
                let is_reached = |p: &Point| p.entropy >= entropy && p.nats <= nats;
                prop_assert!(front.points().iter().any(is_reached));
            }
        }
    }
}
