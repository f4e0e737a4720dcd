//! Sums over a matrix's columns, and sums of squares.

use super::launch::{UNITS, array, contiguous, cubes, cubes_for, dims, empty, total, units};
use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// Rows that one unit sums.
const ROWS: usize = 64;

/// Column sums of groups of rows, one unit per sum.
#[cube(launch)]
fn columns_kernel<F: Float>(
    x: &Tensor<F>,
    out: &mut Array<f32>,
    rows: usize,
    columns: usize,
    each: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let column = ABSOLUTE_POS % columns;
        let first = ABSOLUTE_POS / columns * each;
        let last = min(first + each, rows);
        let stride = x.stride(0);
        let mut sum = 0.0f32;
        for row in first..last {
            sum += f32::cast_from(x[row * stride + column]);
        }
        out[ABSOLUTE_POS] = sum;
    }
}

/// Σ over the rows of `[rows, columns]`, `[columns]` in f32: first within groups of rows, so that
/// no unit sums many.
pub(super) fn columns<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let mut x = by_rows(x);
    loop {
        let [rows, columns] = dims(&x);
        let groups = rows.div_ceil(ROWS);
        let out = empty(&x, [groups, columns], DType::F32);
        columns_kernel::launch::<R>(
            &x.client,
            cubes_for(groups * columns),
            units(),
            x.clone().into_tensor_arg(),
            array(&out),
            rows,
            columns,
            ROWS,
            x.dtype.into(),
        );
        if groups == 1 {
            return burn_cubecl::ops::reshape(out, [columns].into());
        }
        x = out;
    }
}

/// Returns a matrix without gaps within its rows; gaps between them may remain.
pub(super) fn by_rows<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    if x.meta.strides()[1] == 1 {
        x
    } else {
        contiguous(x)
    }
}

/// Entries that a cube sums.
const CHUNK: usize = 64 * UNITS;

/// Sums of chunks of an array, squared in the first pass, one cube per chunk.
#[cube(launch)]
fn sum_kernel(x: &Array<f32>, out: &mut Array<f32>, each: usize, #[comptime] squared: bool) {
    let first = CUBE_POS * each;
    let last = min(first + each, x.len());
    let mut sum = 0.0f32;
    let mut i = first + UNIT_POS as usize;
    while i < last {
        let value = x[i];
        if comptime!(squared) {
            sum += value * value;
        } else {
            sum += value;
        }
        i += CUBE_DIM as usize;
    }
    let sum = total(sum);
    if UNIT_POS == 0 && CUBE_POS < out.len() {
        out[CUBE_POS] = sum;
    }
}

/// Σ x² in f32, `[1]`.
pub(super) fn of_squares<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let mut x = contiguous(x);
    let mut squared = true;
    loop {
        let count = x.meta.num_elements();
        let chunks = count.div_ceil(CHUNK).max(1);
        let out = empty(&x, [chunks], DType::F32);
        sum_kernel::launch::<R>(
            &x.client,
            cubes(chunks),
            units(),
            array(&x),
            array(&out),
            CHUNK,
            squared,
        );
        if chunks == 1 {
            return out;
        }
        (x, squared) = (out, false);
    }
}
