//! How the time of training and of samplers is spread over τ.

/// A table that tells no clock.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "a clock needs two or more times τ from 0 to 1, each later than the one before and the last of them 1, found {found:?}"
)]
pub struct ClockError {
    /// The table given.
    pub found: Vec<f64>,
}

/// The network's time τ at equal steps of training and sampling, piecewise linear between them.
///
/// An even clock, the published one, draws training times uniformly in τ and lets samplers step uniformly in τ. Another one spends more time where
/// more is decided. One that begins later than τ = 0 leaves out the time in which noise hides everything: there [`start`](Self::start) is
/// positive, and samplers begin with (1−t)·x₀ at the t of that τ.
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
    /// The clock with these τ at equal steps.
    ///
    /// # Errors
    ///
    /// [`ClockError`] if they do not lead up to 1.
    pub fn new(taus: Vec<f64>) -> Result<Self, ClockError> {
        let rises = taus.is_sorted_by(|before, after| before < after);
        let begins = taus.first().is_some_and(|tau| (0.0..1.0).contains(tau));
        if rises && begins && taus.last() == Some(&1.0) {
            Ok(Self(taus))
        } else {
            Err(ClockError { found: taus })
        }
    }

    /// The clock that is τ itself.
    pub fn even() -> Self {
        Self(vec![0.0, 1.0])
    }

    /// Its τ at equal steps.
    pub fn taus(&self) -> &[f64] {
        &self.0
    }

    /// The τ it begins with.
    pub fn start(&self) -> f64 {
        self.0[0]
    }

    /// τ at the share `share` of the whole time; a share outside \[0, 1\] counts as the nearer end.
    pub fn tau(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        let at = share.clamp(0.0, 1.0) * last as f64;
        let below = (at.floor() as usize).min(last - 1);
        let [low, high] = [self.0[below], self.0[below + 1]];
        low + (high - low) * (at - below as f64)
    }

    /// The share of the whole time that is over at `tau`, which [`tau`](Self::tau) undoes; before the start it is 0.
    pub fn share(&self, tau: f64) -> f64 {
        let last = self.0.len() - 1;
        let above = self.0.partition_point(|step| *step < tau).clamp(1, last);
        let [low, high] = [self.0[above - 1], self.0[above]];
        let part = ((tau - low) / (high - low)).clamp(0.0, 1.0);
        ((above - 1) as f64 + part) / last as f64
    }

    /// The `steps + 1` times τ between which a sampler steps.
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
