//! The Cholesky factor of a Gram matrix and its inverse, in f32 whatever the precision of products.

use super::launch::{UNITS, array, contiguous, cubes, dims, units};
use crate::cholesky::{LEAST, RANK};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::slice;
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::ops::{permute, reshape};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// Rows and columns of a block.
const BLOCK: usize = 32;
/// Entries of a block.
const ENTRIES: usize = BLOCK * BLOCK;
/// Entries of a block per unit: in one column, [`APART`] rows apart.
const EACH: usize = ENTRIES / UNITS;
const APART: usize = UNITS / BLOCK;

/// Copies a block of a matrix without gaps within its rows.
#[cube]
fn load(from: &Array<f32>, first: usize, stride: usize, to: &mut SharedMemory<f32>) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for i in 0..EACH {
        let row = unit / BLOCK + i * APART;
        to[row * BLOCK + unit % BLOCK] = from[first + row * stride + unit % BLOCK];
    }
}

/// Returns an entry of a matrix, extended by the identity.
#[cube]
fn entry(matrix: &Array<f32>, row: usize, column: usize, size: usize) -> f32 {
    let mut value = 0.0f32;
    if row < size && column < size {
        value = matrix[row * size + column];
    } else if row == column {
        value = 1.0f32;
    }
    value
}

/// Computes a row of blocks of \[R, R⁻ᵀ\] from those above it: Rₖₖ⁻ᵀ·(\[S, 1\]ₖ − Σⱼ
/// Rⱼₖᵀ·\[R, R⁻ᵀ\]ⱼ). One cube per block, each of which computes Rₖₖ too.
#[cube(launch)]
fn row_kernel(
    matrix: &Array<f32>,
    made: &mut Array<f32>,
    size: usize,
    padded: usize,
    block: usize,
    rank: f32,
    least: f32,
) {
    let mut corner = SharedMemory::<f32>::new(comptime!(ENTRIES));
    let mut own = SharedMemory::<f32>::new(comptime!(ENTRIES));
    let mut roots = SharedMemory::<f32>::new(comptime!(BLOCK));
    let mut smallest = SharedMemory::<f32>::new(comptime!(BLOCK));
    let unit = UNIT_POS as usize;
    let column = unit % BLOCK;
    let top = block * BLOCK;
    let left = top + CUBE_POS * BLOCK;
    let stride = 2 * padded;

    let mut of_corner = Array::<f32>::new(comptime!(EACH));
    let mut of_own = Array::<f32>::new(comptime!(EACH));
    #[unroll]
    for i in 0..EACH {
        of_corner[i] = 0.0f32;
        of_own[i] = 0.0f32;
    }
    for above in 0..block {
        let first = above * BLOCK * stride;
        load(made, first + top, stride, &mut corner);
        load(made, first + left, stride, &mut own);
        sync_cube();
        for j in 0..BLOCK {
            let beside_corner = corner[j * BLOCK + column];
            let beside_own = own[j * BLOCK + column];
            #[unroll]
            for i in 0..EACH {
                let factor = corner[j * BLOCK + unit / BLOCK + i * APART];
                of_corner[i] += factor * beside_corner;
                of_own[i] += factor * beside_own;
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..EACH {
        let row = unit / BLOCK + i * APART;
        let at = row * BLOCK + column;
        corner[at] = entry(matrix, top + row, top + column, size) - of_corner[i];
        if left < padded {
            own[at] = entry(matrix, top + row, left + column, size) - of_own[i];
        } else {
            let one = top + row == left + column - padded;
            own[at] = select(one, 1.0f32, 0.0f32) - of_own[i];
        }
    }
    if unit < BLOCK {
        smallest[unit] = max(rank * entry(matrix, top + unit, top + unit, size), least);
    }
    sync_cube();

    for pivot in 0..BLOCK {
        let square = corner[pivot * BLOCK + pivot];
        let small = square < smallest[pivot];
        let root = select(small, smallest[pivot], square).sqrt();
        let at = pivot * BLOCK + column;
        if unit < BLOCK {
            if column > pivot {
                corner[at] = select(small, 0.0f32, corner[at] / root);
            } else if column == pivot {
                roots[pivot] = root;
            }
        } else if unit < 2 * BLOCK {
            own[at] = select(small && left < padded, 0.0f32, own[at] / root);
        }
        sync_cube();
        #[unroll]
        for i in 0..EACH {
            let row = unit / BLOCK + i * APART;
            if row > pivot {
                let factor = corner[pivot * BLOCK + row];
                own[row * BLOCK + column] -= factor * own[at];
                if column > pivot {
                    corner[row * BLOCK + column] -= factor * corner[at];
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..EACH {
        let row = unit / BLOCK + i * APART;
        let mut value = own[row * BLOCK + column];
        if left == top && row >= column {
            value = select(row == column, roots[row], 0.0f32);
        }
        made[(top + row) * stride + left + column] = value;
    }
}

/// Returns R and R⁻¹ of `[size, size]`.
pub(super) fn cholesky<R: CubeRuntime>(matrix: CubeTensor<R>) -> [CubeTensor<R>; 2] {
    let matrix = contiguous(matrix);
    let [size, _] = dims(&matrix);
    let blocks = size.div_ceil(BLOCK);
    let padded = blocks * BLOCK;
    // One flat array, because the rows of a matrix of zeros may have gaps between them.
    let numbers = Shape::from(vec![2 * padded * padded]);
    let (client, device) = (matrix.client.clone(), matrix.device.clone());
    let zeros = zeros_client(client, device, numbers, DType::F32);
    let made = reshape(zeros, [padded, 2 * padded].into());
    for block in 0..blocks {
        row_kernel::launch::<R>(
            &matrix.client,
            cubes(blocks + 1),
            units(),
            array(&matrix),
            array(&made),
            size,
            padded,
            block,
            RANK as f32,
            LEAST as f32,
        );
    }
    let part = |first| slice(made.clone(), &[0..size, first..first + size]);
    [part(0), permute(part(padded), &[1, 0])]
}
