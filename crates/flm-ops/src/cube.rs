//! GPU kernels, generic over the runtime, and their dispatch from tensors of any backend.
//!
//! Every function here has the same name as one in [`reference`]. Tensors of a backend with these
//! kernels use them, and all others use the composition.

mod attention;
mod cholesky;
mod gelu;
mod launch;
mod loss;
mod nodes;
mod noisy;
mod norm;
mod product;
mod residual;
mod rows;
mod sums;
mod update;

use crate::route::same;
use crate::{
    AdamW, Attention, CappedLoss, Mask, Modulated, Noisy, Rope, SoftRows, Target, primitive,
    reference, wrap,
};
use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::ModuleOps;
use burn::tensor::{DType, Int, Tensor};
use std::any::TypeId;

fn is<A: Backend, B: Backend>() -> bool {
    TypeId::of::<A>() == TypeId::of::<B>()
}

/// Returns from the function with one of two values if tensors of `$backend` live on a GPU:
/// `$plain` on `$on`, `$graph` in a graph over it.
macro_rules! on_gpu {
    ($backend:ty, $on:ident => $plain:expr, $graph:expr) => {
        #[cfg(feature = "cuda")]
        {
            type $on = burn::backend::Cuda;
            if is::<$backend, $on>() {
                return $plain;
            }
            if is::<$backend, Autodiff<$on>>() {
                return $graph;
            }
        }
        #[cfg(feature = "wgpu")]
        {
            type $on = burn::backend::Wgpu;
            if is::<$backend, $on>() {
                return $plain;
            }
            if is::<$backend, Autodiff<$on>>() {
                return $graph;
            }
        }
    };
    ($backend:ty, graph over $on:ident => $graph:expr) => {
        #[cfg(feature = "cuda")]
        {
            type $on = burn::backend::Cuda;
            if is::<$backend, Autodiff<$on>>() {
                return $graph;
            }
        }
        #[cfg(feature = "wgpu")]
        {
            type $on = burn::backend::Wgpu;
            if is::<$backend, Autodiff<$on>>() {
                return $graph;
            }
        }
    };
    ($backend:ty, $on:ident => $plain:expr) => {
        #[cfg(feature = "cuda")]
        {
            type $on = burn::backend::Cuda;
            if is::<$backend, $on>() {
                return $plain;
            }
        }
        #[cfg(feature = "wgpu")]
        {
            type $on = burn::backend::Wgpu;
            if is::<$backend, $on>() {
                return $plain;
            }
        }
    };
}

/// a·b over the last two dimensions, in the factors' number type. The kernel needs equal leading
/// dimensions.
pub(crate) fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    if std::iter::zip(a.dims(), b.dims())
        .take(D - 2)
        .all(|(a, b)| a == b)
        && a.dtype() == b.dtype()
    {
        on_gpu!(B, C => {
            let [a, b] = [a, b].map(primitive::<C, B, D>);
            wrap::<C, B, D>(product::matmul(a, b))
        }, {
            let [a, b] = [a, b].map(primitive::<Autodiff<C>, B, D>);
            wrap::<Autodiff<C>, B, D>(nodes::matmul(a, b))
        });
    }
    a.matmul(b)
}

/// Means of a matrix's rows by a softmax, with a backward rule that computes the softmax again.
pub(crate) fn soft_rows<B: Backend>(input: SoftRows<B>) -> Tensor<B, 2> {
    on_gpu!(B, C => reference::soft_rows(input), {
        wrap::<Autodiff<C>, B, 2>(crate::soft_rows::node::<C>(input.primitives::<Autodiff<C>>()))
    });
    reference::soft_rows(input)
}

/// Returns the rows `ids` `[batch, length]` of a matrix.
pub(crate) fn rows<B: Backend>(matrix: Tensor<B, 2>, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    on_gpu!(B, C => {
        let (matrix, ids) = (primitive::<C, B, 2>(matrix), same::<B, C, 2, Int>(ids));
        wrap::<C, B, 3>(C::embedding(matrix, ids.into_primitive()))
    }, {
        let matrix = primitive::<Autodiff<C>, B, 2>(matrix);
        let ids = same::<B, Autodiff<C>, 2, Int>(ids).into_primitive();
        wrap::<Autodiff<C>, B, 3>(nodes::rows(matrix, ids))
    });
    reference::rows(matrix, ids)
}

pub(crate) fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    on_gpu!(
        B,
        C => wrap::<C, B, D>(gelu::forward(primitive::<C, B, D>(x))),
        wrap::<Autodiff<C>, B, D>(nodes::gelu_tanh(primitive::<Autodiff<C>, B, D>(x)))
    );
    reference::gelu_tanh(x)
}

pub(crate) fn norm_modulate<B: Backend>(input: Modulated<B>) -> Tensor<B, 3> {
    if input.x.dtype() != DType::F32 {
        return reference::norm_modulate(input);
    }
    let epsilon = input.epsilon as f32;
    on_gpu!(B, C => {
        let [x, shift, scale] = [input.x, input.shift, input.scale].map(primitive::<C, B, 3>);
        let weight = primitive::<C, B, 1>(input.weight);
        wrap::<C, B, 3>(norm::forward(x, weight, shift, scale, epsilon).0)
    }, {
        let [x, shift, scale] =
            [input.x, input.shift, input.scale].map(primitive::<Autodiff<C>, B, 3>);
        let weight = primitive::<Autodiff<C>, B, 1>(input.weight);
        wrap::<Autodiff<C>, B, 3>(nodes::norm_modulate([x, weight, shift, scale], epsilon))
    });
    reference::norm_modulate(input)
}

pub(crate) fn attention<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    attention: Attention,
) -> Tensor<B, 3> {
    on_gpu!(B, C => {
        let tables = [rope.cos.clone(), rope.sin.clone()].map(primitive::<C, B, 2>);
        let qkv = primitive::<C, B, 3>(qkv);
        wrap::<C, B, 3>(attention::forward(qkv, tables, attention).0)
    }, {
        let tables = [rope.cos.clone(), rope.sin.clone()]
            .map(|table| primitive::<Autodiff<C>, B, 2>(table).primitive);
        let qkv = primitive::<Autodiff<C>, B, 3>(qkv);
        wrap::<Autodiff<C>, B, 3>(nodes::attention(qkv, tables, attention))
    });
    reference::attention(qkv, rope, attention)
}

pub(crate) fn gated_residual<B: Backend>(
    x: Tensor<B, 3>,
    branch: Tensor<B, 3>,
    gate: Tensor<B, 3>,
    mask: Option<Mask>,
) -> Tensor<B, 3> {
    if mask.is_some() {
        return reference::gated_residual(x, branch, gate, mask);
    }
    on_gpu!(B, C => {
        let [x, branch, gate] = [x, branch, gate].map(primitive::<C, B, 3>);
        wrap::<C, B, 3>(residual::forward(x, branch, gate))
    }, {
        let all = [x, branch, gate].map(primitive::<Autodiff<C>, B, 3>);
        wrap::<Autodiff<C>, B, 3>(nodes::gated_residual(all))
    });
    reference::gated_residual(x, branch, gate, mask)
}

pub(crate) fn attach_gradients<A: AutodiffBackend, const N: usize>(
    value: Tensor<A::InnerBackend, 1>,
    inputs: [(Tensor<A, 1>, Tensor<A::InnerBackend, 1>); N],
) -> Tensor<A, 1> {
    on_gpu!(A, graph over C => {
        let value = primitive::<C, A::InnerBackend, 1>(value);
        let inputs = inputs.map(|(input, gradient)| {
            let input = primitive::<Autodiff<C>, A, 1>(input);
            (input, primitive::<C, A::InnerBackend, 1>(gradient))
        });
        wrap::<Autodiff<C>, A, 1>(nodes::attach_gradients(value, inputs))
    });
    reference::attach_gradients(value, inputs)
}

pub(crate) fn cholesky<B: Backend>(matrix: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
    if matrix.dtype() == DType::F32 {
        on_gpu!(B, C => {
            cholesky::cholesky(primitive::<C, B, 2>(matrix)).map(wrap::<C, B, 2>)
        });
    }
    reference::cholesky(matrix)
}

pub(crate) fn noisy_rows<A: AutodiffBackend>(input: Noisy<A>) -> Tensor<A, 2> {
    if input.matrix.dtype() != DType::F32 {
        return reference::noisy_rows(input);
    }
    on_gpu!(A, graph over C => {
        let inner = primitive::<C, A::InnerBackend, 2>;
        let matrix = primitive::<Autodiff<C>, A, 2>(input.matrix);
        let saved = noisy::Saved {
            matrix: matrix.primitive.clone(),
            ids: same::<A::InnerBackend, C, 1, Int>(input.ids).into_primitive(),
            t: primitive::<C, A::InnerBackend, 1>(input.t),
            z: inner(input.z),
            inverse: inner(input.inverse),
        };
        wrap::<Autodiff<C>, A, 2>(nodes::noisy_rows(matrix, saved, inner(input.seen)))
    });
    reference::noisy_rows(input)
}

pub(crate) fn linear<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    on_gpu!(B, C => {
        let (x, weight) = (primitive::<C, B, 3>(x), primitive::<C, B, 2>(weight));
        let bias = bias.map(primitive::<C, B, 1>);
        wrap::<C, B, 3>(nodes::linear_value(x, weight, bias))
    }, {
        let x = primitive::<Autodiff<C>, B, 3>(x);
        let weight = primitive::<Autodiff<C>, B, 2>(weight);
        let bias = bias.map(primitive::<Autodiff<C>, B, 1>);
        wrap::<Autodiff<C>, B, 3>(nodes::linear(x, weight, bias))
    });
    reference::linear(x, weight, bias)
}

/// Returns whether the kernels support this target and cap.
fn fits<B: Backend>(target: &Target<B>, cap: f64) -> bool {
    cap <= crate::vocabulary::LARGEST_CAP && matches!(target, Target::Tokens(_))
}

fn tokens<B: Backend>(target: Target<B>) -> Option<Tensor<B, 1, Int>> {
    match target {
        Target::Tokens(ids) => Some(ids),
        Target::Distributions(_) | Target::Points(_) => None,
    }
}

pub(crate) fn capped_loss<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    cap: f64,
) -> Tensor<B, 1> {
    if fits(&target, cap) {
        on_gpu!(B, C => {
            let ids = tokens(target).map(same::<B, C, 1, Int>);
            let ids = ids.expect("tokens").into_primitive();
            let bias = primitive::<C, B, 1>(bias);
            let product = primitive::<C, B, 2>(product);
            wrap::<C, B, 1>(loss::of_tokens(product, bias, ids, None, cap as f32).0)
        });
    }
    reference::capped_loss(product, bias, target, cap)
}

pub(crate) fn capped_loss_gradient<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    weights: Tensor<B, 1>,
    cap: f64,
) -> CappedLoss<B> {
    if fits(&target, cap) {
        on_gpu!(B, C => {
            let ids = tokens(target).map(same::<B, C, 1, Int>);
            let ids = ids.expect("tokens").into_primitive();
            let bias = primitive::<C, B, 1>(bias);
            let weights = Some(primitive::<C, B, 1>(weights));
            let product = primitive::<C, B, 2>(product);
            let (loss, gradient) = loss::of_tokens(product, bias, ids, weights, cap as f32);
            CappedLoss {
                loss: wrap::<C, B, 1>(loss),
                bias: wrap::<C, B, 1>(sums::columns(gradient.clone())),
                product: wrap::<C, B, 2>(gradient),
            }
        });
    }
    reference::capped_loss_gradient(product, bias, target, weights, cap)
}

pub(crate) fn adamw<B: Backend, const D: usize>(
    rule: &AdamW,
    param: Tensor<B, D>,
    grad: Tensor<B, D>,
    first: Tensor<B, D>,
    second: Tensor<B, D>,
) -> [Tensor<B, D>; 3] {
    on_gpu!(B, C => {
        let [param, grad, first, second] =
            [param, grad, first, second].map(primitive::<C, B, D>);
        update::adamw(rule, param, grad, first, second).map(wrap::<C, B, D>)
    });
    reference::adamw(rule, param, grad, first, second)
}

pub(crate) fn blend<B: Backend, const D: usize>(
    average: Tensor<B, D>,
    live: Tensor<B, D>,
    decay: f64,
) -> Tensor<B, D> {
    on_gpu!(B, C => {
        let [average, live] = [average, live].map(primitive::<C, B, D>);
        wrap::<C, B, D>(update::blend(average, live, decay))
    });
    reference::blend(average, live, decay)
}

pub(crate) fn sum_of_squares<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 1> {
    on_gpu!(B, C => wrap::<C, B, 1>(sums::of_squares(primitive::<C, B, D>(x))));
    reference::sum_of_squares(x)
}
