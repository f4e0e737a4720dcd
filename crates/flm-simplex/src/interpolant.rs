//! The straight line from noise to data, and the velocity of the flow that it defines.
//!
//! Everything here is affine in the states, so it holds in any linear coordinates: dense states of
//! width V, or projected ones h = xE of the model's width (`mathematics.md`, section 6).

use burn::tensor::{Tensor, TensorData, backend::Backend};

/// Converts host numbers, one per row of a batch, to a tensor `[batch]`.
///
/// Times and weights are computed in f64 on the host and rounded once, here.
pub fn rows<B: Backend>(values: &[f64], device: &B::Device) -> Tensor<B, 1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// Reshapes one coefficient per row, `[batch]`, to `[batch, 1, 1]`, to multiply
/// states `[batch, length, width]`.
pub fn broadcast<B: Backend>(per_row: Tensor<B, 1>) -> Tensor<B, 3> {
    let [batch] = per_row.dims();
    per_row.reshape([batch, 1, 1])
}

/// Returns I_t = (1−t)·x₀ + t·x₁, with a time per row.
///
/// `x0` (noise) and `x1` (data) are `[batch, length, width]`. `t` is `[batch]` in \[0, 1\], the
/// geometric time and not τ. At t = 0 and t = 1 the result is exactly `x0` and `x1`.
///
/// # Panics
///
/// If the shapes do not match, as for burn's own operations.
pub fn interpolate<B: Backend>(
    x0: Tensor<B, 3>,
    x1: Tensor<B, 3>,
    t: Tensor<B, 1>,
) -> Tensor<B, 3> {
    let t = broadcast(t);
    x0 * t.clone().neg().add_scalar(1.0) + x1 * t
}

/// Returns the flow's velocity b_t(x) = (D_t(x) − x)/(1 − t + guard), with a time per row.
///
/// `state` x and `mean` D are `[batch, length, width]`, `t` is `[batch]`. The formula of section 1
/// has no guard and is infinite at t = 1. Pass 0 where t stays below 1, as the reference's Eulerian
/// tangent does. Pass [`EULER_GUARD`](crate::flow_map::EULER_GUARD) where the reference adds it.
///
/// # Panics
///
/// If the shapes do not match, as for burn's own operations.
pub fn velocity<B: Backend>(
    state: Tensor<B, 3>,
    mean: Tensor<B, 3>,
    t: Tensor<B, 1>,
    guard: f64,
) -> Tensor<B, 3> {
    (mean - state) / broadcast(t.neg().add_scalar(1.0).add_scalar(guard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::gaussian;
    use burn::tensor::Tolerance;
    use burn_flex::Flex;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn pair() -> (Tensor<Flex, 3>, Tensor<Flex, 3>) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut draw = || gaussian::<Flex, _, 3>([3, 2, 4], &mut rng, &Default::default());
        (draw(), draw())
    }

    #[test]
    fn each_row_has_its_own_time_and_the_ends_are_exact() {
        let (x0, x1) = pair();
        let at = interpolate(
            x0.clone(),
            x1.clone(),
            rows(&[0.0, 0.25, 1.0], &Default::default()),
        );
        let row = |x: &Tensor<Flex, 3>, i: usize| x.clone().narrow(0, i, 1).into_data();
        row(&at, 0).assert_eq(&row(&x0, 0), true);
        row(&at, 2).assert_eq(&row(&x1, 2), true);
        // A quarter is exact in f32: three roundings.
        row(&at, 1).assert_approx_eq::<f32>(
            &row(&(x0 * 0.75 + x1 * 0.25), 1),
            Tolerance::relative(1e-6).set_absolute(1e-6),
        );
    }

    #[test]
    fn with_the_true_endpoint_the_velocity_is_the_difference_of_the_ends() {
        let (x0, x1) = pair();
        let t = rows(&[0.0, 0.3, 0.9], &Default::default());
        let at = interpolate(x0.clone(), x1.clone(), t.clone());
        // Division by 1 − t = 0.1 multiplies the rounding error of 1e-7 by ten.
        velocity(at, x1.clone(), t, 0.0)
            .into_data()
            .assert_approx_eq::<f32>(
                &(x1 - x0).into_data(),
                Tolerance::relative(1e-5).set_absolute(1e-5),
            );
    }

    #[test]
    fn interpolation_commutes_with_a_projection() {
        let (x0, x1) = pair();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let projection = gaussian::<Flex, _, 3>([1, 4, 2], &mut rng, &Default::default());
        let t = rows(&[0.1, 0.5, 0.9], &Default::default());
        let dense = interpolate(x0.clone(), x1.clone(), t.clone()).matmul(projection.clone());
        let projected = interpolate(x0.matmul(projection.clone()), x1.matmul(projection), t);
        // Sums of four products in f32.
        dense.into_data().assert_approx_eq::<f32>(
            &projected.into_data(),
            Tolerance::relative(1e-5).set_absolute(1e-5),
        );
    }
}
