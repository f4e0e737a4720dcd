//! Modulated LayerNorm in f32, with its gradients.

use super::launch::{array, contiguous, cubes, cubes_for, dims, empty, empty_like, total, units};
use super::sums;
use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// The data that the backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct Saved<R: CubeRuntime> {
    /// `[batch, length, width]`.
    x: CubeTensor<R>,
    /// `[width]`.
    weight: CubeTensor<R>,
    /// `[batch, 1, width]`.
    scale: CubeTensor<R>,
    /// Mean and 1/deviation of each row, `[batch·length, 2]`.
    moments: CubeTensor<R>,
}

/// One cube per row.
#[cube(launch)]
fn forward_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    shift: &Array<f32>,
    scale: &Array<f32>,
    out: &mut Array<f32>,
    moments: &mut Array<f32>,
    length: usize,
    width: usize,
    epsilon: f32,
) {
    let row = CUBE_POS;
    if row * width < out.len() {
        let first = row * width;
        let of_batch = row / length * width;
        let unit = UNIT_POS as usize;
        let count = f32::cast_from(width as u32);
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < width {
            sum += x[first + i];
            i += CUBE_DIM as usize;
        }
        let mean = total(sum) / count;
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < width {
            let centred = x[first + i] - mean;
            sum += centred * centred;
            i += CUBE_DIM as usize;
        }
        let inverse = 1.0 / (total(sum) / count + epsilon).sqrt();
        let mut i = unit;
        while i < width {
            let normal = (x[first + i] - mean) * inverse;
            let factor = weight[i] * (1.0 + scale[of_batch + i]);
            out[first + i] = normal * factor + shift[of_batch + i];
            i += CUBE_DIM as usize;
        }
        if unit == 0 {
            moments[2 * row] = mean;
            moments[2 * row + 1] = inverse;
        }
    }
}

/// The gradient to x, one cube per row.
#[cube(launch)]
fn rows_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    scale: &Array<f32>,
    moments: &Array<f32>,
    grad: &Array<f32>,
    out: &mut Array<f32>,
    length: usize,
    width: usize,
) {
    let row = CUBE_POS;
    if row * width < out.len() {
        let first = row * width;
        let of_batch = row / length * width;
        let unit = UNIT_POS as usize;
        let count = f32::cast_from(width as u32);
        let mean = moments[2 * row];
        let inverse = moments[2 * row + 1];
        let mut sum = 0.0f32;
        let mut along = 0.0f32;
        let mut i = unit;
        while i < width {
            let to_normal = grad[first + i] * weight[i] * (1.0 + scale[of_batch + i]);
            sum += to_normal;
            along += to_normal * (x[first + i] - mean) * inverse;
            i += CUBE_DIM as usize;
        }
        let sum = total(sum) / count;
        let along = total(along) / count;
        let mut i = unit;
        while i < width {
            let to_normal = grad[first + i] * weight[i] * (1.0 + scale[of_batch + i]);
            let normal = (x[first + i] - mean) * inverse;
            out[first + i] = (to_normal - sum - normal * along) * inverse;
            i += CUBE_DIM as usize;
        }
    }
}

/// Positions that one unit sums.
const POSITIONS: usize = 32;

/// Σ gradient and Σ gradient·normal over parts of a sequence, `[batch, parts, width]`, one unit per
/// sum.
#[cube(launch)]
fn parts_kernel(
    x: &Array<f32>,
    moments: &Array<f32>,
    grad: &Array<f32>,
    shifts: &mut Array<f32>,
    scales: &mut Array<f32>,
    length: usize,
    width: usize,
    parts: usize,
    each: usize,
) {
    if ABSOLUTE_POS < shifts.len() {
        let column = ABSOLUTE_POS % width;
        let part = ABSOLUTE_POS / width % parts;
        let batch = ABSOLUTE_POS / width / parts;
        let from = part * each;
        let to = min(from + each, length);
        let mut shift = 0.0f32;
        let mut along = 0.0f32;
        for position in from..to {
            let row = batch * length + position;
            let g = grad[row * width + column];
            shift += g;
            along += g * (x[row * width + column] - moments[2 * row]) * moments[2 * row + 1];
        }
        shifts[ABSOLUTE_POS] = shift;
        scales[ABSOLUTE_POS] = along;
    }
}

/// Sums the parts: the gradients to shift and scale, and to the weight for each sequence, each
/// `[batch, width]`.
#[cube(launch)]
fn join_kernel(
    shifts: &Array<f32>,
    scales: &Array<f32>,
    weight: &Array<f32>,
    scale: &Array<f32>,
    to_shift: &mut Array<f32>,
    to_scale: &mut Array<f32>,
    to_weight: &mut Array<f32>,
    width: usize,
    parts: usize,
) {
    if ABSOLUTE_POS < to_shift.len() {
        let column = ABSOLUTE_POS % width;
        let batch = ABSOLUTE_POS / width;
        let mut shift = 0.0f32;
        let mut along = 0.0f32;
        for part in 0..parts {
            let i = (batch * parts + part) * width + column;
            shift += shifts[i];
            along += scales[i];
        }
        to_shift[ABSOLUTE_POS] = shift;
        to_scale[ABSOLUTE_POS] = along * weight[column];
        to_weight[ABSOLUTE_POS] = along * (1.0 + scale[ABSOLUTE_POS]);
    }
}

pub(super) fn forward<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    shift: CubeTensor<R>,
    scale: CubeTensor<R>,
    epsilon: f32,
) -> (CubeTensor<R>, Saved<R>) {
    let [x, weight, shift, scale] = [x, weight, shift, scale].map(contiguous);
    let [batch, length, width] = dims(&x);
    let out = empty_like(&x, DType::F32);
    let moments = empty(&x, [batch * length, 2], DType::F32);
    forward_kernel::launch::<R>(
        &x.client,
        cubes(batch * length),
        units(),
        array(&x),
        array(&weight),
        array(&shift),
        array(&scale),
        array(&out),
        array(&moments),
        length,
        width,
        epsilon,
    );
    let saved = Saved {
        x,
        weight,
        scale,
        moments,
    };
    (out, saved)
}

/// Gradients to x, weight, shift and scale.
pub(super) fn backward<R: CubeRuntime>(saved: Saved<R>, grad: CubeTensor<R>) -> [CubeTensor<R>; 4] {
    let Saved {
        x,
        weight,
        scale,
        moments,
    } = saved;
    let grad = contiguous(grad);
    let [batch, length, width] = dims(&x);
    let to_x = empty_like(&x, DType::F32);
    rows_kernel::launch::<R>(
        &x.client,
        cubes(batch * length),
        units(),
        array(&x),
        array(&weight),
        array(&scale),
        array(&moments),
        array(&grad),
        array(&to_x),
        length,
        width,
    );
    let parts = length.div_ceil(POSITIONS);
    let [shifts, scales] = [(); 2].map(|()| empty(&x, [batch, parts, width], DType::F32));
    parts_kernel::launch::<R>(
        &x.client,
        cubes_for(batch * parts * width),
        units(),
        array(&x),
        array(&moments),
        array(&grad),
        array(&shifts),
        array(&scales),
        length,
        width,
        parts,
        POSITIONS,
    );
    let [to_shift, to_scale] = [(); 2].map(|()| empty(&x, [batch, 1, width], DType::F32));
    let to_weight = empty(&x, [batch, width], DType::F32);
    join_kernel::launch::<R>(
        &x.client,
        cubes_for(batch * width),
        units(),
        array(&shifts),
        array(&scales),
        array(&weight),
        array(&scale),
        array(&to_shift),
        array(&to_scale),
        array(&to_weight),
        width,
        parts,
    );
    [to_x, sums::columns(to_weight), to_shift, to_scale]
}
