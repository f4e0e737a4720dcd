//! Soft-capped softmax and losses over the vocabulary, in place of the logits.

use super::buffer::{rows_per_task, tensor, values, values_mut};
use super::math::{exp, max_by, sum_by, tanh};
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// softmax(cap·tanh((product + bias)/cap)/temperature) for each row of `[rows, vocabulary]`.
pub(crate) fn softmax(
    mut product: FlexTensor,
    bias: &FlexTensor,
    cap: f32,
    temperature: f32,
) -> FlexTensor {
    let bias = values(bias);
    let vocab = bias.len();
    values_mut(&mut product)
        .par_chunks_mut(rows_per_task(vocab) * vocab)
        .for_each(|rows| softmax_rows(rows, bias, cap, 1.0 / temperature));
    product
}

/// [`softmax`] and its tangent when the product moves by `tangent`.
pub(crate) fn tangent(
    mut product: FlexTensor,
    mut tangent: FlexTensor,
    bias: &FlexTensor,
    cap: f32,
    temperature: f32,
) -> (FlexTensor, FlexTensor) {
    let bias = values(bias);
    let task = rows_per_task(bias.len()) * bias.len();
    values_mut(&mut product)
        .par_chunks_mut(task)
        .zip(values_mut(&mut tangent).par_chunks_mut(task))
        .for_each(|(rows, moves)| tangent_rows(rows, moves, bias, cap, 1.0 / temperature));
    (product, tangent)
}

/// The targets of the rows.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// One token per row.
    Tokens(&'a [i32]),
    /// One distribution per row.
    Distributions(&'a [f32]),
    /// One point per row, on the simplex or off it.
    Points(&'a [f32]),
}

impl<'a> Target<'a> {
    /// Returns the targets of the rows `first..last`.
    fn rows(self, first: usize, last: usize, vocab: usize) -> Self {
        match self {
            Self::Tokens(ids) => Self::Tokens(&ids[first..last]),
            Self::Distributions(p) => Self::Distributions(&p[first * vocab..last * vocab]),
            Self::Points(p) => Self::Points(&p[first * vocab..last * vocab]),
        }
    }
}

/// Returns the loss of softmax(cap·tanh((product + bias)/cap)) for each row of
/// `[rows, vocabulary]`: cross-entropy in nats, or squared distance to a point.
///
/// With weights of the rows, the gradient of Σ weight·loss to the product replaces the product.
/// Without weights, the second result is unspecified.
pub(crate) fn loss(
    mut product: FlexTensor,
    bias: &FlexTensor,
    target: Target<'_>,
    cap: f32,
    weights: Option<&FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let bias = values(bias);
    let vocab = bias.len();
    let weights = weights.map(values);
    let step = rows_per_task(vocab);
    let rows = values_mut(&mut product);
    let mut loss = vec![0.0; rows.len() / vocab];
    let count = loss.len();
    loss.par_chunks_mut(step)
        .zip(rows.par_chunks_mut(step * vocab))
        .enumerate()
        .for_each(|(i, (loss, rows))| {
            let (first, last) = (i * step, ((i + 1) * step).min(count));
            let weights = weights.map(|weights| &weights[first..last]);
            match target.rows(first, last, vocab) {
                Target::Tokens(ids) => token_rows(rows, bias, ids, cap, weights, loss),
                Target::Distributions(p) => soft_rows(rows, bias, p, cap, weights, loss),
                Target::Points(p) => squared_rows(rows, bias, p, cap, weights, loss),
            }
        });
    (tensor(loss, [count]), product)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn softmax_rows(rows: &mut [f32], bias: &[f32], cap: f32, sharpness: f32) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = cap * tanh((*value + bias) / cap) * sharpness;
        }
        softmax_row(row);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn tangent_rows(rows: &mut [f32], moves: &mut [f32], bias: &[f32], cap: f32, sharpness: f32) {
    let vocab = bias.len();
    let rows = rows.chunks_exact_mut(vocab);
    for (row, moves) in rows.zip(moves.chunks_exact_mut(vocab)) {
        for ((value, moved), bias) in row.iter_mut().zip(moves.iter_mut()).zip(bias) {
            let t = tanh((*value + bias) / cap);
            *value = cap * t * sharpness;
            *moved *= (1.0 - t * t) * sharpness;
        }
        softmax_row(row);
        let mean = sum_by(vocab, |i| row[i] * moves[i]);
        for (moved, p) in moves.iter_mut().zip(row.iter()) {
            *moved = p * (*moved - mean);
        }
    }
}

/// Softmax of one row in place.
#[inline(always)]
pub(crate) fn softmax_row(row: &mut [f32]) {
    let max = max_by(row.len(), |i| row[i]);
    for value in row.iter_mut() {
        *value = exp(*value - max);
    }
    let scale = 1.0 / sum_by(row.len(), |i| row[i]);
    for value in row.iter_mut() {
        *value *= scale;
    }
}

/// Turns products into tanh((product + bias)/cap) and returns log Σ exp(cap·tanh).
#[inline(always)]
fn capped_log_sum(row: &mut [f32], bias: &[f32], cap: f32) -> f32 {
    for (value, bias) in row.iter_mut().zip(bias) {
        *value = tanh((*value + bias) / cap);
    }
    // No pass for the maximum: a capped logit is at most `cap`, and e^(−2·cap) does not underflow
    // for the allowed caps.
    sum_by(row.len(), |i| exp(cap * row[i] - cap)).ln() + cap
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn token_rows(
    rows: &mut [f32],
    bias: &[f32],
    ids: &[i32],
    cap: f32,
    weights: Option<&[f32]>,
    losses: &mut [f32],
) {
    let rows = rows.chunks_exact_mut(bias.len());
    for (i, ((row, &id), loss)) in rows.zip(ids).zip(losses).enumerate() {
        let log_sum = capped_log_sum(row, bias, cap);
        let t = row[id as usize];
        *loss = log_sum - cap * t;
        if let Some(weights) = weights {
            let weight = weights[i];
            for value in row.iter_mut() {
                *value = weight * exp(cap * *value - log_sum) * (1.0 - *value * *value);
            }
            row[id as usize] -= weight * (1.0 - t * t);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn soft_rows(
    rows: &mut [f32],
    bias: &[f32],
    targets: &[f32],
    cap: f32,
    weights: Option<&[f32]>,
    losses: &mut [f32],
) {
    let vocab = bias.len();
    let rows = rows
        .chunks_exact_mut(vocab)
        .zip(targets.chunks_exact(vocab));
    for (i, ((row, target), loss)) in rows.zip(losses).enumerate() {
        let log_sum = capped_log_sum(row, bias, cap);
        let mass = sum_by(vocab, |j| target[j]);
        let dot = sum_by(vocab, |j| target[j] * row[j]);
        *loss = mass * log_sum - cap * dot;
        if let Some(weights) = weights {
            let weight = weights[i];
            for (value, &p) in row.iter_mut().zip(target) {
                let t = *value;
                *value = weight * (mass * exp(cap * t - log_sum) - p) * (1.0 - t * t);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn squared_rows(
    rows: &mut [f32],
    bias: &[f32],
    targets: &[f32],
    cap: f32,
    weights: Option<&[f32]>,
    losses: &mut [f32],
) {
    let vocab = bias.len();
    let rows = rows
        .chunks_exact_mut(vocab)
        .zip(targets.chunks_exact(vocab));
    for (i, ((row, target), loss)) in rows.zip(losses).enumerate() {
        let log_sum = capped_log_sum(row, bias, cap);
        let p = |t: f32| exp(cap * t - log_sum);
        *loss = sum_by(vocab, |j| {
            let error = p(row[j]) - target[j];
            error * error
        });
        if let Some(weights) = weights {
            let weight = 2.0 * weights[i];
            let mean = sum_by(vocab, |j| p(row[j]) * (p(row[j]) - target[j]));
            for (value, &q) in row.iter_mut().zip(target) {
                let (t, p) = (*value, p(*value));
                *value = weight * p * (p - q - mean) * (1.0 - t * t);
            }
        }
    }
}
