//! Parameter updates of optimizers.

use crate::route::{Route, route};
use crate::{check, cube, flex, matmul, primitive, wrap};
use burn::tensor::{Tensor, backend::Backend};
use burn_flex::Flex;

/// A step of AdamW, with decoupled weight decay (Loshchilov and Hutter, 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Decay of the parameters per step, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Number of this step, counted from 1, for moments that started from zero.
    pub time: usize,
}

/// Returns a parameter after a step of [`AdamW`] along `grad`, with its first and second moment.
///
/// A kernel makes one pass, in place for tensors that are not shared.
///
/// # Panics
///
/// Panics if the shapes differ.
pub fn adamw<B: Backend, const D: usize>(
    rule: &AdamW,
    param: Tensor<B, D>,
    grad: Tensor<B, D>,
    first: Tensor<B, D>,
    second: Tensor<B, D>,
) -> [Tensor<B, D>; 3] {
    let dims = param.dims();
    for (name, found) in [
        ("grad", grad.dims()),
        ("first", first.dims()),
        ("second", second.dims()),
    ] {
        check::shape("adamw", name, &found, &dims, ("param", &dims));
    }
    match route::<B>(param.dtype()) {
        Route::Flex => {
            let [param, grad, first, second] =
                [param, grad, first, second].map(primitive::<Flex, B, D>);
            flex::update::adamw(rule, param, grad, first, second).map(wrap::<Flex, B, D>)
        }
        Route::AutodiffFlex | Route::Composed => cube::adamw(rule, param, grad, first, second),
    }
}

/// Returns `decay`·average + (1 − `decay`)·live.
///
/// # Panics
///
/// Panics if the shapes differ.
pub fn blend<B: Backend, const D: usize>(
    average: Tensor<B, D>,
    live: Tensor<B, D>,
    decay: f64,
) -> Tensor<B, D> {
    let beside = ("average", &average.dims()[..]);
    check::shape("blend", "live", &live.dims(), &average.dims(), beside);
    match route::<B>(average.dtype()) {
        Route::Flex => {
            let [average, live] = [average, live].map(primitive::<Flex, B, D>);
            wrap::<Flex, B, D>(flex::update::blend(average, live, decay as f32))
        }
        Route::AutodiffFlex | Route::Composed => cube::blend(average, live, decay),
    }
}

/// Returns Σ x² over all entries, `[1]`.
pub fn sum_of_squares<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 1> {
    match route::<B>(x.dtype()) {
        Route::Flex => {
            let x = primitive::<Flex, B, D>(x);
            wrap::<Flex, B, 1>(flex::update::sum_of_squares(x))
        }
        Route::AutodiffFlex | Route::Composed => cube::sum_of_squares(x),
    }
}

/// Returns x·`factor`, computed in place if x is not shared.
pub fn scale<B: Backend, const D: usize>(x: Tensor<B, D>, factor: f64) -> Tensor<B, D> {
    match route::<B>(x.dtype()) {
        Route::Flex => {
            let x = primitive::<Flex, B, D>(x);
            wrap::<Flex, B, D>(flex::update::scale(x, factor as f32))
        }
        Route::AutodiffFlex | Route::Composed => x.mul_scalar(factor),
    }
}

/// Coefficients of the quintic in [`orthogonal`]: of X, XXᵀX and (XXᵀ)²X.
const QUINTIC: [f64; 3] = [3.4445, -4.775, 2.0315];
/// The smallest norm that [`orthogonal`] divides a matrix by.
const LEAST_NORM: f64 = 1e-7;

/// Returns an approximation of UVᵀ for each matrix UΣVᵀ, `[count, rows, columns]`.
///
/// It uses `steps` Newton–Schulz steps, as [Muon](https://kellerjordan.github.io/posts/muon/) does:
/// the singular values move close to one.
pub fn orthogonal<B: Backend>(matrices: Tensor<B, 3>, steps: usize) -> Tensor<B, 3> {
    let [_, rows, columns] = matrices.dims();
    let wide = |x: Tensor<B, 3>| if rows > columns { x.swap_dims(1, 2) } else { x };
    let x = wide(matrices);
    let norm = (x.clone() * x.clone()).sum_dim(2).sum_dim(1).sqrt();
    let mut x = x / norm.clamp_min(LEAST_NORM);
    let [first, third, fifth] = QUINTIC;
    for _ in 0..steps {
        let squares = matmul(x.clone(), x.clone().swap_dims(1, 2));
        let fourths = matmul(squares.clone(), squares.clone());
        let factor = squares.mul_scalar(third) + fourths.mul_scalar(fifth);
        x = x.clone().mul_scalar(first) + matmul(factor, x);
    }
    wide(x)
}
