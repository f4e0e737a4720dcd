//! Noise schedules.

use flm_simplex::times::stratified;
use rand::Rng;

/// The earliest time in training, as published. Earlier times have large losses and teach nothing.
const EARLIEST: f64 = 1e-3;

/// The log-linear schedule: a token is unchanged with probability α_t = 1 − (1 − floor)·t.
///
/// Time runs from 0 (data) to 1 (noise).
///
/// The default is the published floor of 1e-3, which keeps −log α finite (`mathematics.md`,
/// section 7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogLinear {
    floor: f64,
}

impl Default for LogLinear {
    fn default() -> Self {
        Self { floor: 1e-3 }
    }
}

/// The noise level at a time, and its derivative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Probability α that a token is unchanged.
    pub alpha: f64,
    /// Derivative α′ with respect to time; negative.
    pub slope: f64,
}

impl Level {
    /// Returns −α′/(1 − α), the rate per unit of time at which a noisy token became noisy.
    pub fn rate(&self) -> f64 {
        -self.slope / (1.0 - self.alpha)
    }

    /// Returns −log α, the time input of a network.
    pub fn sigma(&self) -> f64 {
        -self.alpha.ln()
    }
}

impl LogLinear {
    /// Creates a schedule without a floor, α_1 = 0.
    ///
    /// Only with this schedule is the bound of masked diffusion a bound for its sampler, which
    /// starts from masked tokens only.
    pub fn whole() -> Self {
        Self { floor: 0.0 }
    }

    /// Returns α at a time in \[0, 1\].
    pub fn alpha(&self, t: f64) -> f64 {
        1.0 - (1.0 - self.floor) * t
    }

    /// Returns α and α′ at a time in \[0, 1\].
    pub fn level(&self, t: f64) -> Level {
        Level {
            alpha: self.alpha(t),
            slope: self.floor - 1.0,
        }
    }
}

/// Draws the times of a training batch, stratified in \[0.001, 1), in random order.
pub fn training_times<R: Rng + ?Sized>(batch: usize, rng: &mut R) -> Vec<f64> {
    let stretch = |time: f64| EARLIEST + (1.0 - EARLIEST) * time;
    stratified(batch, rng).into_iter().map(stretch).collect()
}

/// Returns the name of the quarter of time under which a row's loss is reported.
pub(crate) fn quarter(t: f64) -> &'static str {
    const NAMES: [&str; 4] = ["time_1", "time_2", "time_3", "time_4"];
    NAMES[((t * 4.0) as usize).min(3)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn levels_are_those_of_the_formula() {
        let level = LogLinear::default().level(0.5);
        assert_eq!((level.alpha, level.slope), (0.5005, -0.999));
        assert!((level.rate() - 2.0).abs() < 1e-12);
        assert!((level.sigma() - 2.0_f64.ln()).abs() < 1e-3);
        assert_eq!(LogLinear::whole().alpha(1.0), 0.0);
        assert_eq!(LogLinear::default().alpha(0.0), 1.0);
    }

    #[test]
    fn training_times_cover_all_but_the_beginning() {
        let times = training_times(1_000, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(times.iter().all(|t| (EARLIEST..1.0).contains(t)));
        let count = |name| times.iter().filter(|t| quarter(**t) == name).count();
        assert!((245..255).contains(&count("time_1")) && (249..252).contains(&count("time_4")));
    }
}
