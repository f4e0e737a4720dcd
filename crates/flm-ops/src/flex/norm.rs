//! LayerNorm with a weight, then a shift and a scale per sequence, in one pass:
//! n·w·(1 + scale) + shift.

use super::buffer::{contiguous, dims, rows_per_task, tensor, values, values_mut};
use super::math::sum_by;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// The data that the backward pass needs. Recomputing the normalized rows is cheaper than storing
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) x: FlexTensor,
    pub(crate) weight: FlexTensor,
    pub(crate) scale: FlexTensor,
    pub(crate) epsilon: f32,
}

/// Gradients with respect to x, weight, shift and scale.
pub(crate) struct Grads {
    pub(crate) x: FlexTensor,
    pub(crate) weight: FlexTensor,
    pub(crate) shift: FlexTensor,
    pub(crate) scale: FlexTensor,
}

/// `x` `[batch, length, width]`, `weight` `[width]`, `shift` and `scale` `[batch, 1, width]`.
pub(crate) fn forward(saved: &Saved, shift: FlexTensor) -> FlexTensor {
    let [batch, length, width] = dims(&saved.x);
    let shift = contiguous(shift);
    let (x, weight, scale, shift) = (
        values(&saved.x),
        values(&saved.weight),
        values(&saved.scale),
        values(&shift),
    );
    let (block, task) = (length * width, rows_per_task(width) * width);
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .enumerate()
        .for_each(|(b, (out, x))| {
            let cond = b * width..(b + 1) * width;
            let (shift, scale) = (&shift[cond.clone()], &scale[cond]);
            out.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .for_each(|(out, x)| {
                    forward_rows(x, weight, shift, scale, saved.epsilon, out);
                });
        });
    tensor(out, [batch, length, width])
}

pub(crate) fn backward(saved: &Saved, grad: FlexTensor) -> Grads {
    let [batch, length, width] = dims(&saved.x);
    let grad = contiguous(grad);
    let (x, weight, scale, grad) = (
        values(&saved.x),
        values(&saved.weight),
        values(&saved.scale),
        values(&grad),
    );
    let (block, task) = (length * width, rows_per_task(width) * width);
    let tasks = block.div_ceil(task);
    let mut dx = vec![0.0; x.len()];
    // Σ grad and Σ grad·n per task of a sequence, from which the gradients of shift, scale and
    // weight are computed.
    let mut sums = vec![0.0; batch * tasks * 2 * width];
    dx.par_chunks_mut(block)
        .zip(x.par_chunks(block).zip(grad.par_chunks(block)))
        .zip(sums.par_chunks_mut(tasks * 2 * width))
        .enumerate()
        .for_each(|(b, ((dx, (x, grad)), sums))| {
            let scale = &scale[b * width..(b + 1) * width];
            dx.par_chunks_mut(task)
                .zip(x.par_chunks(task).zip(grad.par_chunks(task)))
                .zip(sums.par_chunks_mut(2 * width))
                .for_each(|((dx, (x, grad)), sums)| {
                    let (dshift, moment) = sums.split_at_mut(width);
                    backward_rows(x, weight, scale, grad, saved.epsilon, dx, dshift, moment);
                });
        });
    let mut dshift = vec![0.0; batch * width];
    let mut moment = vec![0.0; batch * width];
    for (b, sums) in sums.chunks_exact(2 * width).enumerate() {
        let to = b / tasks * width..(b / tasks + 1) * width;
        let parts = [&mut dshift[to.clone()], &mut moment[to]];
        for (total, part) in parts.into_iter().flatten().zip(sums) {
            *total += part;
        }
    }
    let mut dweight = vec![0.0; width];
    let mut dscale = moment;
    for (row, scale) in dscale.chunks_mut(width).zip(scale.chunks(width)) {
        for j in 0..width {
            dweight[j] += row[j] * (1.0 + scale[j]);
            row[j] *= weight[j];
        }
    }
    Grads {
        x: tensor(dx, [batch, length, width]),
        weight: tensor(dweight, [width]),
        shift: tensor(dshift, [batch, 1, width]),
        scale: tensor(dscale, [batch, 1, width]),
    }
}

/// Returns the tangent of [`forward`] when x, shift and scale move by `x`, `shift` and `scale`.
pub(crate) fn tangent(
    saved: &Saved,
    x: FlexTensor,
    shift: &FlexTensor,
    scale: &FlexTensor,
) -> FlexTensor {
    let [_, length, width] = dims(&saved.x);
    let mut moves = x;
    let (at, weight, scale_at) = (
        values(&saved.x),
        values(&saved.weight),
        values(&saved.scale),
    );
    let (shift, scale) = (values(shift), values(scale));
    let (block, task) = (length * width, rows_per_task(width) * width);
    values_mut(&mut moves)
        .par_chunks_mut(block)
        .zip(at.par_chunks(block))
        .enumerate()
        .for_each(|(b, (moves, at))| {
            let cond = b * width..(b + 1) * width;
            let (shift, scale) = (&shift[cond.clone()], &scale[cond.clone()]);
            let scale_at = &scale_at[cond];
            moves
                .par_chunks_mut(task)
                .zip(at.par_chunks(task))
                .for_each(|(moves, at)| {
                    tangent_rows(at, weight, scale_at, shift, scale, saved.epsilon, moves);
                });
        });
    moves
}

/// Returns the mean and 1/√(variance + ε) of a row.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let n = row.len();
    let mean = sum_by(n, |i| row[i]) / n as f32;
    let variance = sum_by(n, |i| (row[i] - mean) * (row[i] - mean)) / n as f32;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn forward_rows(
    x: &[f32],
    weight: &[f32],
    shift: &[f32],
    scale: &[f32],
    epsilon: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let (mean, rstd) = moments(x, epsilon);
        for ((((out, &x), &w), &scale), &shift) in
            out.iter_mut().zip(x).zip(weight).zip(scale).zip(shift)
        {
            *out = (x - mean) * rstd * w * (1.0 + scale) + shift;
        }
    }
}

/// Turns the tangents of rows into those of their modulated norms.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn tangent_rows(
    x: &[f32],
    weight: &[f32],
    scale: &[f32],
    shift_moves: &[f32],
    scale_moves: &[f32],
    epsilon: f32,
    moves: &mut [f32],
) {
    let width = weight.len();
    let (scale, shift_moves) = (&scale[..width], &shift_moves[..width]);
    let scale_moves = &scale_moves[..width];
    for (x, moves) in x.chunks_exact(width).zip(moves.chunks_exact_mut(width)) {
        let (mean, rstd) = moments(x, epsilon);
        let normal = |i: usize| (x[i] - mean) * rstd;
        let drift = sum_by(width, |i| moves[i]) / width as f32;
        let along = sum_by(width, |i| normal(i) * moves[i]) / width as f32;
        for i in 0..width {
            let n = normal(i);
            let moved = (moves[i] - drift - n * along) * rstd;
            moves[i] = weight[i] * (moved * (1.0 + scale[i]) + n * scale_moves[i]) + shift_moves[i];
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
#[allow(clippy::too_many_arguments, reason = "a kernel over plain slices")]
fn backward_rows(
    x: &[f32],
    weight: &[f32],
    scale: &[f32],
    grad: &[f32],
    epsilon: f32,
    dx: &mut [f32],
    dshift: &mut [f32],
    moment: &mut [f32],
) {
    let width = weight.len();
    let rows = x
        .chunks_exact(width)
        .zip(grad.chunks_exact(width))
        .zip(dx.chunks_exact_mut(width));
    for ((x, grad), dx) in rows {
        let (x, grad) = (&x[..width], &grad[..width]);
        let (weight, scale) = (&weight[..width], &scale[..width]);
        let (mean, rstd) = moments(x, epsilon);
        let inner = |i: usize| grad[i] * weight[i] * (1.0 + scale[i]);
        let mean_g = sum_by(width, inner) / width as f32;
        let mean_gn = sum_by(width, |i| inner(i) * (x[i] - mean) * rstd) / width as f32;
        for i in 0..width {
            let n = (x[i] - mean) * rstd;
            dx[i] = (inner(i) - mean_g - n * mean_gn) * rstd;
            dshift[i] += grad[i];
            moment[i] += grad[i] * n;
        }
    }
}
