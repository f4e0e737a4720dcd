//! How training and sampling time is spread over τ.

/// An error for a table that does not define a clock.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "a clock needs at least two strictly increasing times τ in [0, 1] that end at 1, found {found:?}"
)]
pub struct ClockError {
    /// The given table.
    pub found: Vec<f64>,
}

/// Network times τ at equal steps of training and sampling, with linear interpolation between them.
///
/// The even clock, which is the published one, draws training times uniformly in τ and steps
/// samplers uniformly in τ. Other clocks spend more time where more is decided. A clock that starts
/// after τ = 0 skips the time in which noise hides everything. Its [`start`](Self::start) is
/// positive, and samplers start from (1−t)·x₀ at the t of that τ.
///
/// ```
/// use flm_simplex::Clock;
///
/// let clock = Clock::new(vec![0.0, 0.25, 1.0])?;
/// assert_eq!(clock.grid(4), [0.0, 0.125, 0.25, 0.625, 1.0]);
/// # Ok::<(), flm_simplex::ClockError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Clock(Vec<f64>);

impl Clock {
    /// Creates the clock with `taus` at equal steps.
    ///
    /// # Errors
    ///
    /// [`ClockError`] unless `taus` has at least two strictly increasing values in \[0, 1\] that
    /// end at 1.
    pub fn new(taus: Vec<f64>) -> Result<Self, ClockError> {
        let rises = taus.is_sorted_by(|before, after| before < after);
        let begins = taus.first().is_some_and(|tau| (0.0..1.0).contains(tau));
        if rises && begins && taus.last() == Some(&1.0) {
            Ok(Self(taus))
        } else {
            Err(ClockError { found: taus })
        }
    }

    /// Returns the clock that is uniform in τ.
    pub fn even() -> Self {
        Self(vec![0.0, 1.0])
    }

    /// Returns τ at equal steps.
    pub fn taus(&self) -> &[f64] {
        &self.0
    }

    /// Returns the first τ.
    pub fn start(&self) -> f64 {
        self.0[0]
    }

    /// Returns τ at the fraction `share` of the whole time; a share outside \[0, 1\] is clamped.
    pub fn tau(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        let at = share.clamp(0.0, 1.0) * last as f64;
        let below = (at.floor() as usize).min(last - 1);
        let [low, high] = [self.0[below], self.0[below + 1]];
        low + (high - low) * (at - below as f64)
    }

    /// Returns the fraction of the whole time elapsed at `tau`, the inverse of [`tau`](Self::tau);
    /// 0 before the start.
    pub fn share(&self, tau: f64) -> f64 {
        let last = self.0.len() - 1;
        let above = self.0.partition_point(|step| *step < tau).clamp(1, last);
        let [low, high] = [self.0[above - 1], self.0[above]];
        let part = ((tau - low) / (high - low)).clamp(0.0, 1.0);
        ((above - 1) as f64 + part) / last as f64
    }

    /// Returns the `steps + 1` times τ between which a sampler steps.
    pub fn grid(&self, steps: usize) -> Vec<f64> {
        let even = crate::times::grid(steps);
        even.into_iter().map(|share| self.tau(share)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_clock_is_tau_to_the_bit() {
        let clock = Clock::even();
        assert_eq!(clock.grid(7), crate::times::grid(7));
        assert_eq!(clock.tau(0.1), 0.1);
        assert_eq!([clock.tau(-1.0), clock.tau(2.0)], [0.0, 1.0]);
    }

    #[test]
    fn times_lie_on_the_lines_between() {
        let clock = Clock::new(vec![0.1, 0.2, 0.6, 1.0]).unwrap();
        assert_eq!(clock.start(), 0.1);
        for (share, tau) in [(0.0, 0.1), (1.0 / 6.0, 0.15), (0.5, 0.4), (1.0, 1.0)] {
            assert!((clock.tau(share) - tau).abs() < 1e-12, "{share}");
            assert!((clock.share(tau) - share).abs() < 1e-12, "{share}");
        }
        assert_eq!([clock.share(0.0), clock.share(1.0)], [0.0, 1.0]);
    }

    #[test]
    fn tables_that_tell_no_time_are_refused() {
        let bad: [&[f64]; 9] = [
            &[0.0, 0.0, 1.0],
            &[0.0, 1.0, 1.0],
            &[1.0, 1.0],
            &[],
            &[1.0],
            &[0.5, 0.4, 1.0],
            &[0.0, 0.9],
            &[-0.1, 1.0],
            &[0.0, f64::NAN, 1.0],
        ];
        for taus in bad {
            assert!(Clock::new(taus.to_vec()).is_err(), "{taus:?}");
        }
    }
}
