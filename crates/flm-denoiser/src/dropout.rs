//! Dropout with masks from the caller's generator.

use flm_ops::Mask;
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

    /// The mask of the next residual branch, with a key of its own.
    pub(crate) fn mask(&mut self) -> Option<Mask> {
        let (rate, rng) = self.active.as_mut()?;
        Some(Mask::new(*rate, rng.next_u64()))
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
            [dropout.mask(), dropout.mask()]
        };
        let [first, second] = masks(3);
        assert!(first.is_some() && first != second);
        assert_eq!(masks(3), [first, second]);
        assert_ne!(masks(4), [first, second]);
    }

    #[test]
    fn off_and_a_rate_of_zero_drop_nothing() {
        assert_eq!(Dropout::off().mask(), None);
        assert_eq!(
            Dropout::on(0.0, &mut ChaCha8Rng::seed_from_u64(3)).mask(),
            None
        );
    }
}
