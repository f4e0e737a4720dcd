//! Dropout with masks from a generator that the caller owns.

use flm_ops::Mask;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The dropout of the residual branches: whether it is on, at which rate and with which generator.
///
/// Inference uses [`Dropout::off`]. Training passes its own generator, so that a step can be
/// repeated exactly.
pub struct Dropout<'a> {
    active: Option<(f64, &'a mut ChaCha8Rng)>,
    first: usize,
}

impl<'a> Dropout<'a> {
    /// Disables dropout.
    pub fn off() -> Self {
        Self {
            active: None,
            first: 0,
        }
    }

    /// Drops each entry with probability `rate`, in steps of 1/65,536, and scales up the others so
    /// that the mean is preserved.
    pub fn on(rate: f64, rng: &'a mut ChaCha8Rng) -> Self {
        Self {
            active: (rate > 0.0).then_some((rate, rng)),
            first: 0,
        }
    }

    /// Treats the sequences as part of a larger batch that starts at its sequence `first`. The mask
    /// of a sequence is then independent of how the batch is split.
    pub fn starting_at(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// The mask of the next residual branch, with `entries` per sequence and its own key.
    pub(crate) fn mask(&mut self, entries: usize) -> Option<Mask> {
        let (rate, rng) = self.active.as_mut()?;
        Some(Mask::new(*rate, rng.next_u64()).starting_at(self.first * entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_branch_has_a_mask_of_its_own_and_a_seed_gives_the_same_ones() {
        let masks = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut dropout = Dropout::on(0.1, &mut rng);
            [dropout.mask(6), dropout.mask(6)]
        };
        let [first, second] = masks(3);
        assert!(first.is_some() && first != second);
        assert_eq!(masks(3), [first, second]);
        assert_ne!(masks(4), [first, second]);
    }

    #[test]
    fn a_part_of_a_batch_has_its_part_of_the_mask() {
        let mask = |first| {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            Dropout::on(0.1, &mut rng).starting_at(first).mask(6)
        };
        assert_eq!(mask(2), mask(0).map(|mask| mask.starting_at(12)));
    }

    #[test]
    fn off_and_a_rate_of_zero_drop_nothing() {
        assert_eq!(Dropout::off().mask(6), None);
        assert_eq!(
            Dropout::on(0.0, &mut ChaCha8Rng::seed_from_u64(3)).mask(6),
            None
        );
    }
}
