//! A clock fitted to the losses: training and samplers spend their time where the loss falls.
//!
//! With the best clock the loss falls by equal amounts in equal time (LangFlow; `mathematics.md`,
//! section 2). The losses of past rows are averaged in bins of τ, with decaying weights. The
//! averages are smoothed and made non-increasing. They give the share of the total fall that lies
//! before each τ; the clock is the inverse of that function.

use flm_simplex::Clock;
use serde::{Deserialize, Serialize};

/// Number of bins of τ, and of steps of the fitted clock.
const BINS: usize = 64;
/// Number of steps after which the weight of a loss is 1/e.
const MEMORY: f64 = 1_000.0;
/// Standard deviation of the smoothing, in bins.
const SMOOTHING: f64 = 1.5;
/// Share of the time that is spread evenly over τ.
const EVEN: f64 = 0.1;

/// Losses of past rows by τ, and the clock as last fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FittedClock {
    /// Number of losses in each bin, with decayed weights.
    counts: Vec<f64>,
    /// Sum of the losses in each bin, with the same weights.
    sums: Vec<f64>,
    /// τ at equal steps of the clock.
    taus: Vec<f64>,
}

/// The error for an invalid clock in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("its fitted clock is damaged")]
pub(crate) struct DamagedClock;

impl FittedClock {
    /// Creates a fit without losses that starts from `clock`.
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            counts: vec![0.0; BINS],
            sums: vec![0.0; BINS],
            taus: clock.taus().to_vec(),
        }
    }

    /// Returns the clock as last fitted.
    pub(crate) fn clock(&self) -> Clock {
        Clock::new(self.taus.clone()).expect("a fitted clock is valid")
    }

    /// Returns `self` if it is valid.
    pub(crate) fn checked(self) -> Result<Self, DamagedClock> {
        let numbers = self.counts.iter().chain(&self.sums);
        let bins = [self.counts.len(), self.sums.len()] == [BINS; 2];
        let valid =
            bins && numbers.copied().all(f64::is_finite) && Clock::new(self.taus.clone()).is_ok();
        valid.then_some(self).ok_or(DamagedClock)
    }

    /// Decays past losses and adds the rows of a step, each with its τ and its loss.
    pub(crate) fn add(&mut self, rows: &[(f64, f64)]) {
        let left = (-1.0 / MEMORY).exp();
        for value in self.counts.iter_mut().chain(&mut self.sums) {
            *value *= left;
        }
        for (tau, loss) in rows {
            let bin = ((tau * BINS as f64) as usize).min(BINS - 1);
            self.counts[bin] += 1.0;
            self.sums[bin] += loss;
        }
    }

    /// Moves the clock halfway to the best one for the losses, with the same start. Without losses
    /// it stays.
    pub(crate) fn refit(&mut self) {
        let old = self.clock();
        let Some(asked) = self.asked(old.start()) else {
            return;
        };
        let step = |index: usize| {
            let share = index as f64 / BINS as f64;
            (old.tau(share) + asked.tau(share)) / 2.0
        };
        self.taus = (0..BINS).map(step).collect();
        self.taus.push(1.0);
    }

    /// Returns the clock for which the smoothed loss falls evenly from τ = `start` on, except for
    /// the evenly spread share [`EVEN`]. `None` if a bin has no losses nearby.
    fn asked(&self, start: f64) -> Option<Clock> {
        // There are no losses before the start.
        let first = ((start * BINS as f64) as usize).min(BINS - 2);
        let losses = falling(&self.smoothed(first)?);
        // The loss at the centers of the bins, interpolated linearly between them and extrapolated
        // at the ends.
        let fall = |tau: f64| {
            let at = tau * BINS as f64 - 0.5 - first as f64;
            let below = (at.floor().max(0.0) as usize).min(losses.len() - 2);
            losses[below] + (losses[below + 1] - losses[below]) * (at - below as f64)
        };
        let whole = fall(start) - fall(1.0);
        let points = 8 * BINS;
        let tau = |point: usize| start + (1.0 - start) * point as f64 / points as f64;
        let spent = |point: usize| {
            let even = point as f64 / points as f64;
            let fallen = if whole > 0.0 {
                (fall(start) - fall(tau(point))) / whole
            } else {
                even
            };
            (1.0 - EVEN) * fallen + EVEN * even
        };
        let mut taus = Vec::with_capacity(BINS + 1);
        let mut point = 0;
        for step in 0..BINS {
            let share = step as f64 / BINS as f64;
            while spent(point + 1) < share {
                point += 1;
            }
            let (low, high) = (spent(point), spent(point + 1));
            let part = ((share - low) / (high - low)).clamp(0.0, 1.0);
            taus.push(tau(point) + (tau(point + 1) - tau(point)) * part);
        }
        taus.push(1.0);
        Clock::new(taus).ok()
    }

    /// Returns the smoothed mean losses of the bins from `first` on, or `None` if a bin has no
    /// losses nearby.
    fn smoothed(&self, first: usize) -> Option<Vec<f64>> {
        let smoothed = (first..BINS).map(|bin| {
            let (mut sum, mut count) = (0.0, 0.0);
            for other in first..BINS {
                let distance = bin.abs_diff(other) as f64 / SMOOTHING;
                let weight = (-0.5 * distance * distance).exp();
                sum += weight * self.sums[other];
                count += weight * self.counts[other];
            }
            (count > 1e-6).then(|| sum / count)
        });
        smoothed.collect()
    }
}

/// Returns the non-increasing sequence nearest to `values` by squared distance: adjacent values
/// that rise are replaced by their mean.
fn falling(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for value in values {
        let mut pool = (*value, 1);
        while let Some(&(mean, count)) = pools.last().filter(|(mean, _)| *mean < pool.0) {
            let total = count + pool.1;
            let sum = mean * count as f64 + pool.0 * pool.1 as f64;
            pool = (sum / total as f64, total);
            pools.pop();
        }
        pools.push(pool);
    }
    let spread = |(mean, count): (f64, usize)| std::iter::repeat_n(mean, count);
    pools.into_iter().flat_map(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fits a clock repeatedly to rows of the loss `loss`.
    fn fitted(start: Clock, loss: fn(f64) -> f64) -> FittedClock {
        let mut fitted = FittedClock::new(&start);
        let rows: Vec<(f64, f64)> = (0..2_000)
            .map(|row| f64::from(row) / 2_000.0)
            .filter(|tau| *tau >= start.start())
            .map(|tau| (tau, loss(tau)))
            .collect();
        for _ in 0..20 {
            fitted.add(&rows);
            fitted.refit();
        }
        fitted
    }

    #[test]
    fn a_loss_that_falls_evenly_needs_an_even_clock() {
        let clock = fitted(Clock::even(), |tau| 3.0 - 2.0 * tau).clock();
        for share in [0.0, 0.1, 0.5, 0.9, 1.0] {
            // Smoothing flattens the ends.
            let found = clock.tau(share);
            assert!((found - share).abs() < 0.02, "{share} {found}");
        }
    }

    #[test]
    fn the_time_is_spent_where_the_loss_falls() {
        // All of the fall lies in the middle fifth.
        let loss = |tau: f64| 1.0 - ((tau - 0.4) / 0.2).clamp(0.0, 1.0);
        let clock = fitted(Clock::even(), loss).clock();
        // The bounds allow for the even tenth of the time and for the smoothing.
        assert!(clock.tau(0.1) > 0.35, "{}", clock.tau(0.1));
        assert!(clock.tau(0.9) < 0.65, "{}", clock.tau(0.9));
        assert!((clock.tau(0.5) - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_clock_begins_where_it_began() {
        let start = Clock::new(vec![0.2, 1.0]).unwrap();
        // All of the fall lies between 0.7 and 0.8.
        let loss = |tau: f64| 1.0 - ((tau - 0.7) / 0.1).clamp(0.0, 1.0);
        let clock = fitted(start, loss).clock();
        assert_eq!(clock.start(), 0.2);
        assert!(clock.tau(0.1) > 0.6, "{}", clock.tau(0.1));
        assert!((clock.tau(0.5) - 0.75).abs() < 0.01, "{}", clock.tau(0.5));
    }

    #[test]
    fn losses_that_rise_are_pooled() {
        assert_eq!(
            falling(&[4.0, 1.0, 2.0, 3.0, 0.0]),
            [4.0, 2.0, 2.0, 2.0, 0.0]
        );
        let clock = fitted(Clock::even(), |tau| tau).clock();
        assert!((clock.tau(0.3) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_damaged_clock_is_found() {
        let whole = fitted(Clock::even(), |tau| 1.0 - tau);
        assert_eq!(whole.clone().checked(), Ok(whole.clone()));
        let mut short = whole.clone();
        short.counts.pop();
        let mut falling = whole.clone();
        falling.taus.swap(1, 2);
        for damaged in [short, falling] {
            assert_eq!(damaged.checked(), Err(DamagedClock));
        }
    }

    #[test]
    fn without_losses_the_clock_stays() {
        let mut fitted = FittedClock::new(&Clock::even());
        fitted.refit();
        assert_eq!(fitted.clock(), Clock::even());
    }
}
