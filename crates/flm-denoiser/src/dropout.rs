//! Dropout with masks from the caller's generator.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Whether the network drops entries of its residual branches, and with which generator.
///
/// Inference uses [`Dropout::off`]. Training passes a generator that it owns, so that a step can be repeated exactly.
pub struct Dropout<'a> {
    active: Option<(f64, &'a mut ChaCha8Rng)>,
}

impl<'a> Dropout<'a> {
    /// Nothing is dropped.
    pub fn off() -> Self {
        Self { active: None }
    }

    /// Each entry is dropped with chance `rate`, in steps of 1/65,536, and the rest scaled up so that the mean stays.
    pub fn on(rate: f64, rng: &'a mut ChaCha8Rng) -> Self {
        Self {
            active: (rate > 0.0).then_some((rate, rng)),
        }
    }

    /// Applies the dropout to a residual branch of any shape.
    pub fn apply<B: Backend, const D: usize>(&mut self, x: Tensor<B, D>) -> Tensor<B, D> {
        let Some((rate, rng)) = &mut self.active else {
            return x;
        };
        let threshold = (*rate * 65_536.0).round() as u64;
        let keep = (1.0 / (1.0 - threshold as f64 / 65_536.0)) as f32;
        let shape = x.shape();
        let count = shape.num_elements();
        let mut mask = Vec::with_capacity(count + 3);
        // Four entries from one draw: 16 bits decide one.
        while mask.len() < count {
            let mut bits = rng.next_u64();
            for _ in 0..4 {
                mask.push(if bits & 0xFFFF < threshold { 0.0 } else { keep });
                bits >>= 16;
            }
        }
        mask.truncate(count);
        let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device());
        x * mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;
    use rand::SeedableRng;

    #[test]
    fn drops_the_stated_share_and_keeps_the_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let n = 40_000;
        let x = Tensor::<Flex, 2>::ones([n / 10, 10], &Default::default());
        let y: Vec<f32> = Dropout::on(0.1, &mut rng)
            .apply(x)
            .into_data()
            .to_vec()
            .unwrap();
        let dropped = y.iter().filter(|v| **v == 0.0).count() as f64 / n as f64;
        // Five standard deviations of a binomial share: false alarm about 6e-7.
        assert!(
            (dropped - 0.1).abs() < 5.0 * (0.09 / n as f64).sqrt(),
            "{dropped}"
        );
        let kept = y.iter().find(|v| **v != 0.0).unwrap();
        assert!((kept - 1.0 / 0.9).abs() < 1e-4);
    }

    #[test]
    fn off_changes_nothing() {
        let x = Tensor::<Flex, 1>::from_floats([1.0, -2.0], &Default::default());
        let y = Dropout::off().apply(x.clone());
        assert_eq!(x.into_data(), y.into_data());
    }
}
