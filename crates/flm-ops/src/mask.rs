//! Dropout masks as functions of a key, so that no mask is stored.

use burn::tensor::{ElementConversion, Int, IntDType, Tensor, backend::Backend};

/// Which entries of a tensor are dropped, and the factor of the others, which preserves the mean.
///
/// Whether entry i is dropped depends on a hash of i and the key: the same on every backend and
/// with any number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    key: [u32; 2],
    first: u32,
    threshold: u32,
    keep: f32,
}

impl Mask {
    /// Creates a mask that drops entries with probability `rate` below one, in steps of 1/65,536.
    pub fn new(rate: f64, key: u64) -> Self {
        let threshold = (rate * 65_536.0).round();
        Self {
            key: [key as u32, (key >> 32) as u32],
            first: 0,
            threshold: threshold as u32,
            keep: (1.0 / (1.0 - threshold / 65_536.0)) as f32,
        }
    }

    /// Returns the mask for a part of a larger tensor, from its entry `first` on. Masks repeat
    /// after 2³² entries.
    pub fn starting_at(self, first: usize) -> Self {
        Self {
            first: first as u32,
            ..self
        }
    }

    /// Returns the factor of entry `i`.
    #[inline(always)]
    pub(crate) fn factor(&self, i: u32) -> f32 {
        let i = i.wrapping_add(self.first);
        let drawn = mix(mix(i ^ self.key[0]) ^ self.key[1]) >> 16;
        if drawn < self.threshold {
            0.0
        } else {
            self.keep
        }
    }

    /// Returns the factors of a tensor's entries in row order, computed on the tensor's device.
    pub(crate) fn dense<B: Backend, const D: usize>(
        &self,
        shape: [usize; D],
        device: &B::Device,
    ) -> Tensor<B, D> {
        let count: usize = shape.iter().product();
        let [first, second] = self.key.map(|key| key as i32);
        let numbers = Tensor::<B, 1, Int>::arange(0..count as i64, device).cast(IntDType::I32);
        let numbers = numbers.add_scalar((self.first as i32).elem::<i32>());
        let mixed =
            mix_all(numbers.bitwise_xor_scalar(first.elem())).bitwise_xor_scalar(second.elem());
        let drawn = logical_shift(mix_all(mixed), 16);
        let kept = drawn.greater_equal_elem(self.threshold as i32).float();
        kept.mul_scalar(self.keep).reshape(shape)
    }
}

/// [`mix`] of 32-bit numbers whose products wrap.
fn mix_all<B: Backend>(x: Tensor<B, 1, Int>) -> Tensor<B, 1, Int> {
    let folded = |x: Tensor<B, 1, Int>, by| x.clone().bitwise_xor(logical_shift(x, by));
    let x = folded(x, 16).mul_scalar(MIX[0] as i32);
    let x = folded(x, 15).mul_scalar(MIX[1] as i32);
    folded(x, 16)
}

/// x ≫ `by` of 32-bit numbers interpreted as unsigned.
fn logical_shift<B: Backend>(x: Tensor<B, 1, Int>, by: i32) -> Tensor<B, 1, Int> {
    x.bitwise_right_shift_scalar(by.elem())
        .bitwise_and_scalar(((u32::MAX >> by) as i32).elem())
}

/// The factors of [`mix`].
const MIX: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// The 32-bit integer hash `lowbias32` of C. Wellons's hash prospector.
#[inline(always)]
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(MIX[0]);
    let x = (x ^ (x >> 15)).wrapping_mul(MIX[1]);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 200_000;

    fn dropped(mask: Mask) -> Vec<bool> {
        (0..COUNT).map(|i| mask.factor(i) == 0.0).collect()
    }

    /// Asserts that `found` of `count` agrees with `probability` within five standard deviations.
    fn assert_share(found: usize, count: usize, probability: f64, what: &str) {
        let (found, count) = (found as f64, count as f64);
        let bound = 5.0 * (probability * (1.0 - probability) * count).sqrt();
        assert!(
            (found - probability * count).abs() < bound,
            "{what}: {found} of {count}, probability {probability}"
        );
    }

    #[test]
    fn entries_are_dropped_with_the_stated_probability_and_independently() {
        let both = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && **b).count();
        for rate in [0.1, 0.5] {
            for key in [0, 1, 0x1234_5678_9abc_def0] {
                let drawn = dropped(Mask::new(rate, key));
                let count = drawn.iter().filter(|x| **x).count();
                assert_share(count, drawn.len(), rate, "alone");
                // Neighbours, and entries of the same column in rows of typical widths.
                for apart in [1, 2, 16, 64, 768] {
                    let pairs = drawn.len() - apart;
                    let count = both(&drawn[..pairs], &drawn[apart..]);
                    assert_share(count, pairs, rate * rate, "pairs");
                }
                // Adjacent keys in either half.
                for other in [key ^ 1, key ^ (1 << 32)] {
                    let count = both(&drawn, &dropped(Mask::new(rate, other)));
                    assert_share(count, drawn.len(), rate * rate, "keys");
                }
            }
        }
    }

    #[test]
    fn a_tensor_of_factors_is_what_the_hash_says() {
        for key in [0, 0x1234_5678_9abc_def0, u64::MAX] {
            // From the start, and across the overflow of signed and of unsigned numbers.
            for first in [0, (1 << 31) - 2_000, (1 << 32) - 2_000] {
                let mask = Mask::new(0.1, key).starting_at(first);
                let dense = mask.dense::<burn_flex::Flex, 2>([40, 100], &Default::default());
                let found: Vec<f32> = dense.into_data().iter::<f32>().collect();
                let expected: Vec<f32> = (0..4_000).map(|i| mask.factor(i)).collect();
                assert_eq!(found, expected, "key {key:x} from {first}");
            }
        }
    }

    #[test]
    fn a_part_has_the_mask_of_its_place_in_the_whole() {
        let whole = Mask::new(0.3, 9);
        let part = whole.starting_at(1_000);
        let expected: Vec<f32> = (1_000..2_000).map(|i| whole.factor(i)).collect();
        let found: Vec<f32> = (0..1_000).map(|i| part.factor(i)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_mean_stays() {
        let mask = Mask::new(0.1, 7);
        let mean = (0..COUNT).map(|i| f64::from(mask.factor(i))).sum::<f64>() / f64::from(COUNT);
        // Standard deviation of a factor: √(0.1/0.9).
        assert!(
            (mean - 1.0).abs() < 5.0 * (1.0 / 9.0 / f64::from(COUNT)).sqrt(),
            "{mean}"
        );
        assert!((0..100).all(|i| Mask::new(0.0, 3).factor(i) == 1.0));
    }
}
