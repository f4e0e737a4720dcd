//! Matrix products over the last dimension, and related operations.

use super::buffer::{contiguous, dims, tensor, values, values_mut};
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
    let x = rows(x);
    let out = match bias {
        Some(bias) => add_product(repeated(bias, x.shape()[0]), &x, weight),
        None => product(&x, weight),
    };
    out.reshape(shape)
}

/// Returns the gradient to x.
pub(crate) fn gradient(weight: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let mut shape = grad.shape();
    let last = shape.num_dims() - 1;
    shape[last] = weight.shape()[0];
    product(&rows(grad), &Flex::float_transpose(weight.clone())).reshape(shape)
}

/// Returns the gradient to the weight.
pub(crate) fn weight_gradient(x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    product(&Flex::float_transpose(rows(x)), &rows(grad))
}

/// Returns a·b, with `a` and `b` in any layout.
///
/// The backend's product writes its result to zeroed bytes and copies them to memory aligned for
/// floats. That takes twice the memory for a moment, and two passes over values that the product
/// overwrites anyway.
#[expect(unsafe_code, reason = "the product is the first to write its result")]
pub(crate) fn product(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    let ([m, _], [_, n]) = (dims(a), dims(b));
    let mut out = Vec::with_capacity(m * n);
    // SAFETY: there is room for all m·n values, and all are written.
    unsafe {
        multiply(a, b, out.as_mut_ptr(), false);
        out.set_len(m * n);
    }
    tensor(out, [m, n])
}

/// Returns sum + a·b, in place if `sum` is not shared; `a` and `b` in any layout.
#[expect(unsafe_code, reason = "the product takes pointers")]
pub(crate) fn add_product(mut sum: FlexTensor, a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    let ([m, _], [_, n]) = (dims(a), dims(b));
    let out = values_mut(&mut sum);
    assert_eq!(out.len(), m * n, "sum must have the product's size");
    // SAFETY: `out` holds m·n values and is borrowed exclusively.
    unsafe { multiply(a, b, out.as_mut_ptr(), true) };
    sum
}

/// Writes the m·n values of a·b in row order, or adds them to the values in `out`.
///
/// # Safety
///
/// `out` must point to room for m·n values, which must be initialized if `add` is set.
#[expect(unsafe_code, reason = "the product takes pointers and strides")]
unsafe fn multiply(a: &FlexTensor, b: &FlexTensor, out: *mut f32, add: bool) {
    let ([m, k], [inner, n]) = (dims(a), dims(b));
    assert_eq!(
        k, inner,
        "the first factor must have as many columns as the second has rows"
    );
    let (a_strides, b_strides) = (a.layout().strides(), b.layout().strides());
    let (a_from, b_from) = (a.layout().start_offset(), b.layout().start_offset());
    let (a_values, b_values) = (a.storage::<f32>(), b.storage::<f32>());
    // SAFETY: every index that offsets, sizes and strides reach lies in its tensor, and the caller
    // upholds the contract of `out`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            n as isize,
            add,
            a_values.as_ptr().wrapping_add(a_from),
            a_strides[1],
            a_strides[0],
            b_values.as_ptr().wrapping_add(b_from),
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
}

/// Returns the column sums of the matrix of last-dimension rows.
pub(crate) fn column_sums(x: &FlexTensor) -> FlexTensor {
    /// Columns per task: a row's part fills some cache lines.
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

/// Reshapes to a matrix whose rows are the last dimension.
fn rows(x: &FlexTensor) -> FlexTensor {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    x.reshape([shape.num_elements() / width, width].into())
}

/// Repeats `row` `count` times.
fn repeated(row: &FlexTensor, count: usize) -> FlexTensor {
    let row = contiguous(row.clone());
    tensor(values(&row).repeat(count), [count, dims::<1>(&row)[0]])
}
