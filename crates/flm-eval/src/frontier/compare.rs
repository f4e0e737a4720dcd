//! Comparison of Pareto fronts.

use serde::{Deserialize, Serialize};

use super::{Front, FrontierError};

/// A comparison of several models at equal entropies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The models' names. Other lists have the same order.
    pub labels: Vec<String>,
    /// The lowest entropy that all models cover, in nats.
    pub from: f64,
    /// The highest entropy that all models cover, in nats.
    pub to: f64,
    /// Nats per token at evenly spaced entropies from `from` to `to`.
    pub grid: Vec<Row>,
    /// The models at the entropy of the data, if it was given.
    ///
    /// It may lie outside the common range. Models that do not cover it have `None`.
    pub data: Option<Row>,
    /// The gap of each model to the first.
    pub gaps: Vec<Gap>,
}

/// The models at one entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The entropy, in nats.
    pub entropy: f64,
    /// Nats per token of each model; `None`, null in JSON, where the model was not measured.
    pub nats: Vec<Option<f64>>,
}

/// The extra nats per token of a model compared with the first. Negative values mean that the model
/// is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The model's name.
    pub label: String,
    /// Mean gap over the entropies from [`from`](Comparison::from) to [`to`](Comparison::to).
    ///
    /// It is the exact integral divided by the width of the range, not a mean over the grid. Its
    /// exponential is the ratio of perplexities, as a geometric mean over the range.
    pub mean: f64,
    /// The gap at the entropy of the data, if both models cover it.
    pub data: Option<f64>,
}

impl Comparison {
    /// Compares models over the entropies that all of them cover.
    ///
    /// Returns `None` if the models have no entropy in common.
    ///
    /// The result has `grid` rows, including both ends, or at most one row if the range is a
    /// single entropy.
    ///
    /// # Errors
    ///
    /// Returns [`FrontierError::TooFew`] for fewer than two fronts.
    pub fn of(
        fronts: &[Front],
        data_entropy: Option<f64>,
        grid: usize,
    ) -> Result<Option<Self>, FrontierError> {
        let [first, _, ..] = fronts else {
            let found = fronts.len();
            return Err(FrontierError::TooFew { found });
        };
        let ranges = || fronts.iter().map(Front::range);
        let from = ranges().map(|range| range.0).fold(f64::MIN, f64::max);
        let to = ranges().map(|range| range.1).fold(f64::MAX, f64::min);
        if from > to {
            return Ok(None);
        }
        let row = |entropy| Row {
            entropy,
            nats: fronts.iter().map(|front| front.nats_at(entropy)).collect(),
        };
        let data = data_entropy.map(row);
        let gap_at_data = |model: usize| {
            let nats = &data.as_ref()?.nats;
            Some(nats[model]? - nats[0]?)
        };
        let gaps = (fronts.iter().enumerate())
            .map(|(model, front)| Gap {
                label: front.label().to_owned(),
                mean: front.mean_nats(from, to) - first.mean_nats(from, to),
                data: gap_at_data(model),
            })
            .collect();
        Ok(Some(Self {
            labels: fronts.iter().map(|f| f.label().to_owned()).collect(),
            from,
            to,
            grid: spaced(from, to, grid).into_iter().map(row).collect(),
            gaps,
            data,
        }))
    }
}

impl Front {
    /// Returns the mean of [`nats_at`](Self::nats_at) over a range that the front covers.
    fn mean_nats(&self, from: f64, to: f64) -> f64 {
        let end = |entropy| self.nats_at(entropy).map(|nats| (entropy, nats));
        let within = (self.points().iter())
            .filter(|p| from < p.entropy && p.entropy < to)
            .map(|p| (p.entropy, p.nats));
        let line: Vec<_> = (end(from).into_iter().chain(within).chain(end(to))).collect();
        if from == to {
            return line[0].1;
        }
        let trapezoid = |pair: &[(f64, f64)]| {
            let [(x, a), (y, b)] = [pair[0], pair[1]];
            (y - x) * (a + b) / 2.0
        };
        line.windows(2).map(trapezoid).sum::<f64>() / (to - from)
    }
}

/// Returns `count` evenly spaced numbers from `from` to `to`, inclusive.
fn spaced(from: f64, to: f64, count: usize) -> Vec<f64> {
    if from == to {
        return vec![from; count.min(1)];
    }
    let last = count.saturating_sub(1).max(1);
    (0..count)
        .map(|i| match i {
            // Exact, because rounding must not leave the range.
            _ if i == last => to,
            _ => from + (to - from) * (i as f64 / last as f64),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::front::tests::front;
    use super::*;

    fn compare(fronts: &[Front], data: Option<f64>) -> Option<Comparison> {
        Comparison::of(fronts, data, 5).unwrap()
    }

    #[test]
    fn identical_curves_have_no_gap() {
        let one = front(&[(3.0, 3.0), (4.0, 4.0), (5.0, 6.0)]);
        let comparison = compare(&[one.clone(), one.clone(), one], Some(4.5)).unwrap();
        for gap in &comparison.gaps {
            assert_eq!((gap.mean, gap.data), (0.0, Some(0.0)));
        }
        assert_eq!((comparison.from, comparison.to), (3.0, 5.0));
        let entropies: Vec<f64> = comparison.grid.iter().map(|row| row.entropy).collect();
        assert_eq!(entropies, [3.0, 3.5, 4.0, 4.5, 5.0]);
        assert_eq!(comparison.grid[3].nats, [Some(5.0); 3]);
        assert_eq!(comparison.data, Some(comparison.grid[3].clone()));
    }

    #[test]
    fn a_curve_higher_by_a_half_has_a_gap_of_a_half() {
        let low = front(&[(3.0, 3.0), (4.0, 4.0), (5.0, 6.0)]);
        let high = front(&[(3.0, 3.5), (4.0, 4.5), (5.0, 6.5)]);
        let comparison = compare(&[low.clone(), high.clone()], None).unwrap();
        assert_eq!(comparison.gaps[1].mean, 0.5);
        assert_eq!((comparison.gaps[1].data, &comparison.data), (None, &None));
        assert_eq!(compare(&[high, low], None).unwrap().gaps[1].mean, -0.5);
    }

    #[test]
    fn the_mean_gap_is_the_integral_whatever_the_grid() {
        // Both cover [0, 2] with kinks at different entropies.
        let line = front(&[(0.0, 0.0), (2.0, 2.0)]);
        let bent = front(&[(0.0, 0.0), (1.5, 0.5), (2.0, 2.0), (3.0, 9.0)]);
        for grid in [0, 1, 2, 7] {
            let fronts = [line.clone(), bent.clone()];
            let comparison = Comparison::of(&fronts, None, grid).unwrap().unwrap();
            // Areas 2, and 0.375 + 0.625.
            assert_eq!(comparison.gaps[1].mean, (1.0 - 2.0) / 2.0);
            assert_eq!(comparison.grid.len(), grid);
        }
    }

    #[test]
    fn disjoint_ranges_do_not_compare() {
        let (low, high) = (front(&[(3.0, 3.0), (4.0, 4.0)]), front(&[(4.1, 4.0)]));
        assert_eq!(compare(&[low, high], Some(4.0)), None);
    }

    #[test]
    fn ranges_that_touch_compare_at_one_entropy() {
        let low = front(&[(3.0, 3.0), (4.0, 4.0)]);
        let high = front(&[(4.0, 3.75), (5.0, 5.0)]);
        let comparison = compare(&[low, high], Some(4.5)).unwrap();
        assert_eq!((comparison.from, comparison.to), (4.0, 4.0));
        assert_eq!(comparison.grid.len(), 1);
        assert_eq!(comparison.gaps[1].mean, -0.25);
        // Only the second was measured at 4.5.
        assert_eq!(comparison.data.unwrap().nats, [None, Some(4.375)]);
        assert_eq!(comparison.gaps[1].data, None);
    }

    #[test]
    fn one_model_does_not_compare() {
        let error = Comparison::of(&[front(&[(1.0, 1.0)])], None, 3).unwrap_err();
        let message = "expected at least two models to compare, found 1";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn what_is_not_measured_is_null_in_json_and_reads_again() {
        let fronts = [
            front(&[(3.0, 3.0), (4.0, 4.0)]),
            front(&[(3.0, 3.0), (5.0, 5.0)]),
        ];
        let comparison = compare(&fronts, Some(4.5)).unwrap();
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["data"]["nats"], serde_json::json!([null, 4.5]));
        assert_eq!(
            serde_json::from_value::<Comparison>(json).unwrap(),
            comparison
        );
    }

    proptest! {
        #[test]
        fn the_mean_gap_lies_within_the_gaps_and_changes_sign_with_the_order(
            one in prop::collection::vec((0.0..5.0, 0.0..9.0), 1..9),
            other in prop::collection::vec((0.0..5.0, 0.0..9.0), 1..9),
        ) {
            let (one, other) = (front(&one), front(&other));
            let forth = compare(&[one.clone(), other.clone()], None);
            let back = compare(&[other.clone(), one.clone()], None);
            prop_assert_eq!(forth.is_some(), back.is_some());
            let Some((forth, back)) = forth.zip(back) else { return Ok(()) };
            prop_assert!((forth.gaps[1].mean + back.gaps[1].mean).abs() < 1e-9);
            // A piecewise linear difference has its extremes at its kinks and ends.
            let (from, to) = (forth.from, forth.to);
            let kinks = one.points().iter().chain(other.points()).map(|p| p.entropy);
            let gaps: Vec<f64> = kinks
                .filter(|entropy| (from..=to).contains(entropy))
                .map(|entropy| other.nats_at(entropy).unwrap() - one.nats_at(entropy).unwrap())
                .collect();
            let least = gaps.iter().copied().fold(f64::INFINITY, f64::min);
            let most = gaps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            // Far above the rounding error of sums of at most 18 terms below 9.
            let slack = 1e-9;
            prop_assert!((least - slack..=most + slack).contains(&forth.gaps[1].mean));
            for row in forth.grid {
                prop_assert!(row.nats.iter().all(Option::is_some));
            }
        }
    }
}
