//! Gaussian noise from a generator that the caller owns.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// Draws a tensor of independent standard normal numbers.
///
/// Values are drawn on the host, row by row, so the same seed gives the same noise on every
/// backend. The backend's own generator is not used.
pub fn gaussian<B: Backend, R: Rng + ?Sized, const D: usize>(
    shape: [usize; D],
    rng: &mut R,
    device: &B::Device,
) -> Tensor<B, D> {
    let values: Vec<f32> = StandardNormal
        .sample_iter(rng)
        .take(shape.iter().product())
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn moments_are_those_of_the_standard_normal() {
        let count = 100_000_f64;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let noise = gaussian::<Flex, _, 3>([10, 100, 100], &mut rng, &Default::default());
        let values: Vec<f64> = noise.into_data().iter::<f64>().collect();
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / count;
        // Five standard errors, 1/√n and √(2/n): exceeded by chance about once in 1e6.
        assert!(mean.abs() < 5.0 / count.sqrt(), "mean {mean}");
        assert!(
            (variance - 1.0).abs() < 5.0 * (2.0 / count).sqrt(),
            "variance {variance}"
        );
    }
}
