//! The gradient of rows that are taken from a matrix.

use super::launch::{array, contiguous, cubes_for, empty, units};
use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// For each position: the next position with the same id, or the number of positions if there is
/// none, and the number of earlier positions with the same id.
#[cube(launch)]
fn links_kernel<I: Int>(
    ids: &Array<I>,
    next: &mut Array<u32>,
    first: &mut Array<u32>,
    #[define(I)] _dtype: StorageType,
) {
    let count = ids.len();
    let position = ABSOLUTE_POS;
    if position < count {
        let id = ids[position];
        let mut before = 0u32;
        for i in 0..position {
            if ids[i] == id {
                before += 1;
            }
        }
        let mut following = u32::cast_from(count);
        for i in position + 1..count {
            let other = count + position - i;
            if ids[other] == id {
                following = u32::cast_from(other);
            }
        }
        next[position] = following;
        first[position] = before;
    }
}

/// One unit per column of each position: the first position with an id sums over all of them.
#[cube(launch)]
fn sums_kernel<I: Int>(
    ids: &Array<I>,
    next: &Array<u32>,
    first: &Array<u32>,
    grad: &Array<f32>,
    out: &mut Tensor<f32>,
    width: usize,
    #[define(I)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < grad.len() {
        let column = ABSOLUTE_POS % width;
        let position = ABSOLUTE_POS / width;
        if first[position] == 0 {
            let mut sum = 0.0f32;
            let mut at = u32::cast_from(position);
            while at < u32::cast_from(ids.len()) {
                sum += grad[at as usize * width + column];
                at = next[at as usize];
            }
            let row = usize::cast_from(ids[position]);
            out[row * out.stride(0) + column] = sum;
        }
    }
}

/// Returns the gradient to a matrix `[rows, width]` from the gradient to its rows `ids`, always
/// summed in the same order.
pub(super) fn backward<R: CubeRuntime>(
    ids: CubeTensor<R>,
    grad: CubeTensor<R>,
    [rows, width]: [usize; 2],
) -> CubeTensor<R> {
    let (ids, grad) = (contiguous(ids), contiguous(grad));
    let count = ids.meta.num_elements();
    let [next, first] = [(); 2].map(|()| empty(&grad, [count], DType::U32));
    links_kernel::launch::<R>(
        &grad.client,
        cubes_for(count),
        units(),
        array(&ids),
        array(&next),
        array(&first),
        ids.dtype.into(),
    );
    let shape = Shape::from(vec![rows, width]);
    let out = zeros_client(grad.client.clone(), grad.device.clone(), shape, DType::F32);
    sums_kernel::launch::<R>(
        &grad.client,
        cubes_for(count * width),
        units(),
        array(&ids),
        array(&next),
        array(&first),
        array(&grad),
        out.clone().into_tensor_arg(),
        width,
        ids.dtype.into(),
    );
    out
}
