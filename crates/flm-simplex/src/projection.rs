//! Sparsemax: the Euclidean projection onto the simplex (Martins and Astudillo, 2016,
//! arXiv 1602.02068).
//!
//! p = \[z − τ\]₊ with the unique τ for which p sums to one. Points on the simplex stay where
//! they are.
//!
//! τ is found by Newton's method from below. The sum of p is convex, piecewise linear and
//! decreasing in τ, so the iterates rise monotonically and reach the root in a few steps without
//! passing it.

use burn::tensor::{ElementConversion, Tensor, backend::Backend};

/// Newton's method stops when its largest step is at most this: two units in the last place of an
/// f32 τ, which lies in \[−1, 0\].
const SMALLEST_STEP: f64 = 1.2e-7;
/// Upper bound on the number of Newton steps; fewer than ten are needed.
const MOST_STEPS: usize = 200;

/// Projects each row of `scores`, along the last dimension, onto the simplex.
///
/// The result is differentiable in `scores`. A NaN entry stays NaN and does not affect other rows.
///
/// # Panics
///
/// If `scores` is empty.
pub fn sparsemax<B: Backend, const D: usize>(scores: Tensor<B, D>) -> Tensor<B, D> {
    let last = D - 1;
    let largest = scores.clone().detach().max_dim(last);
    let scores = scores - largest;
    let plain = scores.clone().detach();

    let above = |tau: &Tensor<B, D>| (plain.clone() - tau.clone()).clamp_min(0.0);
    let support = |above: Tensor<B, D>| above.greater_elem(0.0).float().sum_dim(last);
    let excess = |above: Tensor<B, D>| above.sum_dim(last).sub_scalar(1.0);
    // At this start the largest score alone contributes one.
    let mut tau = plain.clone().max_dim(last).sub_scalar(1.0);
    for _ in 0..MOST_STEPS {
        let above = above(&tau);
        let step = excess(above.clone()) / support(above);
        tau = tau + step.clone();
        let unknown = step.clone().is_nan();
        let longest: f64 = step.mask_fill(unknown, 0.0).max().into_scalar().elem();
        if longest <= SMALLEST_STEP {
            break;
        }
    }
    // One last step inside the graph: at the root its derivative equals that of τ itself.
    let support = support(above(&tau));
    let excess = excess((scores.clone() - tau.clone()).clamp_min(0.0));
    let tau = tau + excess / support;
    // The clamp of some backends drops NaN.
    (scores - tau)
        .clamp_min(0.0)
        .mask_fill(plain.is_nan(), f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

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

    /// Scores of several sizes and spreads, with ties and far outliers.
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

    /// Sparsemax by bisection in double precision.
    fn oracle(scores: &[f32]) -> Vec<f64> {
        let largest = scores.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let scores: Vec<f64> = scores
            .iter()
            .map(|z| f64::from(*z) - f64::from(largest))
            .collect();
        let at = |tau: f64| -> Vec<f64> { scores.iter().map(|z| (z - tau).max(0.0)).collect() };
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
    fn it_is_the_projection_by_bisection() {
        for batch in scores() {
            let found = rows(sparsemax(tensor::<Flex>(&batch)));
            for (row, scores) in found.iter().zip(&batch) {
                let sum: f64 = row.iter().map(|p| f64::from(*p)).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
                for (p, q) in row.iter().zip(&oracle(scores)) {
                    assert!((f64::from(*p) - q).abs() < 1e-6, "{p} {q}");
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
    }

    #[test]
    fn gradients_are_those_of_the_closed_form() {
        // Jᵀg = g − mean(g) over the support, and zero outside it.
        for batch in scores() {
            let scores = tensor::<Autodiff<Flex>>(&batch).require_grad();
            let p = sparsemax(scores.clone());
            let [count, width] = p.dims();
            let weight = |i: usize| ((i * 37 % 101) as f32 - 40.0) / 50.0;
            let g: Vec<Vec<f32>> = (0..count)
                .map(|r| (0..width).map(|i| weight(r * width + i)).collect())
                .collect();
            let grads = (p.clone() * tensor(&g)).sum().backward();
            let found = rows(scores.grad(&grads).unwrap());
            for (found, (p, g)) in found.iter().zip(rows(p.inner()).iter().zip(&g)) {
                let support = || p.iter().zip(g).filter(|(p, _)| **p > 0.0);
                let sum: f64 = support().map(|(_, g)| f64::from(*g)).sum();
                let mean = sum / support().count() as f64;
                for (found, (p, g)) in found.iter().zip(p.iter().zip(g)) {
                    let expected = if *p > 0.0 { f64::from(*g) - mean } else { 0.0 };
                    assert!(
                        (f64::from(*found) - expected).abs() < 2e-4,
                        "{found} {expected}, p = {p}"
                    );
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
}
