//! Matrix products over the last dimension, and what stands beside them.

use super::buffer::{contiguous, dims, rows_per_task, tensor, values, values_mut};
use burn::tensor::TensorMetadata;
use burn::tensor::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor};
use multiversion::multiversion;
use rayon::prelude::*;

/// x·weight + bias.
pub(crate) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
) -> FlexTensor {
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    shape[last] = weight.shape()[1];
    let out = Flex::float_matmul(rows(x), weight.clone());
    let out = match bias {
        Some(bias) => add_to_rows(out, bias),
        None => out,
    };
    out.reshape(shape)
}

/// Gradients to x and to the weight.
pub(crate) fn backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    grad: &FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let grad = rows(grad);
    let to_x = Flex::float_matmul(grad.clone(), Flex::float_transpose(weight.clone()));
    let to_weight = Flex::float_matmul(Flex::float_transpose(rows(x)), grad);
    (to_x.reshape(x.shape()), to_weight)
}

/// sum + a·b, in the place of sum if nobody else holds it; `a` and `b` in any layout.
#[expect(unsafe_code, reason = "the product takes pointers and strides")]
pub(crate) fn add_product(mut sum: FlexTensor, a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    let [m, n] = dims(&sum);
    let [_, k] = dims(a);
    let (a_strides, b_strides) = (a.layout().strides(), b.layout().strides());
    let (a_from, b_from) = (a.layout().start_offset(), b.layout().start_offset());
    let (a_values, b_values) = (a.storage::<f32>(), b.storage::<f32>());
    let out = values_mut(&mut sum);
    assert_eq!(out.len(), m * n, "a sum that is contiguous");
    // SAFETY: the sizes were checked by the caller, so that every place that the strides reach lies in its tensor, and `out`
    // is nobody else's.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            a_values.as_ptr().add(a_from),
            a_strides[1],
            a_strides[0],
            b_values.as_ptr().add(b_from),
            b_strides[1],
            b_strides[0],
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
    sum
}

/// Sums over the rows of the last dimension.
pub(crate) fn column_sums(x: &FlexTensor) -> FlexTensor {
    /// Columns of one task: a row's share fills some cache lines.
    const COLUMNS: usize = 1024;
    let x = contiguous(rows(x));
    let width = x.shape()[1];
    let x = values(&x);
    let mut sums = vec![0.0; width];
    sums.par_chunks_mut(COLUMNS)
        .enumerate()
        .for_each(|(i, sums)| add_columns(x, width, i * COLUMNS, sums));
    tensor(sums, [width])
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn add_columns(x: &[f32], width: usize, first: usize, sums: &mut [f32]) {
    for row in x.chunks_exact(width) {
        for (sum, value) in sums.iter_mut().zip(&row[first..]) {
            *sum += value;
        }
    }
}

/// As a matrix of rows of the last dimension.
fn rows(x: &FlexTensor) -> FlexTensor {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    x.reshape([shape.num_elements() / width, width].into())
}

/// x + bias for each row, in the place of x.
fn add_to_rows(mut x: FlexTensor, bias: &FlexTensor) -> FlexTensor {
    let bias = contiguous(bias.clone());
    let width = bias.shape().num_elements();
    let bias = values(&bias);
    values_mut(&mut x)
        .par_chunks_mut(rows_per_task(width) * width)
        .for_each(|rows| add_rows(rows, bias));
    x
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn add_rows(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}
