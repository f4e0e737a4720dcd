//! Kneser–Ney discounts.

/// The discounts D₁, D₂ and D₃₊ of one order, for counts of one, two, and three or more.
///
/// They follow Chen & Goodman (1998), from the numbers n₁ to n₄ of n-grams with those counts: Y =
/// n₁/(n₁+2n₂), D₁ = 1 − 2Y·n₂/n₁, D₂ = 2 − 3Y·n₃/n₂, D₃₊ = 3 − 4Y·n₄/n₃.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Discounts(pub(super) [f64; 3]);

impl Discounts {
    /// Used if the discounts cannot be estimated. The values are those of
    /// KenLM (`--discount_fallback`).
    const FALLBACK: [f64; 3] = [0.5, 1.0, 1.5];

    /// The smallest valid discount. Smaller ones would leave no probability to unseen tokens, and
    /// one such token would make a text's nats infinite.
    const LEAST: f64 = 0.01;

    /// Estimates discounts from all counts of one order. Zeros among them are ignored.
    ///
    /// The whole order uses the fallback if one of n₁ to n₄ is zero or a discount is below 0.01.
    /// This happens in small corpora and for few, frequent unigrams. D_i ≤ i always holds.
    pub(super) fn estimate(counts: &[u32]) -> Self {
        let mut n = [0.0; 4];
        for &count in counts {
            if let 1..=4 = count {
                n[count as usize - 1] += 1.0;
            }
        }
        let y = n[0] / (n[0] + 2.0 * n[1]);
        let discount = |i: usize| i as f64 - (i + 1) as f64 * y * n[i] / n[i - 1];
        let discounts = [1, 2, 3].map(discount);
        let is_valid = n.iter().all(|&n| n > 0.0) && discounts.iter().all(|&d| d >= Self::LEAST);
        Self(if is_valid { discounts } else { Self::FALLBACK })
    }

    /// Returns the discount of this count: 0 for zero, otherwise at most the count.
    pub(super) fn of(&self, count: u32) -> f64 {
        match count {
            0 => 0.0,
            _ => self.0[count.min(3) as usize - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounts_are_those_of_the_formula() {
        // n₁ to n₄ are 4, 2, 1, 1: Y = 4/8.
        let discounts = Discounts::estimate(&[1, 1, 0, 1, 1, 2, 2, 3, 4, 9]);
        assert_eq!(discounts, Discounts([0.5, 1.25, 1.0]));
        let taken = [0, 1, 2, 3, 1000].map(|count| discounts.of(count));
        assert_eq!(taken, [0.0, 0.5, 1.25, 1.0, 1.0]);
    }

    #[test]
    fn what_cannot_be_estimated_falls_back() {
        let fallback = Discounts(Discounts::FALLBACK);
        assert_eq!(Discounts::estimate(&[]), fallback);
        assert_eq!(Discounts::estimate(&[1, 2, 3, 9]), fallback);
        // n₁ to n₄ are 1, 1, 3, 1: D₂ = 2 − 3·⅓·3 is negative.
        assert_eq!(Discounts::estimate(&[1, 2, 3, 3, 3, 4]), fallback);
        // 4, 2, 2, 3: D₃₊ = 3 − 4·½·3/2 is zero. After a context with a single count of 3, nothing
        // else would be possible.
        let none_left = [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4];
        assert_eq!(Discounts::estimate(&none_left), fallback);
    }
}
