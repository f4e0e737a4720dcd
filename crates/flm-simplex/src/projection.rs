//! Maps onto the simplex that can answer exact zeros: sparsemax and α-entmax.
//!
//! α-entmax (Peters, Niculae and Martins 2019, arXiv 1905.05702) is the p on the simplex that maximizes p·z + H_α(p) with the
//! Tsallis entropy H_α: p = \[(α−1)·z − τ\]₊^{1/(α−1)}, with the one τ for which p sums to one. α = 1 is softmax, and α = 2
//! sparsemax (Martins and Astudillo 2016, arXiv 1602.02068), the Euclidean projection: what already lies on the simplex stays.
//!
//! τ is found by Newton's method from below. The sum of p is convex and decreasing in τ, so the steps rise to the root and
//! never pass it; for sparsemax it is piecewise linear, and the root is met exactly after a few steps.

use burn::tensor::activation::softmax;
use burn::tensor::{ElementConversion, Tensor, backend::Backend};

/// Newton's steps are over when the largest is no larger: two units in the last place of an f32 τ, which lies in \[−1, 0\].
const SMALLEST_STEP: f64 = 1.2e-7;
/// A bound on their number; a few dozen are needed near α = 1, fewer than ten elsewhere.
const MOST_STEPS: usize = 200;

/// The point of the simplex next to `scores`, for each row of the last dimension.
///
/// A gradient flows through it, where there is a graph.
pub fn sparsemax<B: Backend, const D: usize>(scores: Tensor<B, D>) -> Tensor<B, D> {
    entmax(scores, 2.0)
}

/// α-entmax of each row of the last dimension: softmax at α = 1, and the sparser the larger α, to sparsemax at 2.
///
/// A gradient flows through it, where there is a graph. An entry that is not a number stays so.
///
/// # Panics
///
/// If `alpha` lies outside \[1, 2\], or `scores` is empty.
pub fn entmax<B: Backend, const D: usize>(scores: Tensor<B, D>, alpha: f64) -> Tensor<B, D> {
    assert!(
        (1.0..=2.0).contains(&alpha),
        "entmax: alpha must lie between 1 and 2, found {alpha}"
    );
    let last = D - 1;
    if alpha == 1.0 {
        return softmax(scores, last);
    }
    let exponent = 1.0 / (alpha - 1.0);
    let largest = scores.clone().detach().max_dim(last);
    let scores = (scores - largest).mul_scalar(alpha - 1.0);
    let plain = scores.clone().detach();

    let above = |tau: &Tensor<B, D>| (plain.clone() - tau.clone()).clamp_min(0.0);
    let slope = |above: Tensor<B, D>| {
        let support = above.clone().greater_elem(0.0).float();
        (above.powf_scalar(exponent - 1.0) * support)
            .sum_dim(last)
            .mul_scalar(exponent)
    };
    let excess = |above: Tensor<B, D>| above.powf_scalar(exponent).sum_dim(last).sub_scalar(1.0);
    // Here the largest score alone makes one.
    let mut tau = plain.clone().max_dim(last).sub_scalar(1.0);
    for _ in 0..MOST_STEPS {
        let above = above(&tau);
        let step = excess(above.clone()) / slope(above);
        tau = tau + step.clone();
        let unknown = step.clone().is_nan();
        let longest: f64 = step.mask_fill(unknown, 0.0).max().into_scalar().elem();
        if longest <= SMALLEST_STEP {
            break;
        }
    }
    // A last step within the graph: at the root its derivative is that of τ itself.
    let slope = slope(above(&tau));
    let excess = excess((scores.clone() - tau.clone()).clamp_min(0.0));
    let tau = tau + excess / slope;
    // A backend may clamp what is not a number.
    (scores - tau)
        .clamp_min(0.0)
        .powf_scalar(exponent)
        .mask_fill(plain.is_nan(), f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const ALPHAS: [f64; 5] = [1.05, 1.3, 1.5, 1.8, 2.0];

    fn tensor<B: Backend>(rows: &[Vec<f32>]) -> Tensor<B, 2> {
        let values: Vec<f32> = rows.concat();
        Tensor::<B, 1>::from_floats(values.as_slice(), &Default::default())
            .reshape([rows.len(), rows[0].len()])
    }

    fn rows<B: Backend>(x: Tensor<B, 2>) -> Vec<Vec<f32>> {
        let [_, width] = x.dims();
        let values: Vec<f32> = x.into_data().to_vec().unwrap();
        values.chunks(width).map(<[f32]>::to_vec).collect()
    }

    /// Scores of several sizes and spreads, ties and far outliers among them.
    fn scores() -> Vec<Vec<Vec<f32>>> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut drawn: Vec<Vec<Vec<f32>>> =
            [(4, 1, 1.0), (5, 3, 0.1), (6, 61, 3.0), (3, 5_003, 2.0)]
                .map(|(count, width, spread)| {
                    let mut row = || {
                        (0..width)
                            .map(|_| rng.random_range(-spread..spread))
                            .collect()
                    };
                    (0..count).map(|_| row()).collect()
                })
                .to_vec();
        drawn.push(vec![
            vec![1.0, 1.0, 1.0, 0.0],
            vec![0.0; 4],
            vec![1e4, 0.0, -1e4, 9_999.5],
            vec![-3.0, -2.0, f32::NEG_INFINITY, -2.5],
        ]);
        drawn
    }

    /// By bisection in double precision.
    fn oracle(scores: &[f32], alpha: f64) -> Vec<f64> {
        let largest = scores.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let scores: Vec<f64> = scores
            .iter()
            .map(|z| (alpha - 1.0) * (f64::from(*z) - f64::from(largest)))
            .collect();
        let at = |tau: f64| -> Vec<f64> {
            let power = |z: &f64| (z - tau).max(0.0).powf(1.0 / (alpha - 1.0));
            scores.iter().map(power).collect()
        };
        let (mut low, mut high) = (-1.0, 0.0);
        for _ in 0..200 {
            let middle = (low + high) / 2.0;
            if at(middle).iter().sum::<f64>() > 1.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        at(low)
    }

    #[test]
    fn they_are_the_maximizers_by_bisection() {
        for batch in scores() {
            for alpha in ALPHAS {
                let found = rows(entmax(tensor::<Flex>(&batch), alpha));
                for (row, scores) in found.iter().zip(&batch) {
                    let expected = oracle(scores, alpha);
                    let sum: f64 = row.iter().map(|p| f64::from(*p)).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{sum} at {alpha}");
                    for (p, q) in row.iter().zip(&expected) {
                        // A rounding of τ is multiplied by 1/(α−1).
                        let bound = 1e-6 / (alpha - 1.0);
                        assert!((f64::from(*p) - q).abs() < bound, "{p} {q} at {alpha}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_lies_on_the_simplex_stays_and_what_is_far_below_is_zero() {
        let on = [vec![0.2, 0.5, 0.3], vec![0.0, 1.0, 0.0]];
        for (found, expected) in rows(sparsemax(tensor::<Flex>(&on)))
            .concat()
            .iter()
            .zip(on.concat())
        {
            assert!((found - expected).abs() < 2e-7, "{found} {expected}");
        }
        let found = rows(sparsemax(tensor::<Flex>(&[vec![0.4, -0.2, 0.9]])));
        assert_eq!(found[0][1], 0.0);
        let one = rows(entmax(tensor::<Flex>(&[vec![0.4, -0.2, 0.9]]), 1.0));
        let same = rows(softmax(tensor::<Flex>(&[vec![0.4, -0.2, 0.9]]), 1));
        assert_eq!(one, same);
    }

    #[test]
    fn gradients_are_those_of_the_closed_form() {
        // Jᵀg = s·(g − Σsg/Σs) with s = p^(2−α) on the support.
        for batch in scores() {
            for alpha in ALPHAS {
                let scores = tensor::<Autodiff<Flex>>(&batch).require_grad();
                let p = entmax(scores.clone(), alpha);
                let [count, width] = p.dims();
                let weight = |i: usize| ((i * 37 % 101) as f32 - 40.0) / 50.0;
                let g: Vec<Vec<f32>> = (0..count)
                    .map(|r| (0..width).map(|i| weight(r * width + i)).collect())
                    .collect();
                let grads = (p.clone() * tensor(&g)).sum().backward();
                let found = rows(scores.grad(&grads).unwrap());
                for (found, (p, g)) in found.iter().zip(rows(p.inner()).iter().zip(&g)) {
                    let s = |p: &f32| {
                        if *p > 0.0 {
                            f64::from(*p).powf(2.0 - alpha)
                        } else {
                            0.0
                        }
                    };
                    let total: f64 = p.iter().map(s).sum();
                    let mean = p
                        .iter()
                        .zip(g)
                        .map(|(p, g)| s(p) * f64::from(*g))
                        .sum::<f64>()
                        / total;
                    for (found, (p, g)) in found.iter().zip(p.iter().zip(g)) {
                        let expected = s(p) * (f64::from(*g) - mean);
                        let bound = 2e-4 * (alpha - 1.0).recip();
                        assert!(
                            (f64::from(*found) - expected).abs() < bound,
                            "{found} {expected} at {alpha}, p = {p}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_in_its_row() {
        let found = rows(sparsemax(tensor::<Flex>(&[
            vec![0.0, f32::NAN, 1.0],
            vec![0.2, 0.5, 0.3],
        ])));
        assert!(found[0].iter().any(|p| p.is_nan()));
        for (p, q) in found[1].iter().zip([0.2, 0.5, 0.3]) {
            assert!((p - q).abs() < 2e-7, "{p} {q}");
        }
    }

    #[test]
    #[should_panic(expected = "alpha must lie between 1 and 2, found 2.5")]
    fn an_alpha_beyond_two_is_refused() {
        let _ = entmax(tensor::<Flex>(&[vec![0.0, 1.0]]), 2.5);
    }
}
