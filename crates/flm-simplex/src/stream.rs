//! Named random generators: every draw of a run is a pure function of its name.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The name of the generators of one part of one training step.
///
/// A run's randomness needs no stored state: each generator is created from the seed, the step, the
/// part and a purpose. So a resumed run makes the same draws as an uninterrupted one, for any order
/// of its parts and any number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The training step, from 0.
    pub step: u64,
    /// The part of the batch, below `parts`.
    pub part: u64,
    /// Number of equal parts that the batch is divided into.
    pub parts: u64,
}

/// The part number of generators that all parts of a batch share.
const SHARED: u64 = u64::MAX;

impl Stream {
    /// Returns this part's own generator.
    pub fn own(&self, purpose: u64) -> ChaCha8Rng {
        generator(self.seed, purpose, self.step, self.part)
    }

    /// Returns the generator that all parts of the batch share.
    pub fn shared(&self, purpose: u64) -> ChaCha8Rng {
        generator(self.seed, purpose, self.step, SHARED)
    }

    /// Returns this part's rows of a whole batch: every `parts`-th one, so that each part sees the
    /// same mixture.
    pub fn share<T: Clone>(&self, rows: &[T]) -> Vec<T> {
        rows.iter()
            .skip(self.part as usize)
            .step_by(self.parts as usize)
            .cloned()
            .collect()
    }
}

/// Returns the generator of a seed, a purpose, and two numbers whose meaning depends on
/// the purpose.
///
/// The four words are the key of a ChaCha8 stream, so generators of different names
/// are independent.
pub fn generator(seed: u64, purpose: u64, first: u64, second: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose, first, second]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn generators_repeat_by_name_and_differ_between_names() {
        let stream = Stream {
            seed: 1,
            step: 2,
            part: 0,
            parts: 4,
        };
        let first = |mut rng: ChaCha8Rng| rng.random::<u64>();
        assert_eq!(first(stream.own(5)), first(stream.own(5)));
        let other = Stream { part: 1, ..stream };
        assert_ne!(first(stream.own(5)), first(other.own(5)));
        assert_eq!(first(stream.shared(5)), first(other.shared(5)));
        let names = [
            stream.own(5),
            stream.own(6),
            Stream { step: 3, ..stream }.own(5),
            Stream { seed: 2, ..stream }.own(5),
        ];
        let mut draws: Vec<u64> = names.into_iter().map(first).collect();
        draws.dedup();
        assert_eq!(draws.len(), 4);
    }

    #[test]
    fn the_parts_share_out_every_row_once() {
        let rows: Vec<usize> = (0..8).collect();
        let shares = |part| {
            Stream {
                seed: 0,
                step: 0,
                part,
                parts: 2,
            }
            .share(&rows)
        };
        assert_eq!(shares(0), [0, 2, 4, 6]);
        assert_eq!(shares(1), [1, 3, 5, 7]);
    }
}
