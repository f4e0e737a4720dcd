//! The algebra of flow maps: how a two-time denoiser moves a state, and how two moves compose.
//!
//! X_{s,t}(x) = (1−t)/(1−s)·x + (t−s)/(1−s)·δ_{s,t}(x) (`mathematics.md`, section 1). The two
//! coefficients add to one, so the result lies on the segment from the state to δ, at the fraction
//! [`endpoint_weight`]. All times here are t, never τ.

use burn::tensor::{Tensor, backend::Backend};

use crate::interpolant::broadcast;

/// Guard that the reference adds to 1 − t in the denominators of the Euler sampler and of the
/// residual recipe.
///
/// It keeps the velocity finite at t = 1. Elsewhere it shortens each step by the fraction
/// 1e-5/(1−t). That is enough to change a close argmax, so samples agree with the reference only
/// with it.
pub const EULER_GUARD: f64 = 1e-5;

/// Guard that the reference adds to the denominators of the distillation weights.
///
/// It makes the weight of a row with s = t zero instead of 0/0.
pub const DISTILLATION_GUARD: f64 = 1e-8;

/// Replaces 1 − s where that is zero; smaller than any other 1 − s in f32 (6e-8 and up).
const SMALLEST_REMAINDER: f64 = 1e-8;

/// Returns (t−s)/(1−s), the weight of δ in X_{s,t}; the state has the remaining weight.
///
/// It is one at t = 1, where the result is δ itself. It is zero at s = t, where the state stays,
/// also if both are 1.
pub fn endpoint_weight(s: f64, t: f64) -> f64 {
    (t - s) / (1.0 - s).max(SMALLEST_REMAINDER)
}

/// Returns the [`endpoint_weight`] of each row; `s`, `t` and the result are `[batch]`.
pub fn endpoint_weights<B: Backend>(s: Tensor<B, 1>, t: Tensor<B, 1>) -> Tensor<B, 1> {
    let remainder = s
        .clone()
        .neg()
        .add_scalar(1.0)
        .clamp_min(SMALLEST_REMAINDER);
    (t - s) / remainder
}

/// Returns γ = (1−t)(u−s)/((1−u)(t−s)), the weight of the first half in the semigroup target.
///
/// The target is δ_{s,t}(x) = γ·δ_{s,u}(x) + (1−γ)·δ_{u,t}(X_{s,u}(x)), for s ≤ u ≤ t. γ lies in
/// \[0, 1\]; [`DISTILLATION_GUARD`] is added to the denominator. It is zero at s = t, and at t = 1,
/// where all of the target comes from the second half (the boundary row).
///
/// Derivation: with the signal-to-noise ratio r = t/(1−t) as time, δ_{s,t} is the plain
/// average of D along the path from r_s to r_t. γ is the first part's share of that
/// length, (r_u − r_s)/(r_t − r_s).
pub fn semigroup_weight(s: f64, u: f64, t: f64) -> f64 {
    (1.0 - t) * (u - s) / ((1.0 - u) * (t - s) + DISTILLATION_GUARD)
}

/// Returns the [`semigroup_weight`] of each row; the arguments and the result are `[batch]`.
pub fn semigroup_weights<B: Backend>(
    s: Tensor<B, 1>,
    u: Tensor<B, 1>,
    t: Tensor<B, 1>,
) -> Tensor<B, 1> {
    let remaining = |x: Tensor<B, 1>| x.neg().add_scalar(1.0);
    let above = remaining(t.clone()) * (u.clone() - s.clone());
    let below = remaining(u) * (t - s);
    above / below.add_scalar(DISTILLATION_GUARD)
}

/// Returns X_{s,t}(x), with a pair of times per row.
///
/// `x` (the state) and `delta` (δ_{s,t} at it) are `[batch, length, width]`, dense or projected;
/// `s` and `t` are `[batch]`. The result is finite for all 0 ≤ s ≤ t ≤ 1. Rows with s = t give x
/// and rows with t = 1 give δ, both exactly.
///
/// # Panics
///
/// If the shapes do not match, as for burn's own operations.
pub fn transport<B: Backend>(
    x: Tensor<B, 3>,
    delta: Tensor<B, 3>,
    s: Tensor<B, 1>,
    t: Tensor<B, 1>,
) -> Tensor<B, 3> {
    let weight = broadcast(endpoint_weights(s, t));
    x * weight.clone().neg().add_scalar(1.0) + delta * weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpolant::rows;
    use crate::noise::gaussian;
    use burn::tensor::Tolerance;
    use burn_flex::Flex;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const PAIRS: [(f64, f64); 6] = [
        (0.0, 1.0),
        (0.0, 0.0),
        (0.4, 0.4),
        (1.0, 1.0),
        (0.3, 0.9),
        (0.7, 1.0),
    ];

    #[test]
    fn staying_is_the_identity_and_arriving_is_delta() {
        let (s, t): (Vec<f64>, Vec<f64>) = PAIRS.into_iter().unzip();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let device = Default::default();
        let x = gaussian::<Flex, _, 3>([6, 2, 3], &mut rng, &device);
        let delta = gaussian::<Flex, _, 3>([6, 2, 3], &mut rng, &device);
        let moved = transport(
            x.clone(),
            delta.clone(),
            rows(&s, &device),
            rows(&t, &device),
        );
        let row = |x: &Tensor<Flex, 3>, i: usize| x.clone().narrow(0, i, 1).into_data();
        for (i, (s, t)) in PAIRS.into_iter().enumerate() {
            if s == t {
                row(&moved, i).assert_eq(&row(&x, i), true);
            } else if t == 1.0 {
                row(&moved, i).assert_eq(&row(&delta, i), true);
            } else {
                let expected =
                    x.clone() * ((1.0 - t) / (1.0 - s)) + delta.clone() * ((t - s) / (1.0 - s));
                // Weights in f32 from times in f32: a few roundings.
                row(&moved, i).assert_approx_eq::<f32>(
                    &row(&expected, i),
                    Tolerance::relative(1e-5).set_absolute(1e-6),
                );
            }
        }
    }

    #[test]
    fn rows_and_plain_numbers_have_the_same_weights() {
        let (s, t): (Vec<f64>, Vec<f64>) = PAIRS.into_iter().unzip();
        let u: Vec<f64> = PAIRS.iter().map(|(s, t)| 0.5 * (s + t)).collect();
        let row = |values: &[f64]| rows::<Flex>(values, &Default::default());
        let endpoint: Vec<f64> = endpoint_weights(row(&s), row(&t))
            .into_data()
            .iter()
            .collect();
        let semigroup: Vec<f64> = semigroup_weights(row(&s), row(&u), row(&t))
            .into_data()
            .iter()
            .collect();
        for i in 0..PAIRS.len() {
            // Differences of f32 times of order one, divided by at least 0.1.
            assert!(
                (endpoint[i] - endpoint_weight(s[i], t[i])).abs() < 1e-6,
                "{:?}",
                PAIRS[i]
            );
            assert!(
                (semigroup[i] - semigroup_weight(s[i], u[i], t[i])).abs() < 1e-6,
                "{:?}",
                PAIRS[i]
            );
        }
    }

    #[test]
    fn the_semigroup_weight_is_the_share_of_the_signal_to_noise_ratio() {
        let ratio = |t: f64| t / (1.0 - t);
        for (s, u, t) in [(0.0, 0.3, 0.6), (0.2, 0.7, 0.9), (0.5, 0.51, 0.95)] {
            let share = (ratio(u) - ratio(s)) / (ratio(t) - ratio(s));
            let weight = semigroup_weight(s, u, t);
            // The guard of 1e-8 against denominators of at least 0.1.
            assert!((weight / share - 1.0).abs() < 1e-6, "{weight} and {share}");
        }
        assert_eq!(semigroup_weight(0.0, 0.6, 1.0), 0.0);
        assert_eq!(semigroup_weight(0.4, 0.4, 0.4), 0.0);
        assert_eq!(semigroup_weight(1.0, 1.0, 1.0), 0.0);
    }
}
