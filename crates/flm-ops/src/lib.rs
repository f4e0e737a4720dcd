//! Fused operations of a transformer denoiser.
//!
//! A transformer block is a handful of matrix products between many small element-wise steps. Written with a tensor
//! library's primitives those steps cost more than the products: each one reads and writes the whole activation, and
//! again in the backward pass. This crate has them as single operations:
//!
//! - [`norm_modulate`]: LayerNorm, weight, shift and scale
//! - [`attention`]: rotary embedding, soft-capped scores, softmax and mixing, from the fused projection
//! - [`gelu_tanh`]
//! - [`gated_residual`]
//! - [`capped_softmax`], [`capped_cross_entropy`], [`capped_soft_cross_entropy`]: the head's soft-capped distribution
//! - [`linear`]: a matrix product over the last dimension
//!
//! Each works on every burn backend, differentiated or not, as a composition of burn's operations. Tensors of the CPU
//! backend (`burn_flex::Flex`, and `Autodiff` over it) in f32 take a native kernel instead, with a backward rule of its
//! own; the composition is what the kernels are tested against. The crate knows no model.
//!
//! ```
//! use burn::tensor::Tensor;
//! use burn_flex::Flex;
//!
//! let x = Tensor::<Flex, 1>::from_floats([-1.0, 0.0, 2.0], &Default::default());
//! let y: Vec<f32> = flm_ops::gelu_tanh(x).into_data().to_vec().unwrap();
//! assert!((y[2] - 1.9546).abs() < 1e-4);
//! ```

mod autodiff;
mod check;
mod flex;
mod reference;
mod rope;
mod route;

#[cfg(test)]
mod agreement;

pub use rope::Rope;

use burn::tensor::{Int, Tensor, TensorPrimitive, backend::Backend};
use burn_flex::{Flex, FlexTensor};
use flex::buffer::{contiguous, values};
use flex::softmax::Target;
use route::{AutodiffFlex, Route, route, same};

/// Largest cap the native cross-entropy takes: it sums e^(logit − cap) without looking for the maximum.
const LARGEST_CAP: f64 = 40.0;

fn primitive<B: Backend, A: Backend, const D: usize>(x: Tensor<A, D>) -> B::FloatTensorPrimitive {
    same::<A, B, D, _>(x).into_primitive().tensor()
}

fn wrap<B: Backend, A: Backend, const D: usize>(x: B::FloatTensorPrimitive) -> Tensor<A, D> {
    same::<B, A, D, _>(Tensor::from_primitive(TensorPrimitive::Float(x)))
}

/// GELU in its tanh form, of any shape.
pub fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match route::<B>(x.dtype()) {
        Route::Flex => wrap::<Flex, B, D>(flex::gelu::forward(primitive::<Flex, B, D>(x))),
        Route::AutodiffFlex => {
            wrap::<AutodiffFlex, B, D>(autodiff::gelu_tanh(primitive::<AutodiffFlex, B, D>(x)))
        }
        Route::Composed => reference::gelu_tanh(x),
    }
}

/// LayerNorm over the last dimension, then a shift and a scale for each sequence: n(x)·weight·(1 + scale) + shift.
///
/// `x` `[batch, length, width]`, `weight` `[width]`, `shift` and `scale` `[batch, 1, width]`.
///
/// # Panics
///
/// If the shapes are others, or `x` is empty.
pub fn norm_modulate<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 1>,
    shift: Tensor<B, 3>,
    scale: Tensor<B, 3>,
    epsilon: f64,
) -> Tensor<B, 3> {
    let ([batch, _, width], beside) = (x.dims(), ("x", &x.dims()[..]));
    check::not_empty("norm_modulate", "x", &x.dims());
    check::shape("norm_modulate", "weight", &weight.dims(), &[width], beside);
    check::shape(
        "norm_modulate",
        "shift",
        &shift.dims(),
        &[batch, 1, width],
        beside,
    );
    check::shape(
        "norm_modulate",
        "scale",
        &scale.dims(),
        &[batch, 1, width],
        beside,
    );
    match route::<B>(x.dtype()) {
        Route::Flex => {
            let saved = flex::norm::Saved {
                x: contiguous(primitive::<Flex, B, 3>(x)),
                weight: contiguous(primitive::<Flex, B, 1>(weight)),
                scale: contiguous(primitive::<Flex, B, 3>(scale)),
                epsilon: epsilon as f32,
            };
            wrap::<Flex, B, 3>(flex::norm::forward(&saved, primitive::<Flex, B, 3>(shift)))
        }
        Route::AutodiffFlex => wrap::<AutodiffFlex, B, 3>(autodiff::norm_modulate(
            primitive::<AutodiffFlex, B, 3>(x),
            primitive::<AutodiffFlex, B, 1>(weight),
            primitive::<AutodiffFlex, B, 3>(shift),
            primitive::<AutodiffFlex, B, 3>(scale),
            epsilon as f32,
        )),
        Route::Composed => reference::norm_modulate(x, weight, shift, scale, epsilon),
    }
}

/// Rotary self-attention over all positions, scores bounded by `softcap`·tanh(·/`softcap`).
///
/// `qkv` `[batch, length, 3·width]` holds queries, keys and values, each as `heads` heads; the result is
/// `[batch, length, width]`. The tables of `rope` are those of this length and head width.
///
/// # Panics
///
/// If `qkv` is empty, does not divide into heads of even width, or the tables are for other sizes.
pub fn attention<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    heads: usize,
    softcap: f64,
) -> Tensor<B, 3> {
    let [_, length, triple] = qkv.dims();
    check::not_empty("attention", "qkv", &qkv.dims());
    check::heads("attention", &qkv.dims(), heads);
    let table = [length, triple / 6 / heads];
    check::shape(
        "attention",
        "a table of rope",
        &rope.cos.dims(),
        &table,
        ("qkv", &qkv.dims()),
    );
    let setting = |cos: FlexTensor, sin: FlexTensor| flex::attention::Setting {
        heads,
        softcap: softcap as f32,
        cos: contiguous(cos),
        sin: contiguous(sin),
    };
    match route::<B>(qkv.dtype()) {
        Route::Flex => {
            let cos = primitive::<Flex, B, 2>(rope.cos.clone());
            let sin = primitive::<Flex, B, 2>(rope.sin.clone());
            wrap::<Flex, B, 3>(flex::attention::forward(
                primitive::<Flex, B, 3>(qkv),
                &setting(cos, sin),
            ))
        }
        Route::AutodiffFlex => {
            let cos = primitive::<AutodiffFlex, B, 2>(rope.cos.clone()).primitive;
            let sin = primitive::<AutodiffFlex, B, 2>(rope.sin.clone()).primitive;
            let qkv = primitive::<AutodiffFlex, B, 3>(qkv);
            wrap::<AutodiffFlex, B, 3>(autodiff::attention(qkv, setting(cos, sin)))
        }
        Route::Composed => reference::attention(qkv, rope, heads, softcap),
    }
}

/// x + gate·branch, with one gate for each sequence.
///
/// `x` and `branch` `[batch, length, width]`, `gate` `[batch, 1, width]`.
///
/// # Panics
///
/// If the shapes are others, or `x` is empty.
pub fn gated_residual<B: Backend>(
    x: Tensor<B, 3>,
    branch: Tensor<B, 3>,
    gate: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let ([batch, _, width], beside) = (x.dims(), ("x", &x.dims()[..]));
    check::not_empty("gated_residual", "x", &x.dims());
    check::shape(
        "gated_residual",
        "branch",
        &branch.dims(),
        &x.dims(),
        beside,
    );
    check::shape(
        "gated_residual",
        "gate",
        &gate.dims(),
        &[batch, 1, width],
        beside,
    );
    match route::<B>(x.dtype()) {
        Route::Flex => {
            let branch = contiguous(primitive::<Flex, B, 3>(branch));
            let gate = contiguous(primitive::<Flex, B, 3>(gate));
            wrap::<Flex, B, 3>(flex::residual::forward(
                primitive::<Flex, B, 3>(x),
                &branch,
                &gate,
            ))
        }
        Route::AutodiffFlex => wrap::<AutodiffFlex, B, 3>(autodiff::gated_residual(
            primitive::<AutodiffFlex, B, 3>(x),
            primitive::<AutodiffFlex, B, 3>(branch),
            primitive::<AutodiffFlex, B, 3>(gate),
        )),
        Route::Composed => reference::gated_residual(x, branch, gate),
    }
}

/// softmax(`cap`·tanh(logits/`cap`)/`temperature`) for each row of `[rows, vocabulary]`.
///
/// # Panics
///
/// If `logits` is empty.
pub fn capped_softmax<B: Backend>(
    logits: Tensor<B, 2>,
    cap: f64,
    temperature: f64,
) -> Tensor<B, 2> {
    check::not_empty("capped_softmax", "logits", &logits.dims());
    match route::<B>(logits.dtype()) {
        Route::Flex => wrap::<Flex, B, 2>(flex::softmax::softmax(
            primitive::<Flex, B, 2>(logits),
            cap as f32,
            temperature as f32,
        )),
        Route::AutodiffFlex | Route::Composed => {
            reference::capped_softmax(logits, cap, temperature)
        }
    }
}

/// −log softmax(`cap`·tanh(logits/`cap`)) at the given tokens, in nats, `[rows]`.
///
/// `logits` `[rows, vocabulary]`, `ids` `[rows]`, each below the vocabulary's size. A row with a logit that is not a number
/// has a loss that is not a number.
///
/// # Panics
///
/// If the shapes are others, `logits` is empty, or, where there is a kernel, an id lies outside the vocabulary.
pub fn capped_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    ids: Tensor<B, 1, Int>,
    cap: f64,
) -> Tensor<B, 1> {
    let [rows, vocab] = logits.dims();
    check::not_empty("capped_cross_entropy", "logits", &logits.dims());
    check::shape(
        "capped_cross_entropy",
        "ids",
        &ids.dims(),
        &[rows],
        ("logits", &logits.dims()),
    );
    let route = if cap > LARGEST_CAP {
        Route::Composed
    } else {
        route::<B>(logits.dtype())
    };
    if route == Route::Composed {
        return reference::capped_cross_entropy(logits, ids, cap);
    }
    let ids: Vec<i32> = ids.into_data().iter::<i32>().collect();
    check::tokens("capped_cross_entropy", &ids, vocab);
    native_cross_entropy(logits, Target::Tokens(&ids), cap, route)
}

/// −Σ target·log softmax(`cap`·tanh(logits/`cap`)) for each row, in nats, `[rows]`.
///
/// `logits` and `target` `[rows, vocabulary]`. No gradient flows to the target. A row with an entry that is not a number has a
/// loss that is not a number.
///
/// # Panics
///
/// If the shapes differ, or are empty.
pub fn capped_soft_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    target: Tensor<B, 2>,
    cap: f64,
) -> Tensor<B, 1> {
    check::not_empty("capped_soft_cross_entropy", "logits", &logits.dims());
    check::shape(
        "capped_soft_cross_entropy",
        "target",
        &target.dims(),
        &logits.dims(),
        ("logits", &logits.dims()),
    );
    let route = if cap > LARGEST_CAP {
        Route::Composed
    } else {
        route::<B>(logits.dtype())
    };
    let target = match route {
        Route::Composed => {
            return reference::capped_soft_cross_entropy(logits, target.detach(), cap);
        }
        Route::Flex => primitive::<Flex, B, 2>(target),
        Route::AutodiffFlex => primitive::<AutodiffFlex, B, 2>(target).primitive,
    };
    let target = contiguous(target);
    native_cross_entropy(logits, Target::Soft(values(&target)), cap, route)
}

fn native_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    target: Target<'_>,
    cap: f64,
    route: Route,
) -> Tensor<B, 1> {
    if route == Route::Flex {
        let logits = contiguous(primitive::<Flex, B, 2>(logits));
        wrap::<Flex, B, 1>(flex::softmax::cross_entropy(&logits, target, cap as f32, false).0)
    } else {
        let logits = primitive::<AutodiffFlex, B, 2>(logits);
        wrap::<AutodiffFlex, B, 1>(autodiff::cross_entropy(logits, target, cap as f32))
    }
}

/// x·weight + bias over the last dimension of `x` `[batch, length, inputs]`, `weight` `[inputs, outputs]`.
///
/// One matrix product over all positions: a batched one would give the weight a gradient for each sequence first.
///
/// # Panics
///
/// If `weight` or `bias` do not fit `x`.
pub fn linear<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    let [batch, length, inputs] = x.dims();
    let [_, outputs] = weight.dims();
    check::shape(
        "linear",
        "weight",
        &weight.dims(),
        &[inputs, outputs],
        ("x", &x.dims()),
    );
    if let Some(bias) = &bias {
        check::shape(
            "linear",
            "bias",
            &bias.dims(),
            &[outputs],
            ("weight", &weight.dims()),
        );
    }
    let y = x.reshape([batch * length, inputs]).matmul(weight);
    let y = match bias {
        Some(bias) => y + bias.unsqueeze_dim(0),
        None => y,
    };
    y.reshape([batch, length, outputs])
}
