//! The largest of many normal numbers, without drawing the others.

use crate::decoding::log_normal_cdf;
use rand::{Rng, RngExt};

/// The largest of `count` independent standard normal numbers, the next largest, and so on.
///
/// The largest of n uniform numbers is U^(1/n), and below it are n − 1 uniform ones again. Who only asks which of V noisy coordinates is
/// the largest, or which few are, needs no more than these; by symmetry their places are any.
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
    /// Of `count` numbers.
    pub fn new(count: usize) -> Self {
        Self {
            left: count,
            log_uniform: 0.0,
        }
    }

    /// The next largest, if there is one more.
    pub fn next<R: Rng + ?Sized>(&mut self, rng: &mut R) -> Option<f64> {
        if self.left == 0 {
            return None;
        }
        // In (0, 1]: its logarithm is a number.
        let uniform = 1.0 - rng.random::<f64>();
        self.log_uniform += uniform.ln() / self.left as f64;
        self.left -= 1;
        Some(quantile(self.log_uniform))
    }
}

/// Where Φ is e^`log_p`, in [−37, 12]: outside lie 1e-33 and less of all numbers.
fn quantile(log_p: f64) -> f64 {
    let (mut low, mut high) = (-37.0, 12.0);
    // 49 to below 1e-13, far below what f32 tells apart.
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
            // At 8 the tail is 6e-16 and Φ rounds in the last place, but its logarithm does not.
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
        // The mean of the largest of five is 1.16296, its deviation 0.669.
        let mean = largest / f64::from(groups);
        assert!((mean - 1.16296).abs() < 5.0 * 0.669 / f64::from(groups).sqrt());
    }
}
