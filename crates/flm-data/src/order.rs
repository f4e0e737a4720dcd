//! The training order of rows, with random access.

use crate::DataError;
use crate::mix::mix;

/// A shuffled order over the rows of a split, different in each epoch.
///
/// The row at a position is computed from (seed, epoch, position) alone. No shuffled list is
/// stored, and a run that resumes at step 10,000 gets the same batch as an uninterrupted run. Each
/// epoch is a keyed bijection of the row numbers: a Feistel network (Luby and Rackoff, 1988) over
/// the next power of four, iterated until the result is a row number (Black and Rogaway, 2002).
/// Another shuffling method would change the losses of every documented seed.
///
/// ```
/// use flm_data::BatchOrder;
///
/// let order = BatchOrder::new(7, 5)?;
/// let mut epoch = order.batch(0, 5);
/// epoch.sort();
/// assert_eq!(epoch, [0, 1, 2, 3, 4]);
/// // Batches continue across the end of an epoch.
/// assert_eq!(order.batch(1, 3), [order.row(0, 3), order.row(0, 4), order.row(1, 0)]);
/// # Ok::<(), flm_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOrder {
    seed: u64,
    rows: usize,
    /// Bits of one half of a Feistel block.
    half: u32,
}

// With ideal round functions and large halves, four rounds are indistinguishable from random.
// Halves of a few bits need more.
const ROUNDS: u64 = 8;
// With smaller halves the round functions have so few values that orders of a few rows repeat.
const MINIMUM_HALF: u32 = 4;

impl BatchOrder {
    /// Creates the order for a seed over `rows` rows.
    ///
    /// # Errors
    /// Returns [`DataError::NoRows`] for 0 rows.
    pub fn new(seed: u64, rows: usize) -> Result<Self, DataError> {
        if rows == 0 {
            return Err(DataError::NoRows);
        }
        let bits = usize::BITS - (rows - 1).leading_zeros();
        Ok(Self {
            seed,
            rows,
            half: bits.div_ceil(2).max(MINIMUM_HALF),
        })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the row at a position of an epoch. Positions past the last row continue in later
    /// epochs.
    pub fn row(&self, epoch: u64, position: usize) -> usize {
        let epoch = epoch.wrapping_add((position / self.rows) as u64);
        let key = mix(self.seed ^ mix(epoch));
        let mut row = (position % self.rows) as u64;
        // The loop ends: it follows a cycle of the bijection that contains a row number. The block
        // has fewer than four times as many values as rows (or 256), so few iterations are needed.
        loop {
            row = self.permute(key, row);
            if row < self.rows as u64 {
                return row as usize;
            }
        }
    }

    /// Returns the rows of one training step: `batch_size` samples, starting at sample number
    /// `step · batch_size`, counted over all epochs.
    pub fn batch(&self, step: u64, batch_size: usize) -> Vec<usize> {
        let first = u128::from(step) * batch_size as u128;
        (0..batch_size as u128)
            .map(|sample| {
                let rows = self.rows as u128;
                let epoch = (first + sample) / rows;
                self.row(epoch as u64, ((first + sample) % rows) as usize)
            })
            .collect()
    }

    /// A bijection on the numbers of `2 · half` bits.
    fn permute(&self, key: u64, value: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        for round in 0..ROUNDS {
            let mixed = mix(right ^ mix(key.wrapping_add(round)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64, rows: usize) -> BatchOrder {
        BatchOrder::new(seed, rows).unwrap()
    }

    #[test]
    fn every_epoch_has_every_row_once() {
        for rows in (1..70).chain([255, 256, 257, 1000, 4097]) {
            for epoch in [0, 1, 17, u64::MAX] {
                let order = order(3, rows);
                let mut seen: Vec<usize> = (0..rows).map(|place| order.row(epoch, place)).collect();
                seen.sort_unstable();
                assert!(
                    seen.iter().copied().eq(0..rows),
                    "{rows} rows, epoch {epoch}"
                );
            }
        }
    }

    #[test]
    fn large_orders_stay_within_their_rows_without_repeating() {
        let rows = (1 << 40) + 12_345;
        let order = order(3, rows);
        let mut seen: Vec<usize> = (0..10_000).map(|place| order.row(5, place)).collect();
        assert!(seen.iter().all(|&row| row < rows));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10_000);
    }

    #[test]
    fn batches_are_one_sequence_wherever_they_start() {
        let order = order(11, 37);
        let sequence: Vec<usize> = (0..300).map(|n| order.row(n as u64 / 37, n % 37)).collect();
        for size in [1, 4, 37, 50] {
            for step in (0..300 / size).rev() {
                let expected = &sequence[step * size..(step + 1) * size];
                assert_eq!(order.batch(step as u64, size), expected, "size {size}");
            }
        }
        let far = order.batch(u64::MAX, 3);
        assert!(far.iter().all(|&row| row < 37));
    }

    #[test]
    fn epochs_and_seeds_give_orders_of_their_own() {
        let epoch = |seed, epoch| -> Vec<usize> {
            let order = order(seed, 1000);
            (0..1000).map(|place| order.row(epoch, place)).collect()
        };
        // Two independent orders agree in one position on average. Ten or more agreements have a
        // probability below 2e-7 (Poisson).
        let agree = |a: &[usize], b: &[usize]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let identity: Vec<usize> = (0..1000).collect();
        let orders = [
            epoch(1, 0),
            epoch(1, 1),
            epoch(1, 2),
            epoch(2, 0),
            epoch(2, 1),
            identity,
        ];
        for (i, a) in orders.iter().enumerate() {
            for b in &orders[..i] {
                assert!(agree(a, b) < 10);
            }
        }
    }

    #[test]
    fn a_place_has_every_row_equally_often() {
        // 20,000 epochs of 20 rows: chi-square per position with 19 degrees of freedom, above 60
        // with a probability of 4e-6. 20 positions and three seeds give a false alarm rate below
        // 3e-4. The seeds are fixed, so the result is always the same.
        for seed in 0..3 {
            let order = order(seed, 20);
            for place in 0..20 {
                let mut counts = [0_u32; 20];
                for epoch in 0..20_000 {
                    counts[order.row(epoch, place)] += 1;
                }
                let chi: f64 = counts
                    .iter()
                    .map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0)
                    .sum();
                assert!(chi < 60.0, "seed {seed}, place {place}: chi-square {chi}");
            }
        }
    }

    #[test]
    fn neighbours_are_as_independent_as_in_a_shuffle() {
        // In a shuffle, the next row is the successor of the current one once on average.
        let order = order(5, 5000);
        let successors: usize = (0..20)
            .map(|epoch| {
                (1..5000)
                    .filter(|&place| order.row(epoch, place) == order.row(epoch, place - 1) + 1)
                    .count()
            })
            .sum();
        // Poisson with mean 20: outside 4..=45 with a probability below 1e-5.
        assert!((4..=45).contains(&successors), "{successors} successors");
    }

    #[test]
    fn no_rows_have_no_order() {
        let error = BatchOrder::new(0, 0).unwrap_err();
        assert_eq!(error.to_string(), "a batch order needs at least one row");
    }
}
