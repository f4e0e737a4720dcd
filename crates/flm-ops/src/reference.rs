//! Every operation as a composition of burn's own: what runs where there is no native kernel, and what the kernels are
//! tested against.

use crate::Rope;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{Int, Tensor, backend::Backend};

pub(crate) fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let slope = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let square = x.clone() * x.clone();
    let argument = square.mul_scalar(0.044715 * slope).add_scalar(slope) * x.clone();
    x * sigmoid(argument)
}

pub(crate) fn norm_modulate<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 1>,
    shift: Tensor<B, 3>,
    scale: Tensor<B, 3>,
    epsilon: f64,
) -> Tensor<B, 3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = (centred.clone() * centred.clone()).mean_dim(2);
    let normal = centred / variance.add_scalar(epsilon).sqrt();
    normal * (weight.unsqueeze::<3>() * scale.add_scalar(1.0)) + shift
}

pub(crate) fn attention<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    heads: usize,
    softcap: f64,
) -> Tensor<B, 3> {
    let [batch, length, triple] = qkv.dims();
    let (width, head_width) = (triple / 3, triple / 3 / heads);
    let qkv = qkv.reshape([batch, length, 3 * heads, head_width]);
    let turned = rope
        .turn(qkv.clone().narrow(2, 0, 2 * heads))
        .swap_dims(1, 2);
    let value = qkv.narrow(2, 2 * heads, heads).swap_dims(1, 2);
    let query = turned.clone().narrow(1, 0, heads);
    let key = turned.narrow(1, heads, heads);
    // c·tanh(q·k/(c·√head_width)): the scale goes onto the query, which is smaller than the scores.
    let query = query.mul_scalar(1.0 / ((head_width as f64).sqrt() * softcap));
    let scores = query.matmul(key.swap_dims(2, 3)).tanh().mul_scalar(softcap);
    let mixed = softmax(scores, 3).matmul(value);
    mixed.swap_dims(1, 2).reshape([batch, length, width])
}

pub(crate) fn gated_residual<B: Backend>(
    x: Tensor<B, 3>,
    branch: Tensor<B, 3>,
    gate: Tensor<B, 3>,
) -> Tensor<B, 3> {
    x + branch * gate
}

fn capped<B: Backend>(logits: Tensor<B, 2>, cap: f64) -> Tensor<B, 2> {
    logits.mul_scalar(1.0 / cap).tanh().mul_scalar(cap)
}

pub(crate) fn capped_softmax<B: Backend>(
    logits: Tensor<B, 2>,
    cap: f64,
    temperature: f64,
) -> Tensor<B, 2> {
    softmax(capped(logits, cap).div_scalar(temperature), 1)
}

pub(crate) fn capped_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    ids: Tensor<B, 1, Int>,
    cap: f64,
) -> Tensor<B, 1> {
    log_softmax(capped(logits, cap), 1)
        .gather(1, ids.unsqueeze_dim(1))
        .squeeze_dim::<1>(1)
        .neg()
}

pub(crate) fn capped_soft_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    target: Tensor<B, 2>,
    cap: f64,
) -> Tensor<B, 1> {
    (log_softmax(capped(logits, cap), 1) * target)
        .sum_dim(1)
        .squeeze_dim::<1>(1)
        .neg()
}
