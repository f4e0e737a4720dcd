//! Tangents as compositions of burn's operations, differentiable if the backend is.

use super::{Dual, Modulated};
use crate::cube::matmul;
use crate::reference::unseen;
use crate::{Attention, Rope};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Tensor, backend::Backend};

/// Derivative of the tanh form of GELU.
pub(super) fn gelu_slope<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let slope = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let square = x.clone() * x.clone();
    let argument = square
        .clone()
        .mul_scalar(0.044715 * slope)
        .add_scalar(slope)
        * x.clone();
    let s = sigmoid(argument);
    let inner = square.mul_scalar(3.0 * 0.044715 * slope).add_scalar(slope);
    s.clone() + x * s.clone() * s.neg().add_scalar(1.0) * inner
}

/// The tangent of a modulated LayerNorm.
pub(super) fn norm_modulate<B: Backend>(input: Modulated<B>) -> Tensor<B, 3> {
    let Modulated {
        x,
        weight,
        shift,
        scale,
        epsilon,
    } = input;
    let centred = x.value.clone() - x.value.mean_dim(2);
    let variance = (centred.clone() * centred.clone()).mean_dim(2);
    let deviation = variance.add_scalar(epsilon).sqrt();
    let normal = centred / deviation.clone();
    let moved = x.tangent.clone() - x.tangent.mean_dim(2);
    let along = (normal.clone() * moved.clone()).mean_dim(2);
    let moved = (moved - normal.clone() * along) / deviation;
    let weight = weight.unsqueeze::<3>();
    moved * (weight.clone() * scale.value.add_scalar(1.0))
        + normal * (weight * scale.tangent)
        + shift.tangent
}

/// The tangent of an attention.
pub(super) fn attention<B: Backend>(
    qkv: Dual<B, 3>,
    rope: &Rope<B>,
    attention: Attention,
) -> Tensor<B, 3> {
    let Attention { heads, softcap, .. } = attention;
    let [batch, length, triple] = qkv.value.dims();
    let (width, head_width) = (triple / 3, triple / 3 / heads);
    let [(query, key, value), (query_moves, key_moves, value_moves)] = [qkv.value, qkv.tangent]
        .map(|x| {
            let x = x.reshape([batch, length, 3 * heads, head_width]);
            let turned = rope.turn(x.clone().narrow(2, 0, 2 * heads));
            let turned = turned.swap_dims(1, 2);
            (
                turned.clone().narrow(1, 0, heads),
                turned.narrow(1, heads, heads).swap_dims(2, 3),
                x.narrow(2, 2 * heads, heads).swap_dims(1, 2),
            )
        });
    let scale = 1.0 / (head_width as f64).sqrt();
    let scores = matmul(query.clone(), key.clone());
    let t = scores.mul_scalar(scale / softcap).tanh();
    let moved = matmul(query_moves, key) + matmul(query, key_moves);
    let slope = (t.clone() * t.clone()).neg().add_scalar(1.0);
    let moved = moved.mul_scalar(scale) * slope;
    let weights = softmax(unseen(t.mul_scalar(softcap), attention), 3);
    let mean = (weights.clone() * moved.clone()).sum_dim(3);
    let weights_move = weights.clone() * (moved - mean);
    let mixed = matmul(weights_move, value) + matmul(weights, value_moves);
    mixed.swap_dims(1, 2).reshape([batch, length, width])
}

/// A soft-capped softmax and its tangent.
pub(super) fn capped_softmax<B: Backend>(
    product: Dual<B, 2>,
    bias: Tensor<B, 1>,
    cap: f64,
    temperature: f64,
) -> Dual<B, 2> {
    let t = (product.value + bias.unsqueeze_dim(0))
        .mul_scalar(1.0 / cap)
        .tanh();
    let slope = (t.clone() * t.clone()).neg().add_scalar(1.0);
    let moved = product.tangent * slope.mul_scalar(1.0 / temperature);
    let value = softmax(t.mul_scalar(cap / temperature), 1);
    let mean = (value.clone() * moved.clone()).sum_dim(1);
    Dual {
        tangent: value.clone() * (moved - mean),
        value,
    }
}
