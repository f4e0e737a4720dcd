//! How much of a text is left at a time.

use flm_simplex::times::stratified;
use rand::Rng;

/// The earliest time of a training row, as published: earlier ones have large losses and nothing to teach.
const EARLIEST: f64 = 1e-3;

/// Time runs from 0, data, to 1, noise; a token is left as it was with probability α_t = 1 − (1 − floor)·t.
///
/// Published with a floor of 1e-3, so that −log α stays finite (`mathematics.md`, section 7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogLinear {
    floor: f64,
}

impl Default for LogLinear {
    fn default() -> Self {
        Self { floor: 1e-3 }
    }
}

/// How much is left at a time, and how fast it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Probability α that a token is as it was.
    pub alpha: f64,
    /// Its derivative α′ by time, negative.
    pub slope: f64,
}

impl Level {
    /// −α′/(1 − α): how often, in a unit of time, a token that is noisy has become so.
    pub fn rate(&self) -> f64 {
        -self.slope / (1.0 - self.alpha)
    }

    /// −log α, the time that a network is told.
    pub fn sigma(&self) -> f64 {
        -self.alpha.ln()
    }
}

impl LogLinear {
    /// A schedule that runs down to nothing: the bound of masked diffusion is one of its sampler's, which starts from nothing, only with it.
    pub fn whole() -> Self {
        Self { floor: 0.0 }
    }

    /// α at a time in \[0, 1\].
    pub fn alpha(&self, t: f64) -> f64 {
        1.0 - (1.0 - self.floor) * t
    }

    /// α and α′ at a time in \[0, 1\].
    pub fn level(&self, t: f64) -> Level {
        Level {
            alpha: self.alpha(t),
            slope: self.floor - 1.0,
        }
    }
}

/// Times of a batch in training, stratified in \[0.001, 1), in random order.
pub fn training_times<R: Rng + ?Sized>(batch: usize, rng: &mut R) -> Vec<f64> {
    let stretch = |time: f64| EARLIEST + (1.0 - EARLIEST) * time;
    stratified(batch, rng).into_iter().map(stretch).collect()
}

/// The quarter of time that a row belongs to, under which its loss is reported.
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
