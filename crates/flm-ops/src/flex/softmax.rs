//! Soft-capped softmax and cross-entropies over the vocabulary.

use super::buffer::{contiguous, dims, rows_per_task, tensor, values};
use super::math::{exp, max_by, sum_by, tanh};
use burn::tensor::TensorMetadata;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// softmax(cap·tanh(logits/cap)/temperature) over the last dimension.
pub(crate) fn softmax(logits: FlexTensor, cap: f32, temperature: f32) -> FlexTensor {
    let logits = contiguous(logits);
    let shape = logits.shape();
    let vocab = *shape.last().expect("a tensor with a last dimension");
    let input = values(&logits);
    let mut out = vec![0.0; input.len()];
    let task = rows_per_task(vocab) * vocab;
    out.par_chunks_mut(task)
        .zip(input.par_chunks(task))
        .for_each(|(out, logits)| softmax_rows(logits, vocab, cap, 1.0 / temperature, out));
    tensor(out, shape)
}

/// What the logits are scored against.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// One token for each row.
    Tokens(&'a [i32]),
    /// A distribution for each row.
    Soft(&'a [f32]),
}

/// Cross-entropy of softmax(cap·tanh(logits/cap)) for each row of `[rows, vocabulary]`, in nats, and, where asked for, its
/// gradient to the logits.
pub(crate) fn cross_entropy(
    logits: &FlexTensor,
    target: Target<'_>,
    cap: f32,
    with_grad: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let [rows, vocab] = dims(logits);
    let input = values(logits);
    let mut loss = vec![0.0; rows];
    let mut grad = vec![0.0; if with_grad { rows * vocab } else { 0 }];
    let step = rows_per_task(vocab);
    let part = |i: usize| {
        let (first, last) = (i * step, ((i + 1) * step).min(rows));
        match target {
            Target::Tokens(ids) => Target::Tokens(&ids[first..last]),
            Target::Soft(p) => Target::Soft(&p[first * vocab..last * vocab]),
        }
    };
    if with_grad {
        loss.par_chunks_mut(step)
            .zip(
                grad.par_chunks_mut(step * vocab)
                    .zip(input.par_chunks(step * vocab)),
            )
            .enumerate()
            .for_each(|(i, (loss, (grad, logits)))| match part(i) {
                Target::Tokens(ids) => token_rows(logits, ids, cap, loss, grad),
                Target::Soft(p) => soft_rows(logits, p, cap, loss, grad),
            });
    } else {
        loss.par_chunks_mut(step)
            .zip(input.par_chunks(step * vocab))
            .enumerate()
            .for_each(|(i, (loss, logits))| {
                let mut scratch = vec![0.0; logits.len()];
                match part(i) {
                    Target::Tokens(ids) => token_rows(logits, ids, cap, loss, &mut scratch),
                    Target::Soft(p) => soft_rows(logits, p, cap, loss, &mut scratch),
                }
            });
    }
    (
        tensor(loss, [rows]),
        with_grad.then(|| tensor(grad, [rows, vocab])),
    )
}

/// Scales each row of `grad` `[rows, vocabulary]` by the upstream gradient of that row's loss.
pub(crate) fn scale_rows(grad: FlexTensor, upstream: FlexTensor) -> FlexTensor {
    let [rows, vocab] = dims(&grad);
    let upstream = contiguous(upstream);
    let mut out = values(&grad).to_vec();
    drop(grad);
    for (row, &by) in out.chunks_exact_mut(vocab).zip(values(&upstream)) {
        for value in row {
            *value *= by;
        }
    }
    tensor(out, [rows, vocab])
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn softmax_rows(logits: &[f32], vocab: usize, cap: f32, sharpness: f32, out: &mut [f32]) {
    for (logits, out) in logits.chunks_exact(vocab).zip(out.chunks_exact_mut(vocab)) {
        for (out, &logit) in out.iter_mut().zip(logits) {
            *out = cap * tanh(logit / cap) * sharpness;
        }
        softmax_row(out);
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

/// Writes tanh(logit/cap) into `t` and returns log Σ exp(cap·t).
#[inline(always)]
fn capped_log_sum(logits: &[f32], cap: f32, t: &mut [f32]) -> f32 {
    for (t, &logit) in t.iter_mut().zip(logits) {
        *t = tanh(logit / cap);
    }
    // No pass for the maximum: a capped logit is at most `cap`, and e^(−2·cap) does not underflow for the caps allowed here.
    sum_by(t.len(), |i| exp(cap * t[i] - cap)).ln() + cap
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn token_rows(logits: &[f32], ids: &[i32], cap: f32, loss: &mut [f32], grad: &mut [f32]) {
    let vocab = logits.len() / ids.len();
    let rows = logits.chunks_exact(vocab).zip(grad.chunks_exact_mut(vocab));
    for ((&id, loss), (logits, grad)) in ids.iter().zip(loss.iter_mut()).zip(rows) {
        let log_sum = capped_log_sum(logits, cap, grad);
        let t = grad[id as usize];
        *loss = log_sum - cap * t;
        for g in grad.iter_mut() {
            *g = exp(cap * *g - log_sum) * (1.0 - *g * *g);
        }
        grad[id as usize] -= 1.0 - t * t;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn soft_rows(logits: &[f32], targets: &[f32], cap: f32, loss: &mut [f32], grad: &mut [f32]) {
    let vocab = logits.len() / loss.len();
    let rows = logits
        .chunks_exact(vocab)
        .zip(targets.chunks_exact(vocab))
        .zip(grad.chunks_exact_mut(vocab));
    for (loss, ((logits, target), grad)) in loss.iter_mut().zip(rows) {
        let log_sum = capped_log_sum(logits, cap, grad);
        let mass = sum_by(vocab, |i| target[i]);
        let dot = sum_by(vocab, |i| target[i] * grad[i]);
        *loss = mass * log_sum - cap * dot;
        for (g, &p) in grad.iter_mut().zip(target) {
            *g = (mass * exp(cap * *g - log_sum) - p) * (1.0 - *g * *g);
        }
    }
}
