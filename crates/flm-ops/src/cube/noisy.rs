//! Rows of a tall matrix mixed with noise, and the gradient to that matrix.

use super::launch::{array, contiguous, cubes_for, dims, empty_like, units};
use super::product::{matmul, transposed};
use super::rows;
use burn::tensor::DType;
use burn_cubecl::ops::numeric::add;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// The data that the backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct Saved<R: CubeRuntime> {
    /// `[tall, width]`.
    pub(super) matrix: CubeTensor<R>,
    /// `[rows]`.
    pub(super) ids: CubeTensor<R>,
    /// `[rows]`.
    pub(super) t: CubeTensor<R>,
    /// `[rows, width]`.
    pub(super) z: CubeTensor<R>,
    /// `[width, width]`.
    pub(super) inverse: CubeTensor<R>,
}

/// One unit per entry.
#[cube(launch)]
fn mix_kernel<I: Int>(
    seen: &Array<f32>,
    matrix: &Array<f32>,
    ids: &Array<I>,
    t: &Array<f32>,
    out: &mut Array<f32>,
    width: usize,
    #[define(I)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let row = ABSOLUTE_POS / width;
        let taken = usize::cast_from(ids[row]) * width + ABSOLUTE_POS % width;
        out[ABSOLUTE_POS] = seen[ABSOLUTE_POS] * (1.0 - t[row]) + matrix[taken] * t[row];
    }
}

/// The gradients to noise and to rows, one unit per entry.
#[cube(launch)]
fn part_kernel(
    grad: &Array<f32>,
    t: &Array<f32>,
    noise: &mut Array<f32>,
    taken: &mut Array<f32>,
    width: usize,
) {
    if ABSOLUTE_POS < grad.len() {
        let share = t[ABSOLUTE_POS / width];
        noise[ABSOLUTE_POS] = grad[ABSOLUTE_POS] * (1.0 - share);
        taken[ABSOLUTE_POS] = grad[ABSOLUTE_POS] * share;
    }
}

/// (1 − t)·seen + t·matrix\[ids\].
pub(super) fn forward<R: CubeRuntime>(saved: &Saved<R>, seen: CubeTensor<R>) -> CubeTensor<R> {
    let (seen, matrix) = (contiguous(seen), contiguous(saved.matrix.clone()));
    let out = empty_like(&seen, DType::F32);
    let [rows, width] = dims(&seen);
    mix_kernel::launch::<R>(
        &seen.client,
        cubes_for(rows * width),
        units(),
        array(&seen),
        array(&matrix),
        array(&contiguous(saved.ids.clone())),
        array(&contiguous(saved.t.clone())),
        array(&out),
        width,
        saved.ids.dtype.into(),
    );
    out
}

/// The gradient to the matrix: matrix·R⁻¹·zᵀ·(1 − t)·grad, plus the rows of t·grad at `ids`.
pub(super) fn backward<R: CubeRuntime>(saved: Saved<R>, grad: CubeTensor<R>) -> CubeTensor<R> {
    let grad = contiguous(grad);
    let [rows, width] = dims(&grad);
    let [noise, taken] = [(); 2].map(|()| empty_like(&grad, DType::F32));
    part_kernel::launch::<R>(
        &grad.client,
        cubes_for(rows * width),
        units(),
        array(&grad),
        array(&contiguous(saved.t)),
        array(&noise),
        array(&taken),
        width,
    );
    let by_root = matmul(saved.inverse, matmul(transposed(saved.z), noise));
    let shape = dims(&saved.matrix);
    let through_noise = matmul(saved.matrix, by_root);
    add(through_noise, rows::backward(saved.ids, taken, shape))
}
