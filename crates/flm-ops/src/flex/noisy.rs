//! Rows of a tall matrix mixed with noise, and the gradient to that matrix.

use super::buffer::{dims, rows_per_task, tensor, values, values_mut};
use super::linear::product;
use burn::tensor::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

/// The data that the backward pass needs, apart from the matrix.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    /// Indices of the matrix's rows, one per row of the result.
    pub(crate) ids: Vec<i32>,
    /// Their shares, `[rows]`.
    pub(crate) t: FlexTensor,
    /// `[rows, width]`.
    pub(crate) z: FlexTensor,
    /// `[width, width]`.
    pub(crate) inverse: FlexTensor,
}

/// (1 − t)·seen + t·matrix\[ids\], all contiguous.
pub(crate) fn forward(saved: &Saved, seen: &FlexTensor, matrix: &FlexTensor) -> FlexTensor {
    let [rows, width] = dims(seen);
    let (seen, matrix, t) = (values(seen), values(matrix), values(&saved.t));
    let mut out = vec![0.0; rows * width];
    let task = rows_per_task(width);
    out.par_chunks_mut(task * width)
        .enumerate()
        .for_each(|(i, out)| {
            for (r, out) in out.chunks_exact_mut(width).enumerate() {
                let r = i * task + r;
                let row = &matrix[saved.ids[r] as usize * width..][..width];
                let noise = &seen[r * width..][..width];
                for ((out, noise), row) in out.iter_mut().zip(noise).zip(row) {
                    *out = noise * (1.0 - t[r]) + row * t[r];
                }
            }
        });
    tensor(out, [rows, width])
}

/// Returns the gradient to the matrix.
pub(crate) fn backward(saved: &Saved, matrix: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let [rows, width] = dims(grad);
    let (upstream, t) = (values(grad), values(&saved.t));
    let mut noise = upstream.to_vec();
    for (row, t) in noise.chunks_exact_mut(width).zip(t) {
        row.iter_mut().for_each(|value| *value *= 1.0 - t);
    }
    let by_z = Flex::float_transpose(saved.z.clone());
    let by_z = product(&by_z, &tensor(noise, [rows, width]));
    let by_root = product(&saved.inverse, &by_z);
    let mut made = product(matrix, &by_root);
    let out = values_mut(&mut made);
    for ((id, t), upstream) in saved.ids.iter().zip(t).zip(upstream.chunks_exact(width)) {
        for (out, upstream) in out[*id as usize * width..][..width]
            .iter_mut()
            .zip(upstream)
        {
            *out += t * upstream;
        }
    }
    made
}
