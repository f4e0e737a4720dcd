//! GELU in its tanh form: ½x(1 + tanh u) = x·sigmoid(2u), u = √(2/π)(x + 0.044715x³).

use super::buffer::{contiguous, rows_per_task, tensor, values, values_mut};
use super::math::sigmoid;
use burn::tensor::TensorMetadata;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// 2√(2/π).
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

pub(crate) fn forward(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let (input, task) = (values(&x), rows_per_task(1));
    let mut out = vec![0.0; input.len()];
    out.par_chunks_mut(task)
        .zip(input.par_chunks(task))
        .for_each(|(out, x)| forward_slice(x, out));
    tensor(out, x.shape())
}

/// Returns the upstream gradient times the slope, in place if the gradient is not shared.
pub(crate) fn backward(x: &FlexTensor, mut grad: FlexTensor) -> FlexTensor {
    let (input, task) = (values(x), rows_per_task(1));
    values_mut(&mut grad)
        .par_chunks_mut(task)
        .zip(input.par_chunks(task))
        .for_each(|(grad, x)| backward_slice(x, grad));
    grad
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn forward_slice(x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x * sigmoid(SLOPE * x * (1.0 + CUBIC * x * x));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn backward_slice(x: &[f32], grad: &mut [f32]) {
    for (grad, &x) in grad.iter_mut().zip(x) {
        let s = sigmoid(SLOPE * x * (1.0 + CUBIC * x * x));
        let slope = SLOPE * (1.0 + 3.0 * CUBIC * x * x);
        *grad *= s + x * s * (1.0 - s) * slope;
    }
}
