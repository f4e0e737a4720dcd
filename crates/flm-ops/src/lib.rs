//! Fused operations of a transformer denoiser.
//!
//! A transformer block is a handful of matrix products between many small element-wise steps. Written with a tensor
//! library's primitives those steps cost more than the products: each one reads and writes the whole activation, and
//! again in the backward pass. This crate has them as single operations:
//!
//! - [`norm_modulate`]: LayerNorm, weight, shift and scale
//! - [`attention`]: rotary embedding, soft-capped scores, softmax and mixing, from the fused projection
//! - [`attention_after`]: the same for the next positions of a sequence, with what is kept of those before
//! - [`gelu_tanh`]
//! - [`gated_residual`], with a dropout whose [`Mask`] is a function and never kept
//! - [`capped_softmax`], [`capped_loss`], [`capped_loss_gradient`]: the head's soft-capped distribution
//! - [`attach_gradients`]: a loss that was computed together with its gradients
//! - [`cholesky`]: the triangular root of a Gram matrix, and its inverse
//! - [`noisy_rows`]: rows of a tall matrix, each mixed with Gaussian noise times that matrix
//! - [`soft_rows`]: means of a tall matrix's rows by a softmax over all of them
//! - [`linear`], [`norm_linear`], [`gelu_linear`]: a matrix product over the last dimension, of what is made again instead of kept
//! - [`product`], [`add_product`], [`matmul`]: a product alone, or as a sum of parts, or as the backend has it
//! - [`rows`]: those of a matrix
//! - [`dual`]: the transformer's operations with their derivative along a direction
//! - [`adamw`], [`orthogonal`], [`blend`], [`sum_of_squares`], [`scale`]: what an optimizer does to every parameter
//!
//! Each works on every burn backend, differentiated or not, as a composition of burn's operations. Tensors of the CPU
//! backend (`burn_flex::Flex`, and `Autodiff` over it) in f32 take a native kernel instead, with a backward rule of its
//! own; the composition is what the kernels are tested against. With the features `cuda` and `wgpu` so do tensors of burn's backends
//! of these names, in f32 and bf16, where the composition would be many small operations or a product of any way. Products follow their first factor's [`Precision`]. The
//! crate knows no model.
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

/// Rows of a matrix `[rows, width]` by their numbers `[batch, length]`: `[batch, length, width]`.
///
/// The gradient of a row that was taken more than once is added up in the same order at every call.
pub fn rows<B: Backend>(matrix: Tensor<B, 2>, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    cube::rows(matrix, ids)
}

/// GELU in its tanh form, of any shape.
pub fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match route::<B>(x.dtype()) {
        Route::Flex => wrap::<Flex, B, D>(flex::gelu::forward(primitive::<Flex, B, D>(x))),
        Route::AutodiffFlex => {
            wrap::<AutodiffFlex, B, D>(autodiff::gelu_tanh(primitive::<AutodiffFlex, B, D>(x)))
        }
        Route::Composed => cube::gelu_tanh(x),
    }
}

/// LayerNorm over the last dimension, then a shift and a scale for each sequence: n(x)·weight·(1 + scale) + shift.
///
/// Of those for each position only the LayerNorm is a kernel.
///
/// # Panics
///
/// If the shapes are others than [`Modulated`] says, or `x` is empty.
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

    /// How many shifts there are for a sequence: one, or one for each position.
    fn positions(&self) -> usize {
        positions_of(&self.shift, &self.x)
    }

    fn is_by_position(&self) -> bool {
        self.positions() != 1
    }

    /// The LayerNorm alone, then what each position has of its own.
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

/// What of a sequence has a row of `by`, which is beside `x` `[batch, length, width]`: all positions, or all of it together.
fn positions_of<B: Backend>(by: &Tensor<B, 3>, x: &Tensor<B, 3>) -> usize {
    let [_, length, _] = x.dims();
    if by.dims()[1] == length { length } else { 1 }
}

/// How positions attend to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Heads that the width is cut into.
    pub heads: usize,
    /// Scores are bounded by `softcap`·tanh(·/`softcap`).
    pub softcap: f64,
    /// Whether a position sees only itself and what stands before it.
    pub causal: bool,
}

/// Rotary self-attention with bounded scores, over all positions or over those before.
///
/// `qkv` `[batch, length, 3·width]` holds queries, keys and values, each as so many heads; the result is
/// `[batch, length, width]`. The tables of `rope` are those of this length and head width.
///
/// # Panics
///
/// If `qkv` is empty, does not divide into heads of even width, or the tables are for other sizes.
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

/// x + gate·mask·branch, with one gate for each sequence and, where given, a dropout of the branch.
///
/// `x` and `branch` `[batch, length, width]`, `gate` `[batch, 1, width]`, or `[batch, length, width]` where each position has its own; a
/// narrowed branch is widened.
///
/// # Panics
///
/// If the shapes are others, or `x` is empty.
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

/// Whether a gradient may flow to `x`. Where this crate has no kernels it cannot know, and says yes.
pub fn may_take_gradient<A: AutodiffBackend, const D: usize>(x: &Tensor<A, D>) -> bool {
    match route::<A>(x.dtype()) {
        Route::AutodiffFlex => autodiff::is_tracked(&primitive::<AutodiffFlex, A, D>(x.clone())),
        Route::Flex | Route::Composed => true,
    }
}

/// A scalar whose gradients are known already: of value `value` `[1]`, each input `[n]` with the gradient `[n]` to it.
///
/// The way to put a loss into the graph that was computed together with its gradients, piece by piece. Where there is no
/// kernel, it is a sum of products, which has these gradients.
///
/// # Panics
///
/// If a gradient is not as long as its input.
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

/// x·weight + bias over the last dimension of `x` `[batch, length, inputs]`, `weight` `[inputs, outputs]`.
///
/// One matrix product over all positions: a batched one would give the weight a gradient for each sequence first. Where `x` was
/// narrowed, the parameters are narrowed for it, and so is the result.
///
/// # Panics
///
/// If `weight` or `bias` do not fit `x`.
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

/// a·b over the last two dimensions, as the backend has it, or on a GPU by a way that is chosen beforehand.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    cube::matmul(a, b)
}

/// a·b of matrices `[m, k]` and `[k, n]`, in any layout. Where `a` was narrowed, `b` is narrowed for it; the result is wide.
///
/// The CPU backend's own product holds its result twice while it makes it.
///
/// # Panics
///
/// If the shapes do not fit.
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

/// `sum` + a·b of matrices `[m, n]`, `[m, k]` and `[k, n]`, in the place of `sum` where nobody else holds it.
///
/// For a product that comes in parts, as [`product`]. No gradient is meant to flow through it.
///
/// # Panics
///
/// If the shapes do not fit.
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

/// [`linear`] of [`gelu_tanh`]\(x\), of which nothing but x is kept for the backward pass.
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

/// What goes into a [`norm_modulate`].
#[derive(Clone, Debug)]
pub struct Modulated<B: Backend> {
    /// `[batch, length, width]`.
    pub x: Tensor<B, 3>,
    /// Of LayerNorm, `[width]`.
    pub weight: Tensor<B, 1>,
    /// `[batch, 1, width]`, or `[batch, length, width]` where each position has its own.
    pub shift: Tensor<B, 3>,
    /// As the shift.
    pub scale: Tensor<B, 3>,
    /// Of LayerNorm.
    pub epsilon: f64,
}

/// [`linear`] of [`norm_modulate`]\(input\), of which nothing but the input is kept for the backward pass.
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

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
