//! The decoding-error schedule: the time τ of the network and the samplers.

use crate::clock::Clock;
use crate::decoding::DecodingQuadrature;
use crate::spline::CubicSpline;

/// Number of points in the table, uniform in t, as in the reference.
const POINTS: usize = 10_000;

/// The reference adds (t−1) times this to τ(t). Once the noisy state decodes without error, τ is
/// flat to rounding. The tilt (1e-14 from one point to the next, about ninety units in the last
/// place) keeps the inverse well defined.
const MONOTONE_TILT: f64 = 1e-10;

/// An error in the request for a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A single token always decodes correctly, so its decoding error defines no time.
    #[error("a schedule needs a vocabulary of at least 2 tokens, found {vocab_size}")]
    VocabularyTooSmall {
        /// The requested size.
        vocab_size: usize,
    },
}

/// The map between the time t of the interpolant and the time τ of the network, for one
/// vocabulary size.
///
/// τ(t) = V/(V−1)·(q(t) − 1/V), where q(t) = E_z\[Φ(z + t/(1−t))^{V−1}\] is the probability that
/// the largest coordinate of I_t = (1−t)x₀ + t·x₁ is the right token. τ is 0 when decoding is a
/// guess and 1 when it never fails (`mathematics.md`, section 2). With a large V nearly all of τ
/// lies in a narrow band of t, and equal steps in τ decide equal amounts.
///
/// Both directions are cubic splines through one table. Times outside \[0, 1\] are clamped, results
/// lie in \[0, 1\], and NaN gives NaN. t(0) = 0, t(1) = 1 and τ(1) = 1 hold exactly. τ(0) has the
/// error of the reference's quadrature, at most 1e-7. Building a schedule takes tens of
/// milliseconds and half a megabyte, so build it once and share it.
///
/// ```
/// use flm_simplex::Schedule;
///
/// let schedule = Schedule::new(50_258)?;
/// // With GPT-2's vocabulary, 98 % of the decoding happens in a quarter of the time.
/// assert!(schedule.t_of_tau(0.01) > 0.64 && schedule.t_of_tau(0.99) < 0.88);
/// assert!((schedule.tau_of_t(schedule.t_of_tau(0.5)) - 0.5).abs() < 1e-8);
/// # Ok::<(), flm_simplex::ScheduleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    vocab_size: usize,
    tau_of_t: CubicSpline,
    t_of_tau: CubicSpline,
    clock: Clock,
}

impl Schedule {
    /// Tabulates the schedule for a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    ///
    /// [`ScheduleError::VocabularyTooSmall`] if `vocab_size` is less than 2.
    pub fn new(vocab_size: usize) -> Result<Self, ScheduleError> {
        if vocab_size < 2 {
            return Err(ScheduleError::VocabularyTooSmall { vocab_size });
        }
        let ts: Vec<f64> = (0..POINTS)
            .map(|i| i as f64 / (POINTS - 1) as f64)
            .collect();
        let taus = tabulate(vocab_size, &ts);

        // The quadrature can put the first points below zero, where the clamp makes them equal. Of
        // equal τ the earliest t is kept, so that τ = 0 maps to t = 0.
        let mut inverse: Vec<(f64, f64)> = taus.iter().copied().zip(ts.iter().copied()).collect();
        inverse.sort_by(|a, b| a.0.total_cmp(&b.0));
        inverse.dedup_by(|later, earlier| later.0 == earlier.0);
        let (inverse_taus, inverse_ts) = inverse.into_iter().unzip();

        Ok(Self {
            vocab_size,
            tau_of_t: CubicSpline::not_a_knot(ts, taus),
            t_of_tau: CubicSpline::not_a_knot(inverse_taus, inverse_ts),
            clock: Clock::even(),
        })
    }

    /// Returns the same schedule, with training and sampling time spread by `clock`.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Returns the clock that spreads training and sampling time over τ.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the vocabulary size that the schedule was built for.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns τ at time `t`, in \[0, 1\].
    pub fn tau_of_t(&self, t: f64) -> f64 {
        self.tau_of_t.value(t.clamp(0.0, 1.0)).clamp(0.0, 1.0)
    }

    /// Returns t at network time `tau`, in \[0, 1\].
    pub fn t_of_tau(&self, tau: f64) -> f64 {
        self.t_of_tau.value(tau.clamp(0.0, 1.0)).clamp(0.0, 1.0)
    }

    /// Returns dτ/dt at time `t`, the derivative of the spline behind [`tau_of_t`](Self::tau_of_t);
    /// never negative.
    ///
    /// It converts a derivative in the network's time into one in t: ∂_t = (dτ/dt)·∂_τ.
    pub fn dtau_dt(&self, t: f64) -> f64 {
        // Where τ is flat, the spline's slope is the tilt plus rounding noise and may be negative.
        self.tau_of_t.derivative(t.clamp(0.0, 1.0)).max(0.0)
    }

    /// Returns [`tau_of_t`](Self::tau_of_t) of each of `ts`.
    pub fn taus_of_ts(&self, ts: &[f64]) -> Vec<f64> {
        ts.iter().map(|&t| self.tau_of_t(t)).collect()
    }

    /// Returns [`t_of_tau`](Self::t_of_tau) of each of `taus`.
    pub fn ts_of_taus(&self, taus: &[f64]) -> Vec<f64> {
        taus.iter().map(|&tau| self.t_of_tau(tau)).collect()
    }

    /// Returns [`dtau_dt`](Self::dtau_dt) at each of `ts`.
    pub fn dtau_dts(&self, ts: &[f64]) -> Vec<f64> {
        ts.iter().map(|&t| self.dtau_dt(t)).collect()
    }
}

/// Returns τ at each of `ts`. The clamp comes after the tilt, as in the reference; the last value
/// is 1 by definition.
fn tabulate(vocab_size: usize, ts: &[f64]) -> Vec<f64> {
    let quadrature = DecodingQuadrature::new();
    let vocabulary = vocab_size as f64;
    let tau = |t: f64| {
        if t == 1.0 {
            return 1.0;
        }
        let q = quadrature.probability(vocab_size, t / (1.0 - t));
        let error_free = vocabulary / (vocabulary - 1.0) * (q - 1.0 / vocabulary);
        (error_free + (t - 1.0) * MONOTONE_TILT).clamp(0.0, 1.0)
    };
    ts.iter().map(|&t| tau(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 7] = [2, 3, 27, 61, 8192, 50_258, 262_144];

    #[test]
    fn ends_are_exact_and_times_outside_count_as_the_nearer_end() {
        for size in SIZES {
            let schedule = Schedule::new(size).unwrap();
            assert_eq!(schedule.vocab_size(), size);
            assert_eq!(schedule.t_of_tau(0.0), 0.0, "V = {size}");
            assert_eq!(schedule.t_of_tau(1.0), 1.0, "V = {size}");
            assert_eq!(schedule.tau_of_t(1.0), 1.0, "V = {size}");
            // At the start, the quadrature's error is at most one per cent of 1/V.
            assert!(schedule.tau_of_t(0.0) < 1e-7, "V = {size}");
            assert_eq!(schedule.tau_of_t(-1.0), schedule.tau_of_t(0.0));
            assert_eq!(schedule.t_of_tau(2.0), 1.0);
            assert!(schedule.t_of_tau(f64::NAN).is_nan());
        }
    }

    #[test]
    fn both_directions_never_decrease() {
        for size in SIZES {
            let schedule = Schedule::new(size).unwrap();
            let grid: Vec<f64> = (0..=5_000).map(|i| f64::from(i) / 5_000.0).collect();
            // Where τ is flat, the rounding of about sixty terms may show.
            assert!(
                schedule
                    .taus_of_ts(&grid)
                    .windows(2)
                    .all(|w| w[1] >= w[0] - 1e-14),
                "τ(t), V = {size}"
            );
            assert!(
                schedule.ts_of_taus(&grid).windows(2).all(|w| w[1] >= w[0]),
                "t(τ), V = {size}"
            );
        }
    }

    #[test]
    fn each_direction_undoes_the_other() {
        for size in SIZES {
            let schedule = Schedule::new(size).unwrap();
            for i in 1..1_000 {
                let tau = f64::from(i) / 1_000.0;
                let back = schedule.tau_of_t(schedule.t_of_tau(tau));
                // Two splines through the same points differ between them by a fourth power of
                // the spacing.
                assert!(
                    (back - tau).abs() < 1e-8,
                    "V = {size}: {tau} came back as {back}"
                );
            }
        }
    }

    #[test]
    fn the_derivative_is_that_of_tau() {
        let schedule = Schedule::new(8192).unwrap();
        for i in 1..20 {
            let (t, h) = (f64::from(i) / 20.0, 1e-6);
            let difference = (schedule.tau_of_t(t + h) - schedule.tau_of_t(t - h)) / (2.0 * h);
            // Central difference: rounding 1e-16/h, and a third derivative of order 1e3 times h²/6.
            let slope = schedule.dtau_dt(t);
            assert!(
                (slope - difference).abs() < 1e-8,
                "at {t}: {slope} and {difference}"
            );
        }
    }

    #[test]
    fn a_vocabulary_of_one_is_refused() {
        for vocab_size in [0, 1] {
            let error = Schedule::new(vocab_size).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a schedule needs a vocabulary of at least 2 tokens, found {vocab_size}")
            );
        }
    }
}
