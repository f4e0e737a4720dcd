//! The probability that a noisy one-hot vector decodes to the right token.

use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

/// Number of quadrature nodes, as in the reference. The quadrature's error is part of the
/// reference's schedule: for V in the tens of thousands, q(0) is off by half a per cent of 1/V.
/// Another count would be more exact and no longer agree.
const NODES: usize = 100;

/// Nodes with a smaller weight are dropped. This is four orders of magnitude below the rounding of
/// the sum, which is 1.
const NEGLIGIBLE_WEIGHT: f64 = 1e-20;

/// Above this x, 1 − Φ(x) is below 2e-33, so Φ(x) to the power of any vocabulary size is 1 in f64.
const CERTAIN: f64 = 12.0;

/// Gauss–Hermite quadrature for the probability that a noisy one-hot vector decodes correctly.
///
/// For r·e_y + ε with ε ~ N(0, I) in V coordinates, the argmax is y with probability
/// q = E_{z~N(0,1)}\[Φ(z + r)^{V−1}\] (`mathematics.md`, section 2). The schedule uses r = t/(1−t).
/// Any other Gaussian corruption of one-hots uses its own signal-to-noise ratio.
///
/// ```
/// use flm_simplex::decoding::DecodingQuadrature;
///
/// let quadrature = DecodingQuadrature::new();
/// // Without a signal, all four tokens are equally likely.
/// assert!((quadrature.probability(4, 0.0) - 0.25).abs() < 1e-9);
/// // With infinite signal, the right token always wins.
/// assert_eq!(quadrature.probability(4, f64::INFINITY), 1.0);
/// ```
#[derive(Clone, Debug)]
pub struct DecodingQuadrature {
    /// `(z, weight)` for z ~ N(0,1); the weights sum to one.
    nodes: Vec<(f64, f64)>,
}

impl DecodingQuadrature {
    /// Computes the nodes.
    pub fn new() -> Self {
        let pairs = gauss_hermite(NODES);
        let total: f64 = pairs.iter().map(|(_, weight)| weight).sum();
        let nodes = pairs
            .into_iter()
            .map(|(x, weight)| (SQRT_2 * x, weight / total))
            .filter(|(_, weight)| *weight > NEGLIGIBLE_WEIGHT)
            .collect();
        Self { nodes }
    }

    /// Returns q for a vocabulary of `vocab_size` tokens at signal-to-noise ratio `ratio`, in
    /// \[0, 1\].
    ///
    /// `ratio` should be zero or positive; infinity gives one. The sum uses log Φ because
    /// Φ^{V−1} underflows.
    pub fn probability(&self, vocab_size: usize, ratio: f64) -> f64 {
        let others = vocab_size.saturating_sub(1) as f64;
        if ratio == f64::INFINITY || others == 0.0 {
            return 1.0;
        }
        self.nodes
            .iter()
            .map(|(z, weight)| weight * (others * log_normal_cdf(z + ratio)).exp())
            .sum::<f64>()
            .clamp(0.0, 1.0)
    }
}

impl Default for DecodingQuadrature {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the `(node, weight)` pairs of Gauss–Hermite quadrature for the weight e^{−x²}, by
/// increasing node; `count` must be even.
///
/// The nodes are the zeros of the Hermite polynomial. They lie below √(2·count + 1), further apart
/// than a tenth of 1/√(2·count). So a scan brackets each positive node and Newton's method refines
/// it; the negative half is the mirror image.
fn gauss_hermite(count: usize) -> Vec<(f64, f64)> {
    let scale = (2.0 * count as f64).sqrt();
    let cells = 10 * (count + 1) * 2;
    let width = (scale + 1.0) / cells as f64;
    let sign = |cell: usize| hermite(count, cell as f64 * width).0 > 0.0;
    let positive: Vec<(f64, f64)> = (0..cells)
        .filter(|&cell| sign(cell) != sign(cell + 1))
        .map(|cell| {
            let mut x = (cell as f64 + 0.5) * width;
            // Quadratic convergence from a thousandth away: four steps reach rounding, and two more
            // cost nothing.
            for _ in 0..6 {
                let (value, previous) = hermite(count, x);
                x -= value / (scale * previous);
            }
            let (_, previous) = hermite(count, x);
            (x, 1.0 / (count as f64 * previous * previous))
        })
        .collect();
    let negative = positive.iter().rev().map(|(x, weight)| (-x, *weight));
    negative.chain(positive.iter().copied()).collect()
}

/// Returns the orthonormal Hermite polynomials of degree `degree` and `degree` − 1 at `x`. The
/// derivative of the first is √(2·`degree`) times the second.
fn hermite(degree: usize, x: f64) -> (f64, f64) {
    let (mut previous, mut value) = (0.0, PI.powf(-0.25));
    for j in 1..=degree {
        let j = j as f64;
        let next = x * (2.0 / j).sqrt() * value - ((j - 1.0) / j).sqrt() * previous;
        (previous, value) = (value, next);
    }
    (value, previous)
}

/// Returns log Φ(x), accurate to a few units in the last place for x > −38 (where Φ leaves the
/// range of f64).
///
/// For x ≤ 0 it uses erfc, which keeps its relative accuracy in the tail. For x > 0 it uses
/// log(1 − tail), because Φ itself rounds to 1 there and loses the tail, which V−1 then multiplies.
pub(crate) fn log_normal_cdf(x: f64) -> f64 {
    if x > CERTAIN {
        0.0
    } else if x > 0.0 {
        (-0.5 * libm::erfc(x * FRAC_1_SQRT_2)).ln_1p()
    } else {
        (0.5 * libm::erfc(-x * FRAC_1_SQRT_2)).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_cdf_agrees_with_scipy_in_both_tails() {
        // scipy.special.log_ndtr
        for (x, expected) in [
            (-30.0, -454.32124395634327),
            (-20.0, -203.9171553710973),
            (-10.0, -53.23128515051248),
            (-5.0, -15.064998393988727),
            (-1.0, -1.8410216450092634),
            (0.0, -std::f64::consts::LN_2),
            (1.0, -0.1727537790234499),
            (5.0, -2.8665161296376294e-07),
            (9.0, -1.1285884059538324e-19),
        ] {
            let found = log_normal_cdf(x);
            // erfc is accurate to about one unit in the last place; the logarithm does not make it
            // worse here.
            assert!(
                (found / expected - 1.0).abs() < 1e-14,
                "log Φ({x}) = {found}, expected {expected}"
            );
        }
    }

    #[test]
    fn two_tokens_have_a_closed_form() {
        // V = 2: the difference of the two coordinates is N(r, 2), so q = Φ(r/√2).
        let quadrature = DecodingQuadrature::new();
        for ratio in [0.0, 0.3, 1.0, 2.5, 6.0] {
            let exact = log_normal_cdf(ratio * FRAC_1_SQRT_2).exp();
            // Φ is entire, so a hundred nodes are exact to the rounding of about sixty terms.
            assert!(
                (quadrature.probability(2, ratio) - exact).abs() < 1e-13,
                "ratio {ratio}"
            );
        }
    }

    #[test]
    fn a_hundred_nodes_integrate_even_powers_exactly() {
        // ∫ x^{2m}·e^{−x²} dx = Γ(m + ½) is exact up to degree 199 except for rounding. Newton's
        // nodes and weights (relative error 1e-13) carry their error into the m-th power.
        let nodes = gauss_hermite(NODES);
        assert_eq!(nodes.len(), NODES);
        for m in [0, 1, 2, 5, 20, 60, 99] {
            let sum: f64 = nodes.iter().map(|(x, weight)| weight * x.powi(2 * m)).sum();
            let exact = libm::tgamma(f64::from(m) + 0.5);
            assert!(
                (sum / exact - 1.0).abs() < 1e-12,
                "m = {m}: {sum} and {exact}"
            );
        }
    }

    #[test]
    fn one_token_is_always_right() {
        assert_eq!(DecodingQuadrature::new().probability(1, 0.0), 1.0);
    }
}
