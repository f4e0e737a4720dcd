//! Generators by name: every draw of a run is a pure function of what it is for.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Names the generators of one part of one training step.
///
/// A run's randomness needs no stored state: a generator is made anew from the seed, the step, the part and a purpose, so a
/// resumed run draws what an uninterrupted one would, in whatever order and on however many threads its parts are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The training step, from 0.
    pub step: u64,
    /// Which part of the batch, below `parts`.
    pub part: u64,
    /// Into how many parts of equal size the batch is cut.
    pub parts: u64,
}

/// The part number of generators that all parts of a batch share.
const SHARED: u64 = u64::MAX;

impl Stream {
    /// A generator of this part's own.
    pub fn own(&self, purpose: u64) -> ChaCha8Rng {
        generator(self.seed, purpose, self.step, self.part)
    }

    /// A generator that is the same for all parts of the batch.
    pub fn shared(&self, purpose: u64) -> ChaCha8Rng {
        generator(self.seed, purpose, self.step, SHARED)
    }

    /// This part's share of the rows of a whole batch: every `parts`-th one, so that each part sees the same mixture.
    pub fn share<T: Clone>(&self, rows: &[T]) -> Vec<T> {
        rows.iter()
            .skip(self.part as usize)
            .step_by(self.parts as usize)
            .cloned()
            .collect()
    }
}

/// The generator of a seed, a purpose, and two numbers that mean what the purpose says.
///
/// The four words are the key of a ChaCha8 stream, so generators of different names are independent.
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
