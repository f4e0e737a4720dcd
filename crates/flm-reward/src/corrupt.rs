//! Corrupted rows for training classifiers.

use rand::{Rng, RngExt};

/// Returns row `number` of `rows` with errors typical of samplers.
///
/// One to three tokens are replaced by tokens of the same rows (so that frequent ones are
/// likelier), two tokens are swapped, or the row continues as another row. The result differs from
/// the original row.
///
/// Corruption starts before the trailing padding of `pad` tokens. If all rows are alike, the row
/// may be returned unchanged.
pub fn corrupt<R: Rng + ?Sized>(rows: &[&[u32]], number: usize, pad: u32, rng: &mut R) -> Vec<u32> {
    let original = rows[number];
    let text = original
        .iter()
        .rposition(|&token| token != pad)
        .map_or(original.len(), |last| last + 1);
    // One attempt in a few gives the row itself; many in a row only if no change is possible.
    for _ in 0..TRIES {
        let mut row = original.to_vec();
        match rng.random_range(0..3) {
            0 => replace(&mut row[..text], rows, rng),
            1 => row.swap(rng.random_range(0..text), rng.random_range(0..text)),
            _ => {
                // From the second token on, so that the other row is not taken whole.
                let from = rng.random_range(1.min(text - 1)..text);
                let other = rows[rng.random_range(0..rows.len())];
                row[from..].copy_from_slice(&other[from..]);
            }
        }
        if row != original {
            return row;
        }
    }
    original.to_vec()
}

const TRIES: usize = 100;

/// Replaces one to three tokens.
fn replace<R: Rng + ?Sized>(text: &mut [u32], rows: &[&[u32]], rng: &mut R) {
    for _ in 0..rng.random_range(1..=3) {
        let other = rows[rng.random_range(0..rows.len())];
        text[rng.random_range(0..text.len())] = other[rng.random_range(0..other.len())];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_corrupted_row_differs_from_its_own_and_is_made_of_the_rows_tokens() {
        let rows: [&[u32]; 3] = [
            &[3, 4, 5, 1, 0, 0],
            &[6, 4, 7, 8, 1, 0],
            &[3, 9, 5, 1, 0, 0],
        ];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut lengths = [0; 7];
        for draw in 0..3_000 {
            let row = corrupt(&rows, draw % 3, 0, &mut rng);
            assert_ne!(row, rows[draw % 3]);
            assert!(row.iter().all(|token| rows.concat().contains(token)));
            let differ = row
                .iter()
                .zip(rows[draw % 3])
                .filter(|(a, b)| a != b)
                .count();
            lengths[differ] += 1;
        }
        // Rows with one, two and three errors all occur.
        assert!(
            lengths[1] > 300 && lengths[2] > 300 && lengths[3] > 100,
            "{lengths:?}"
        );
    }

    #[test]
    fn rows_that_are_all_alike_stay() {
        let rows: [&[u32]; 2] = [&[3, 3, 3], &[3, 3, 3]];
        let row = corrupt(&rows, 0, 0, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(row, rows[0]);
    }
}
