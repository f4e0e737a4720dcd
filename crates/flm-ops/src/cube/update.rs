//! Parameter updates of optimizers, in one pass and in place for tensors that are not shared.

use super::launch::{alike, cubes_for, owned, span, spanned, units};
use crate::AdamW;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

#[cube(launch)]
fn adamw_kernel(
    grad: &Array<f32>,
    param: &mut Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    keep: f32,
    step: f32,
    root_scale: f32,
    epsilon: f32,
) {
    if ABSOLUTE_POS < param.len() {
        let grad = grad[ABSOLUTE_POS];
        let m = first[ABSOLUTE_POS] * beta1 + grad * rest1;
        let v = second[ABSOLUTE_POS] * beta2 + grad * grad * rest2;
        let root = v.sqrt() * root_scale + epsilon;
        first[ABSOLUTE_POS] = m;
        second[ABSOLUTE_POS] = v;
        param[ABSOLUTE_POS] = param[ABSOLUTE_POS] * keep - m / root * step;
    }
}

#[cube(launch)]
fn blend_kernel(live: &Array<f32>, average: &mut Array<f32>, decay: f32, rest: f32) {
    if ABSOLUTE_POS < average.len() {
        average[ABSOLUTE_POS] = average[ABSOLUTE_POS] * decay + live[ABSOLUTE_POS] * rest;
    }
}

pub(super) fn adamw<R: CubeRuntime>(
    rule: &AdamW,
    param: CubeTensor<R>,
    grad: CubeTensor<R>,
    first: CubeTensor<R>,
    second: CubeTensor<R>,
) -> [CubeTensor<R>; 3] {
    let [param, first, second] = [param, first, second].map(owned);
    let [grad, param, first, second] = alike([grad, param, first, second]);
    let time = rule.time as f64;
    adamw_kernel::launch::<R>(
        &grad.client,
        cubes_for(span(&grad)),
        units(),
        spanned(&grad),
        spanned(&param),
        spanned(&first),
        spanned(&second),
        rule.beta1 as f32,
        rule.beta2 as f32,
        (1.0 - rule.beta1) as f32,
        (1.0 - rule.beta2) as f32,
        (1.0 - rule.lr * rule.weight_decay) as f32,
        (rule.lr / (1.0 - rule.beta1.powf(time))) as f32,
        (1.0 / (1.0 - rule.beta2.powf(time)).sqrt()) as f32,
        rule.epsilon as f32,
    );
    [param, first, second]
}

/// `decay`·average + (1 − `decay`)·live.
pub(super) fn blend<R: CubeRuntime>(
    average: CubeTensor<R>,
    live: CubeTensor<R>,
    decay: f64,
) -> CubeTensor<R> {
    let [average, live] = alike([owned(average), live]);
    blend_kernel::launch::<R>(
        &live.client,
        cubes_for(span(&live)),
        units(),
        spanned(&live),
        spanned(&average),
        decay as f32,
        (1.0 - decay) as f32,
    );
    average
}
