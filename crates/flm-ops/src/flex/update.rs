//! One pass over parameters and the optimizer state.

use super::buffer::{contiguous, rows_per_task, tensor, values, values_mut};
use super::math::sum_by;
use crate::AdamW;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// Updates `param` and its moments along `grad`.
pub(crate) fn adamw(
    rule: &AdamW,
    mut param: FlexTensor,
    grad: FlexTensor,
    mut first: FlexTensor,
    mut second: FlexTensor,
) -> [FlexTensor; 3] {
    let grad = contiguous(grad);
    let (task, factors) = (rows_per_task(1), Factors::of(rule));
    values_mut(&mut param)
        .par_chunks_mut(task)
        .zip(values(&grad).par_chunks(task))
        .zip(values_mut(&mut first).par_chunks_mut(task))
        .zip(values_mut(&mut second).par_chunks_mut(task))
        .for_each(|(((param, grad), first), second)| {
            adamw_slice(&factors, param, grad, first, second);
        });
    [param, first, second]
}

/// The factors of a step, each rounded once.
struct Factors {
    beta1: f32,
    beta2: f32,
    /// 1 − lr·weight decay.
    keep: f32,
    lr: f32,
    /// 1/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ).
    corrections: [f32; 2],
    epsilon: f32,
}

impl Factors {
    fn of(rule: &AdamW) -> Self {
        let time = rule.time as f64;
        Self {
            beta1: rule.beta1 as f32,
            beta2: rule.beta2 as f32,
            keep: (1.0 - rule.lr * rule.weight_decay) as f32,
            lr: rule.lr as f32,
            corrections: [
                (1.0 / (1.0 - rule.beta1.powf(time))) as f32,
                (1.0 / (1.0 - rule.beta2.powf(time)).sqrt()) as f32,
            ],
            epsilon: rule.epsilon as f32,
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn adamw_slice(
    factors: &Factors,
    param: &mut [f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let Factors {
        beta1,
        beta2,
        keep,
        lr,
        corrections,
        epsilon,
    } = *factors;
    for (((param, &grad), first), second) in param.iter_mut().zip(grad).zip(first).zip(second) {
        *first = beta1 * *first + (1.0 - beta1) * grad;
        *second = beta2 * *second + (1.0 - beta2) * grad * grad;
        let root = second.sqrt() * corrections[1] + epsilon;
        *param = keep * *param - lr * (*first * corrections[0] / root);
    }
}

/// Returns decay·average + (1 − decay)·live, in place of the average.
pub(crate) fn blend(mut average: FlexTensor, live: FlexTensor, decay: f32) -> FlexTensor {
    let live = contiguous(live);
    let task = rows_per_task(1);
    values_mut(&mut average)
        .par_chunks_mut(task)
        .zip(values(&live).par_chunks(task))
        .for_each(|(average, live)| blend_slice(average, live, decay));
    average
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn blend_slice(average: &mut [f32], live: &[f32], decay: f32) {
    for (average, live) in average.iter_mut().zip(live) {
        *average = decay * *average + (1.0 - decay) * live;
    }
}

/// Returns Σ x², `[1]`: partial sums in single precision, added in double precision.
pub(crate) fn sum_of_squares(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let parts: Vec<f32> = values(&x)
        .par_chunks(rows_per_task(1))
        .map(square_slice)
        .collect();
    let sum: f64 = parts.into_iter().map(f64::from).sum();
    tensor(vec![sum as f32], [1])
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn square_slice(x: &[f32]) -> f32 {
    sum_by(x.len(), |i| x[i] * x[i])
}

/// Returns x·factor, in place of x.
pub(crate) fn scale(mut x: FlexTensor, factor: f32) -> FlexTensor {
    values_mut(&mut x)
        .par_chunks_mut(rows_per_task(1))
        .for_each(|x| x.iter_mut().for_each(|x| *x *= factor));
    x
}
