//! A gated residual: x + gate·mask·branch, with one gate per sequence.

use super::buffer::{contiguous, dims, rows_per_task, tensor, values};
use crate::Mask;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// `x` and `branch` `[batch, length, width]`, `gate` `[batch, 1, width]`.
pub(crate) fn forward(
    x: FlexTensor,
    branch: &FlexTensor,
    gate: &FlexTensor,
    mask: Option<Mask>,
) -> FlexTensor {
    let [batch, length, width] = dims(&x);
    let x = contiguous(x);
    let (x, branch, gate) = (values(&x), values(branch), values(gate));
    let (block, task) = (length * width, rows_per_task(width) * width);
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(block)
        .zip(x.par_chunks(block).zip(branch.par_chunks(block)))
        .enumerate()
        .for_each(|(b, (out, (x, branch)))| {
            let gate = &gate[b * width..(b + 1) * width];
            out.par_chunks_mut(task)
                .zip(x.par_chunks(task).zip(branch.par_chunks(task)))
                .enumerate()
                .for_each(|(i, (out, (x, branch)))| {
                    let first = (b * block + i * task) as u32;
                    forward_rows(x, branch, gate, mask, first, out);
                });
        });
    tensor(out, [batch, length, width])
}

/// Returns the gradients to branch and gate; the one to x is the upstream gradient itself.
pub(crate) fn backward(
    branch: &FlexTensor,
    gate: &FlexTensor,
    mask: Option<Mask>,
    grad: &FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let [batch, length, width] = dims(branch);
    let (branch, gate, grad) = (values(branch), values(gate), values(grad));
    let (block, task) = (length * width, rows_per_task(width) * width);
    let tasks = block.div_ceil(task);
    let mut dbranch = vec![0.0; branch.len()];
    // Σ mask·branch·grad over the rows of each task.
    let mut sums = vec![0.0; batch * tasks * width];
    dbranch
        .par_chunks_mut(block)
        .zip(branch.par_chunks(block).zip(grad.par_chunks(block)))
        .zip(sums.par_chunks_mut(tasks * width))
        .enumerate()
        .for_each(|(b, ((dbranch, (branch, grad)), sums))| {
            let gate = &gate[b * width..(b + 1) * width];
            dbranch
                .par_chunks_mut(task)
                .zip(branch.par_chunks(task).zip(grad.par_chunks(task)))
                .zip(sums.par_chunks_mut(width))
                .enumerate()
                .for_each(|(i, ((dbranch, (branch, grad)), dgate))| {
                    let first = (b * block + i * task) as u32;
                    backward_rows(branch, gate, mask, first, grad, dbranch, dgate);
                });
        });
    let mut dgate = vec![0.0; batch * width];
    for (i, sums) in sums.chunks_exact(width).enumerate() {
        let to = &mut dgate[i / tasks * width..(i / tasks + 1) * width];
        for (total, part) in to.iter_mut().zip(sums) {
            *total += part;
        }
    }
    (
        tensor(dbranch, [batch, length, width]),
        tensor(dgate, [batch, 1, width]),
    )
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn forward_rows(
    x: &[f32],
    branch: &[f32],
    gate: &[f32],
    mask: Option<Mask>,
    first: u32,
    out: &mut [f32],
) {
    match mask {
        Some(mask) => forward_with(x, branch, gate, out, |i| mask.factor(first + i)),
        None => forward_with(x, branch, gate, out, |_| 1.0),
    }
}

#[inline(always)]
fn forward_with(
    x: &[f32],
    branch: &[f32],
    gate: &[f32],
    out: &mut [f32],
    factor: impl Fn(u32) -> f32,
) {
    let width = gate.len();
    let rows = x.chunks_exact(width).zip(branch.chunks_exact(width));
    for (row, (out, (x, branch))) in out.chunks_exact_mut(width).zip(rows).enumerate() {
        let first = (row * width) as u32;
        for j in 0..width {
            out[j] = x[j] + gate[j] * factor(first + j as u32) * branch[j];
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn backward_rows(
    branch: &[f32],
    gate: &[f32],
    mask: Option<Mask>,
    first: u32,
    grad: &[f32],
    dbranch: &mut [f32],
    dgate: &mut [f32],
) {
    match mask {
        Some(mask) => {
            backward_with(branch, gate, grad, dbranch, dgate, |i| {
                mask.factor(first + i)
            });
        }
        None => backward_with(branch, gate, grad, dbranch, dgate, |_| 1.0),
    }
}

#[inline(always)]
fn backward_with(
    branch: &[f32],
    gate: &[f32],
    grad: &[f32],
    dbranch: &mut [f32],
    dgate: &mut [f32],
    factor: impl Fn(u32) -> f32,
) {
    let width = gate.len();
    let dgate = &mut dgate[..width];
    let rows = grad.chunks_exact(width).zip(branch.chunks_exact(width));
    for (row, (dbranch, (grad, branch))) in dbranch.chunks_exact_mut(width).zip(rows).enumerate() {
        let first = (row * width) as u32;
        for j in 0..width {
            let grad = grad[j] * factor(first + j as u32);
            dbranch[j] = gate[j] * grad;
            dgate[j] += branch[j] * grad;
        }
    }
}
