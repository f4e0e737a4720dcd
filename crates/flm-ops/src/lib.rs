//! Fused operations of a transformer denoiser.
//!
//! A transformer block is a few matrix products between many small element-wise steps. With a
//! tensor library's primitives those steps cost more than the products: each one reads and writes
//! the whole activation, and again in the backward pass. This crate has them as single operations:
//!
//! - [`norm_modulate`]: LayerNorm, weight, shift and scale
//! - [`attention`]: rotary embedding, soft-capped scores, softmax and mixing, from the fused
//!   projection
//! - [`attention_after`]: the same for the next positions of a sequence, with cached keys and
//!   values
//! - [`gelu_tanh`]
//! - [`gated_residual`], with a dropout whose [`Mask`] is a function and is never stored
//! - [`capped_softmax`], [`capped_loss`], [`capped_loss_gradient`]: the head's soft-capped
//!   distribution
//! - [`attach_gradients`]: a loss that was computed together with its gradients
//! - [`cholesky`]: the Cholesky factor of a Gram matrix, and its inverse
//! - [`noisy_rows`]: rows of a tall matrix, each mixed with Gaussian noise times that matrix
//! - [`soft_rows`]: means of a tall matrix's rows, weighted by a softmax over all rows
//! - [`linear`], [`norm_linear`], [`gelu_linear`]: a matrix product over the last dimension; the
//!   latter two recompute its input instead of storing it
//! - [`product`], [`add_product`], [`matmul`]: a product alone, added to a sum, or in batches
//! - [`rows`]: rows of a matrix
//! - [`dual`]: the transformer's operations with their derivative along a direction
//! - [`adamw`], [`orthogonal`], [`blend`], [`sum_of_squares`], [`scale`]: parameter updates of
//!   optimizers
//!
//! Each operation works on every burn backend, with or without autodiff, as a composition of burn's
//! operations. On the CPU backend (`burn_flex::Flex`, and `Autodiff` over it) f32 tensors use a
//! native kernel with its own backward rule instead. The compositions are the reference that tests
//! compare the kernels with. With the features `cuda` and `wgpu`, f32 and bf16 tensors of burn's
//! backends of these names use kernels too, where the composition would be many small operations or
//! a product with an autotuned algorithm. A product follows the [`Precision`] of its first factor.
//! The crate contains no models.
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
mod cache;
mod check;
mod cholesky;
#[cfg(feature = "cube")]
mod cube;
pub mod dual;
mod flex;
mod mask;
mod noisy;
mod precision;
mod reference;
mod rope;
mod route;
mod soft_rows;
mod update;
mod vocabulary;

#[cfg(test)]
mod agreement;

#[cfg(not(feature = "cube"))]
use reference as cube;

pub use burn_flex::{Flex, FlexDevice};
pub use cache::{KeysAndValues, attention_after};
pub use cholesky::cholesky;
pub use mask::Mask;
pub use noisy::{Noisy, noisy_rows};
pub use precision::{Precision, widen};
pub use rope::Rope;
pub use route::on_host;
pub use soft_rows::{SoftRows, soft_rows};
pub use update::{AdamW, adamw, blend, orthogonal, scale, sum_of_squares};
pub use vocabulary::{CappedLoss, Target, capped_loss, capped_loss_gradient, capped_softmax};

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorPrimitive};
use flex::buffer::contiguous;
use route::{AutodiffFlex, Route, route, same};

fn primitive<B: Backend, A: Backend, const D: usize>(x: Tensor<A, D>) -> B::FloatTensorPrimitive {
    same::<A, B, D, _>(x).into_primitive().tensor()
}

fn wrap<B: Backend, A: Backend, const D: usize>(x: B::FloatTensorPrimitive) -> Tensor<A, D> {
    same::<B, A, D, _>(Tensor::from_primitive(TensorPrimitive::Float(x)))
}

/// Returns rows of a matrix `[rows, width]` by their indices `[batch, length]`, as
/// `[batch, length, width]`.
///
/// The gradient of a row that is taken more than once is summed in the same order at every call.
pub fn rows<B: Backend>(matrix: Tensor<B, 2>, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    cube::rows(matrix, ids)
}

/// GELU in its tanh form, for any shape.
pub fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match route::<B>(x.dtype()) {
        Route::Flex => wrap::<Flex, B, D>(flex::gelu::forward(primitive::<Flex, B, D>(x))),
        Route::AutodiffFlex => {
            wrap::<AutodiffFlex, B, D>(autodiff::gelu_tanh(primitive::<AutodiffFlex, B, D>(x)))
        }
        Route::Composed => cube::gelu_tanh(x),
    }
}

/// LayerNorm over the last dimension, then a shift and a scale per sequence:
/// n(x)·weight·(1 + scale) + shift.
///
/// If each position has its own shift and scale, only the LayerNorm is a kernel.
///
/// # Panics
///
/// Panics if the shapes differ from those of [`Modulated`], or if `x` is empty.
pub fn norm_modulate<B: Backend>(input: Modulated<B>) -> Tensor<B, 3> {
    input.check("norm_modulate");
    if input.is_by_position() {
        return input.by_position();
    }
    let epsilon = input.epsilon as f32;
    match route::<B>(input.x.dtype()) {
        Route::Flex => {
            let saved = flex::norm::Saved {
                x: contiguous(primitive::<Flex, B, 3>(input.x)),
                weight: contiguous(primitive::<Flex, B, 1>(input.weight)),
                scale: contiguous(primitive::<Flex, B, 3>(input.scale)),
                epsilon,
            };
            let shift = primitive::<Flex, B, 3>(input.shift);
            wrap::<Flex, B, 3>(flex::norm::forward(&saved, shift))
        }
        Route::AutodiffFlex => wrap::<AutodiffFlex, B, 3>(autodiff::norm_modulate(
            primitive::<AutodiffFlex, B, 3>(input.x),
            primitive::<AutodiffFlex, B, 1>(input.weight),
            primitive::<AutodiffFlex, B, 3>(input.shift),
            primitive::<AutodiffFlex, B, 3>(input.scale),
            epsilon,
        )),
        Route::Composed => cube::norm_modulate(input),
    }
}

impl<B: Backend> Modulated<B> {
    #[track_caller]
    fn check(&self, operation: &str) {
        let ([batch, _, width], beside) = (self.x.dims(), ("x", &self.x.dims()[..]));
        check::not_empty(operation, "x", &self.x.dims());
        check::shape(operation, "weight", &self.weight.dims(), &[width], beside);
        let row = [batch, self.positions(), width];
        check::shape(operation, "shift", &self.shift.dims(), &row, beside);
        check::shape(operation, "scale", &self.scale.dims(), &row, beside);
    }

    /// Returns the number of shifts of a sequence: one, or one per position.
    fn positions(&self) -> usize {
        positions_of(&self.shift, &self.x)
    }

    fn is_by_position(&self) -> bool {
        self.positions() != 1
    }

    /// The LayerNorm alone, then the shift and scale of each position.
    fn by_position(self) -> Tensor<B, 3> {
        let ([batch, _, width], device) = (self.x.dims(), self.x.device());
        let still = Tensor::zeros([batch, 1, width], &device);
        let normed = norm_modulate(Self {
            shift: still.clone(),
            scale: still,
            ..self
        });
        normed * self.scale.add_scalar(1.0) + self.shift
    }
}

/// Returns the number of rows of `by` per sequence of `x` `[batch, length, width]`: one per
/// position, or one in total.
fn positions_of<B: Backend>(by: &Tensor<B, 3>, x: &Tensor<B, 3>) -> usize {
    let [_, length, _] = x.dims();
    if by.dims()[1] == length { length } else { 1 }
}

/// The settings of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Number of heads that the width is divided into.
    pub heads: usize,
    /// Bound of the scores: `softcap`·tanh(·/`softcap`).
    pub softcap: f64,
    /// Whether a position sees only itself and earlier positions.
    pub causal: bool,
}

/// Rotary self-attention with bounded scores, over all positions or over the earlier ones.
///
/// `qkv` `[batch, length, 3·width]` contains queries, keys and values, each divided into heads. The
/// result is `[batch, length, width]`. The tables of `rope` must be those of this length and head
/// width.
///
/// # Panics
///
/// Panics if `qkv` is empty or does not divide into heads of even width, or if the tables have
/// other sizes.
pub fn attention<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    attention: Attention,
) -> Tensor<B, 3> {
    check_attention(&qkv, rope, attention.heads);
    let setting = |cos, sin| flex::attention::Setting::new(cos, sin, attention);
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
        Route::Composed => cube::attention(qkv, rope, attention),
    }
}

#[track_caller]
fn check_attention<B: Backend>(qkv: &Tensor<B, 3>, rope: &Rope<B>, heads: usize) {
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
}

/// x + gate·mask·branch, with one gate per sequence and an optional dropout of the branch.
///
/// `x` and `branch` are `[batch, length, width]`. `gate` is `[batch, 1, width]`, or
/// `[batch, length, width]` if each position has its own. A narrowed branch is widened.
///
/// # Panics
///
/// Panics if the shapes differ from these, or if `x` is empty.
pub fn gated_residual<B: Backend>(
    x: Tensor<B, 3>,
    branch: Tensor<B, 3>,
    gate: Tensor<B, 3>,
    mask: Option<Mask>,
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
        &[batch, positions_of(&gate, &x), width],
        beside,
    );
    if gate.dims()[1] != 1 {
        let open = Tensor::ones([batch, 1, width], &x.device());
        return gated_residual(x, widen(branch) * gate, open, mask);
    }
    match route::<B>(x.dtype()) {
        Route::Flex => {
            let branch = contiguous(primitive::<Flex, B, 3>(widen(branch)));
            let gate = contiguous(primitive::<Flex, B, 3>(gate));
            wrap::<Flex, B, 3>(flex::residual::forward(
                primitive::<Flex, B, 3>(x),
                &branch,
                &gate,
                mask,
            ))
        }
        Route::AutodiffFlex => wrap::<AutodiffFlex, B, 3>(autodiff::gated_residual(
            primitive::<AutodiffFlex, B, 3>(x),
            primitive::<AutodiffFlex, B, 3>(widen(branch)),
            primitive::<AutodiffFlex, B, 3>(gate),
            mask,
        )),
        Route::Composed => cube::gated_residual(x, branch, gate, mask),
    }
}

/// Returns whether a gradient may flow to `x`. Returns true on backends without kernels, where the
/// crate cannot tell.
pub fn may_take_gradient<A: AutodiffBackend, const D: usize>(x: &Tensor<A, D>) -> bool {
    match route::<A>(x.dtype()) {
        Route::AutodiffFlex => autodiff::is_tracked(&primitive::<AutodiffFlex, A, D>(x.clone())),
        Route::Flex | Route::Composed => true,
    }
}

/// Returns a scalar with known gradients: its value is `value` `[1]`, and each input `[n]` has a
/// gradient `[n]`.
///
/// This adds a loss to the graph that was computed piece by piece together with its gradients. On
/// backends without kernels it is a sum of products with these gradients.
///
/// # Panics
///
/// Panics if a gradient is not as long as its input.
pub fn attach_gradients<A: AutodiffBackend, const N: usize>(
    value: Tensor<A::InnerBackend, 1>,
    inputs: [(Tensor<A, 1>, Tensor<A::InnerBackend, 1>); N],
) -> Tensor<A, 1> {
    for (input, gradient) in &inputs {
        let beside = ("its input", &input.dims()[..]);
        check::shape(
            "attach_gradients",
            "a gradient",
            &gradient.dims(),
            &input.dims(),
            beside,
        );
    }
    match route::<A>(value.dtype()) {
        Route::AutodiffFlex => {
            let value = primitive::<Flex, A::InnerBackend, 1>(value);
            let inputs = inputs.map(|(input, gradient)| {
                (
                    primitive::<AutodiffFlex, A, 1>(input),
                    primitive::<Flex, A::InnerBackend, 1>(gradient),
                )
            });
            wrap::<AutodiffFlex, A, 1>(autodiff::attach_gradients(value, inputs))
        }
        Route::Flex | Route::Composed => cube::attach_gradients(value, inputs),
    }
}

/// x·weight + bias over the last dimension of `x` `[batch, length, inputs]`, with `weight`
/// `[inputs, outputs]`.
///
/// This is one matrix product over all positions. A batched product would first compute a gradient
/// of the weight for each sequence. If `x` is narrowed, the parameters and the result are narrowed
/// too.
///
/// # Panics
///
/// Panics if `weight` or `bias` do not fit `x`.
pub fn linear<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    let bias_dims = bias.as_ref().map(Tensor::dims);
    let bias_dims = bias_dims.as_ref().map(|dims| &dims[..]);
    check::linear("linear", &x.dims(), &weight.dims(), bias_dims);
    match route::<B>(x.dtype()) {
        Route::AutodiffFlex => wrap::<AutodiffFlex, B, 3>(autodiff::linear(
            primitive::<AutodiffFlex, B, 3>(x),
            primitive::<AutodiffFlex, B, 2>(weight),
            bias.map(primitive::<AutodiffFlex, B, 1>),
        )),
        Route::Flex => {
            let x = contiguous(primitive::<Flex, B, 3>(x));
            let weight = primitive::<Flex, B, 2>(weight);
            let bias = bias.map(primitive::<Flex, B, 1>);
            wrap::<Flex, B, 3>(flex::linear::forward(&x, &weight, bias.as_ref()))
        }
        Route::Composed => cube::linear(x, weight, bias),
    }
}

/// a·b over the last two dimensions, by the backend's product, or on a GPU by a fixed algorithm.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    cube::matmul(a, b)
}

/// a·b of matrices `[m, k]` and `[k, n]`, in any layout. If `a` is narrowed, `b` is narrowed too;
/// the result is wide.
///
/// The CPU backend's own product holds its result twice during the computation.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn product<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    let expected = [a.dims()[1], b.dims()[1]];
    check::shape("product", "b", &b.dims(), &expected, ("a", &a.dims()));
    match route::<B>(a.dtype()) {
        Route::Flex => {
            let [a, b] = [a, b].map(primitive::<Flex, B, 2>);
            wrap::<Flex, B, 2>(flex::linear::product(&a, &b))
        }
        Route::AutodiffFlex | Route::Composed => reference::product(a, b),
    }
}

/// `sum` + a·b of matrices `[m, n]`, `[m, k]` and `[k, n]`, computed in place if `sum` is not
/// shared.
///
/// For a [`product`] that is computed in parts. It is not meant to be differentiated.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn add_product<B: Backend>(
    sum: Tensor<B, 2>,
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let ([m, n], [_, k]) = (sum.dims(), a.dims());
    let beside = ("sum", &sum.dims()[..]);
    check::shape("add_product", "a", &a.dims(), &[m, k], beside);
    check::shape("add_product", "b", &b.dims(), &[k, n], beside);
    match route::<B>(a.dtype()) {
        Route::Flex => {
            let [sum, a, b] = [sum, a, b].map(primitive::<Flex, B, 2>);
            wrap::<Flex, B, 2>(flex::linear::add_product(sum, &a, &b))
        }
        Route::AutodiffFlex | Route::Composed => sum + reference::product(a, b),
    }
}

/// [`linear`] of [`gelu_tanh`]\(x\), which stores only x for the backward pass.
///
/// # Panics
///
/// As [`linear`].
pub fn gelu_linear<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 3> {
    check::linear("gelu_linear", &x.dims(), &weight.dims(), Some(&bias.dims()));
    match route::<B>(x.dtype()) {
        Route::AutodiffFlex => wrap::<AutodiffFlex, B, 3>(autodiff::gelu_linear(
            primitive::<AutodiffFlex, B, 3>(x),
            primitive::<AutodiffFlex, B, 2>(weight),
            primitive::<AutodiffFlex, B, 1>(bias),
        )),
        Route::Flex | Route::Composed => linear(gelu_tanh(x), weight, Some(bias)),
    }
}

/// The input of [`norm_modulate`].
#[derive(Clone, Debug)]
pub struct Modulated<B: Backend> {
    /// `[batch, length, width]`.
    pub x: Tensor<B, 3>,
    /// The weight of LayerNorm, `[width]`.
    pub weight: Tensor<B, 1>,
    /// `[batch, 1, width]`, or `[batch, length, width]` if each position has its own.
    pub shift: Tensor<B, 3>,
    /// The same shape as the shift.
    pub scale: Tensor<B, 3>,
    /// The ε of LayerNorm.
    pub epsilon: f64,
}

/// [`linear`] of [`norm_modulate`]\(input\), which stores only the input for the backward pass.
///
/// # Panics
///
/// As [`linear`] and [`norm_modulate`].
pub fn norm_linear<B: Backend>(
    input: Modulated<B>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    input.check("norm_linear");
    let bias_dims = bias.as_ref().map(Tensor::dims);
    let bias_dims = bias_dims.as_ref().map(|dims| &dims[..]);
    check::linear("norm_linear", &input.x.dims(), &weight.dims(), bias_dims);
    if input.is_by_position() {
        return linear(norm_modulate(input), weight, bias);
    }
    match route::<B>(weight.dtype()) {
        Route::AutodiffFlex => {
            let three = |x| primitive::<AutodiffFlex, B, 3>(x);
            wrap::<AutodiffFlex, B, 3>(autodiff::norm_linear(
                [
                    three(input.x),
                    primitive::<AutodiffFlex, B, 1>(input.weight),
                    three(input.shift),
                    three(input.scale),
                ],
                input.epsilon as f32,
                primitive::<AutodiffFlex, B, 2>(weight),
                bias.map(primitive::<AutodiffFlex, B, 1>),
            ))
        }
        Route::Flex | Route::Composed => linear(norm_modulate(input), weight, bias),
    }
}

/// Compiles the snippets of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
