//! Network times τ: random draws for training, grids for samplers.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// Draws `count` network times in \[0, 1), one in each of `count` equal strata, in random order.
///
/// The whole grid shares one uniform offset u: τᵢ = (i + u)/`count`, shuffled. Each time is uniform
/// on its own. Together they cover the interval evenly, so a batch's mean loss varies far less than
/// with independent times (`mathematics.md`, section 2).
///
/// ```
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
/// let mut taus = flm_simplex::times::stratified(4, &mut rng);
/// taus.sort_by(f64::total_cmp);
/// assert!((0..4).all(|i| (taus[i] * 4.0) as usize == i));
/// ```
pub fn stratified<R: Rng + ?Sized>(count: usize, rng: &mut R) -> Vec<f64> {
    let offset: f64 = rng.random();
    // The largest f64 below one: (count − 1 + u)/count may round up to it.
    let below_one = 1.0 - f64::EPSILON / 2.0;
    let mut taus: Vec<f64> = (0..count)
        .map(|i| ((i as f64 + offset) / count as f64).min(below_one))
        .collect();
    taus.shuffle(rng);
    taus
}

/// Returns the `steps + 1` network times 0, 1/`steps`, …, 1 between which a sampler steps.
pub fn grid(steps: usize) -> Vec<f64> {
    (0..=steps)
        .map(|i| {
            if steps == 0 {
                0.0
            } else {
                i as f64 / steps as f64
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn one_draw_falls_in_each_stratum_at_the_same_offset() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let count = 37;
        let mut taus = stratified(count, &mut rng);
        assert!(
            !taus.is_sorted(),
            "37 shuffled values are sorted with probability 1e-43"
        );
        taus.sort_by(f64::total_cmp);
        for (i, tau) in taus.iter().enumerate() {
            assert_eq!((tau * count as f64) as usize, i);
            // Differences of numbers below one: two roundings.
            assert!((tau - taus[0] - i as f64 / count as f64).abs() < 1e-15);
        }
    }

    #[test]
    fn each_position_is_uniform() {
        // The first of three draws, 30,000 times, in ten bins. χ² with nine degrees of freedom
        // exceeds 39.3 with probability 1e-5.
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let draws = 30_000;
        let mut bins = [0_f64; 10];
        for _ in 0..draws {
            bins[(stratified(3, &mut rng)[0] * 10.0) as usize] += 1.0;
        }
        let expected = f64::from(draws) / 10.0;
        let chi_square: f64 = bins.iter().map(|n| (n - expected).powi(2) / expected).sum();
        assert!(chi_square < 39.3, "χ² = {chi_square}");
    }

    #[test]
    fn the_same_seed_gives_the_same_times() {
        let draw = |seed| stratified(8, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn grids_run_from_noise_to_data() {
        assert_eq!(grid(1), [0.0, 1.0]);
        assert_eq!(grid(4), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(grid(3)[3], 1.0);
    }
}
