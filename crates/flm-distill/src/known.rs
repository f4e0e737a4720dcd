//! Which positions of a row are known during training.

use rand::{Rng, RngExt};

/// Draws the known positions of `[rows, length]`, row by row. With the given probability a row has
/// known positions, and otherwise none.
///
/// Known positions lie before a cut, behind a cut, or outside two cuts. The model then continues a
/// text, writes the text before a known end, or fills a hole. The three cases are equally likely,
/// and so are all pairs of distinct cuts.
pub fn known_positions<R: Rng + ?Sized>(
    [rows, length]: [usize; 2],
    probability: f64,
    rng: &mut R,
) -> Vec<bool> {
    let mut known = vec![false; rows * length];
    for row in known.chunks_exact_mut(length) {
        if rng.random::<f64>() >= probability {
            continue;
        }
        // Two different cuts out of length + 1: before, between and behind the tokens.
        let (a, b) = (rng.random_range(0..=length), rng.random_range(0..length));
        let b = if b >= a { b + 1 } else { b };
        let open = match (rng.random_range(0..3), a.min(b), a.max(b)) {
            (0, first, _) => first..length,
            (1, _, last) => 0..last,
            (_, first, last) => first..last,
        };
        row.fill(true);
        row[open].fill(false);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const ROWS: usize = 30_000;

    #[test]
    fn rows_know_a_beginning_an_end_or_both_as_often_as_asked() {
        let length = 6;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let known = known_positions([ROWS, length], 0.4, &mut rng);
        let (mut some, mut holes) = (0, 0);
        for row in known.chunks_exact(length) {
            let open: Vec<usize> = (0..length).filter(|&at| !row[at]).collect();
            assert!(!open.is_empty(), "something is always open");
            assert_eq!(
                open[open.len() - 1] - open[0] + 1,
                open.len(),
                "in one piece"
            );
            some += usize::from(open.len() < length);
            holes += usize::from(row[0] && row[length - 1]);
        }
        // Of the 21 pairs of cuts, the 6 pairs (0, b) leave no known beginning, the 6 pairs (a, 6)
        // leave no known end, and the pair (0, 6) leaves neither. Holes inside need 0 < a < b < 6:
        // 10 pairs.
        let expect = |found: usize, share: f64| {
            let mean = ROWS as f64 * share;
            // Five standard deviations: false alarm about 6e-7.
            let bound = 5.0 * (mean * (1.0 - share)).sqrt();
            assert!((found as f64 - mean).abs() < bound, "{found} at {share}");
        };
        expect(some, 0.4 * (1.0 - (6.0 + 6.0 + 1.0) / 63.0));
        expect(holes, 0.4 * 10.0 / 63.0);
    }

    #[test]
    fn without_a_probability_nothing_is_known() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        assert!(!known_positions([50, 4], 0.0, &mut rng).contains(&true));
        // A row of one token is always open.
        assert!(!known_positions([50, 1], 1.0, &mut rng).contains(&true));
    }
}
