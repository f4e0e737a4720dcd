//! Means with standard errors.

use serde::{Deserialize, Serialize};

/// A mean over independent draws and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The sample mean; NaN if there are no draws.
    pub mean: f64,
    /// The standard error of the mean, √(s²/n) with the unbiased s²; NaN below two draws.
    pub std_err: f64,
}

impl Estimate {
    /// Computes the mean of `draws` and its standard error in one pass (Welford's recurrence).
    pub fn of(draws: impl IntoIterator<Item = f64>) -> Self {
        let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for draw in draws {
            n += 1.0;
            let delta = draw - mean;
            mean += delta / n;
            squares += delta * (draw - mean);
        }
        Self {
            mean: if n > 0.0 { mean } else { f64::NAN },
            std_err: if n > 1.0 {
                f64::sqrt(squares / (n - 1.0) / n)
            } else {
                f64::NAN
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_standard_error_match_the_textbook() {
        // Σ(x − 5)² = 32, so s² = 32/7 and the standard error is √(32/7/8).
        let estimate = Estimate::of([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert!((estimate.mean - 5.0).abs() < 1e-12);
        assert!((estimate.std_err - (32.0_f64 / 56.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn too_few_draws_have_no_standard_error() {
        assert!(Estimate::of([]).mean.is_nan());
        let one = Estimate::of([3.0]);
        assert_eq!(one.mean, 3.0);
        assert!(one.std_err.is_nan());
    }
}
