//! x + gate·branch, for a branch in f32 or bf16, with its gradients.

use super::launch::{array, contiguous, cubes_for, dims, empty, empty_like, units};
use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

#[cube(launch)]
fn forward_kernel<F: Float>(
    x: &Array<f32>,
    branch: &Array<F>,
    gate: &Array<f32>,
    out: &mut Array<f32>,
    length: usize,
    width: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let of_batch = ABSOLUTE_POS / (length * width) * width + ABSOLUTE_POS % width;
        let branch = f32::cast_from(branch[ABSOLUTE_POS]);
        out[ABSOLUTE_POS] = x[ABSOLUTE_POS] + branch * gate[of_batch];
    }
}

#[cube(launch)]
fn branch_kernel<F: Float>(
    gate: &Array<f32>,
    grad: &Array<f32>,
    out: &mut Array<F>,
    length: usize,
    width: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let of_batch = ABSOLUTE_POS / (length * width) * width + ABSOLUTE_POS % width;
        out[ABSOLUTE_POS] = F::cast_from(grad[ABSOLUTE_POS] * gate[of_batch]);
    }
}

/// Positions that one unit sums.
const POSITIONS: usize = 32;

/// Σ gradient·branch over parts of a sequence, `[batch, parts, width]`, one unit per sum.
#[cube(launch)]
fn parts_kernel<F: Float>(
    branch: &Array<F>,
    grad: &Array<f32>,
    out: &mut Array<f32>,
    length: usize,
    width: usize,
    parts: usize,
    each: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let column = ABSOLUTE_POS % width;
        let part = ABSOLUTE_POS / width % parts;
        let batch = ABSOLUTE_POS / width / parts;
        let from = part * each;
        let to = min(from + each, length);
        let mut sum = 0.0f32;
        for position in from..to {
            let i = (batch * length + position) * width + column;
            sum += grad[i] * f32::cast_from(branch[i]);
        }
        out[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn join_kernel(sums: &Array<f32>, out: &mut Array<f32>, width: usize, parts: usize) {
    if ABSOLUTE_POS < out.len() {
        let column = ABSOLUTE_POS % width;
        let batch = ABSOLUTE_POS / width;
        let mut sum = 0.0f32;
        for part in 0..parts {
            sum += sums[(batch * parts + part) * width + column];
        }
        out[ABSOLUTE_POS] = sum;
    }
}

/// `x` and `branch` `[batch, length, width]`, `gate` `[batch, 1, width]`.
pub(super) fn forward<R: CubeRuntime>(
    x: CubeTensor<R>,
    branch: CubeTensor<R>,
    gate: CubeTensor<R>,
) -> CubeTensor<R> {
    let [x, branch, gate] = [x, branch, gate].map(contiguous);
    let [_, length, width] = dims(&x);
    let out = empty_like(&x, DType::F32);
    forward_kernel::launch::<R>(
        &x.client,
        cubes_for(x.meta.num_elements()),
        units(),
        array(&x),
        array(&branch),
        array(&gate),
        array(&out),
        length,
        width,
        branch.dtype.into(),
    );
    out
}

/// Returns the gradients to branch and gate; the one to x is `grad`.
pub(super) fn backward<R: CubeRuntime>(
    branch: CubeTensor<R>,
    gate: CubeTensor<R>,
    grad: CubeTensor<R>,
) -> [CubeTensor<R>; 2] {
    let [branch, gate, grad] = [branch, gate, grad].map(contiguous);
    let [batch, length, width] = dims(&branch);
    let to_branch = empty_like(&branch, branch.dtype);
    branch_kernel::launch::<R>(
        &grad.client,
        cubes_for(grad.meta.num_elements()),
        units(),
        array(&gate),
        array(&grad),
        array(&to_branch),
        length,
        width,
        branch.dtype.into(),
    );
    let parts = length.div_ceil(POSITIONS);
    let sums = empty(&grad, [batch, parts, width], DType::F32);
    parts_kernel::launch::<R>(
        &grad.client,
        cubes_for(batch * parts * width),
        units(),
        array(&branch),
        array(&grad),
        array(&sums),
        length,
        width,
        parts,
        POSITIONS,
        branch.dtype.into(),
    );
    let to_gate = empty_like(&gate, DType::F32);
    join_kernel::launch::<R>(
        &grad.client,
        cubes_for(batch * width),
        units(),
        array(&sums),
        array(&to_gate),
        width,
        parts,
    );
    [to_branch, to_gate]
}
