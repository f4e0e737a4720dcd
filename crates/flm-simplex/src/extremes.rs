//! The largest of many normal numbers, without drawing the rest.

use crate::decoding::log_normal_cdf;
use rand::{Rng, RngExt};

/// Draws the largest of `count` independent standard normal numbers, then the next largest, and
/// so on.
///
/// The largest of n uniform numbers is U^(1/n), and the n − 1 numbers below it are uniform again.
/// This is enough to find the largest few of V noisy coordinates; by symmetry their positions are
/// uniformly random.
///
/// ```
/// use flm_simplex::extremes::Descending;
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let largest = Descending::new(50_000).next(&mut rng).unwrap();
/// assert!(3.0 < largest && largest < 6.5);
/// ```
#[derive(Clone, Debug)]
pub struct Descending {
    left: usize,
    log_uniform: f64,
}

impl Descending {
    /// Starts the descending draws from `count` numbers.
    pub fn new(count: usize) -> Self {
        Self {
            left: count,
            log_uniform: 0.0,
        }
    }

    /// Returns the next largest number, or `None` after `count` of them.
    pub fn next<R: Rng + ?Sized>(&mut self, rng: &mut R) -> Option<f64> {
        if self.left == 0 {
            return None;
        }
        // In (0, 1], so that its logarithm is finite.
        let uniform = 1.0 - rng.random::<f64>();
        self.log_uniform += uniform.ln() / self.left as f64;
        self.left -= 1;
        Some(quantile(self.log_uniform))
    }
}

/// Returns the x in [−37, 12] where Φ(x) = e^`log_p`; about 2e-33 of the probability lies outside.
fn quantile(log_p: f64) -> f64 {
    let (mut low, mut high) = (-37.0, 12.0);
    // 49 bisections of a width of 49 reach 1e-13, far below the resolution of f32.
    for _ in 0..49 {
        let middle = f64::midpoint(low, high);
        if log_normal_cdf(middle) < log_p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn quantiles_undo_the_cdf() {
        for x in [-30.0, -3.0, -0.1, 0.0, 1.0, 4.0, 8.0] {
            // At 8 the upper tail is 6e-16: Φ rounds in the last place, but its logarithm does not.
            let found = quantile(log_normal_cdf(x));
            assert!((found - x).abs() < 1e-11, "{found} {x}");
        }
    }

    #[test]
    fn all_of_them_in_descending_order_are_normal() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (groups, of) = (4_000, 5);
        let (mut sum, mut squares, mut largest) = (0.0, 0.0, 0.0);
        for _ in 0..groups {
            let mut descending = Descending::new(of);
            let numbers: Vec<f64> = std::iter::from_fn(|| descending.next(&mut rng)).collect();
            assert_eq!(numbers.len(), of);
            assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]));
            sum += numbers.iter().sum::<f64>();
            squares += numbers.iter().map(|x| x * x).sum::<f64>();
            largest += numbers[0];
        }
        let count = f64::from(groups * of as i32);
        // Five standard errors, 1/√n and √(2/n).
        assert!((sum / count).abs() < 5.0 / count.sqrt());
        assert!((squares / count - 1.0).abs() < 5.0 * (2.0 / count).sqrt());
        // The mean of the largest of five is 1.16296, its standard deviation 0.669.
        let mean = largest / f64::from(groups);
        assert!((mean - 1.16296).abs() < 5.0 * 0.669 / f64::from(groups).sqrt());
    }
}
