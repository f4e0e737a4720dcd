//! The kernels as nodes of burn's autodiff graph, each with its own backward rule.

use super::launch::dims;
use super::product::{matmul as times, transposed};
use super::{attention as scores, gelu, noisy, norm, residual, rows as taken, sums};
use crate::Attention;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::DType;
use burn::tensor::ops::{FloatTensor, FloatTensorOps, ModuleOps};
use burn_cubecl::kernel::cast;
use burn_cubecl::ops::reshape;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, tensor::CubeTensor};

/// burn's backend on a runtime.
type On<R, T> = CubeBackend<R, f32, i32, T>;

type Node<R, T> = FloatTensor<Autodiff<On<R, T>>>;

/// A node with these parents, the data saved for its backward pass, and its value.
macro_rules! node {
    ($kind:expr, $parents:expr, $saved:expr, $out:expr) => {
        match $kind
            .prepare::<NoCheckpointing>($parents)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish($saved, $out),
            OpsKind::UnTracked(prep) => prep.finish($out),
        }
    };
}

/// The backward rule of a node: gradients to its parents, from the saved data and the gradient to
/// its value.
macro_rules! rule {
    ($name:ident, $parents:literal, $state:ty, |$saved:pat_param, $grad:ident| $gradients:expr) => {
        #[derive(Debug)]
        struct $name;

        impl<R: CubeRuntime, T: BoolElement> Backward<On<R, T>, $parents> for $name {
            type State = $state;

            fn backward(
                self,
                ops: Ops<Self::State, $parents>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let $grad = grads.consume::<On<R, T>>(&ops.node);
                let $saved = ops.state;
                for (parent, gradient) in ops.parents.into_iter().zip($gradients) {
                    if let Some(parent) = parent {
                        grads.register::<On<R, T>>(parent.id, gradient);
                    }
                }
            }
        }
    };
}

rule!(Gelu, 1, CubeTensor<R>, |x, grad| [gelu::backward(x, grad)]);
rule!(Rows, 1, (CubeTensor<R>, [usize; 2]), |(ids, dims), grad| {
    [taken::backward(ids, grad, dims)]
});
rule!(NoisyRows, 1, noisy::Saved<R>, |saved, grad| {
    [noisy::backward(saved, grad)]
});
rule!(NormModulate, 4, norm::Saved<R>, |saved, grad| {
    norm::backward(saved, grad)
});
rule!(SelfAttention, 1, scores::Saved<R>, |saved, grad| {
    [scores::backward(saved, grad)]
});
rule!(
    GatedResidual,
    3,
    [CubeTensor<R>; 2],
    |[branch, gate], grad| {
        let [to_branch, to_gate] = residual::backward(branch, gate, grad.clone());
        [grad, to_branch, to_gate]
    }
);
rule!(Linear, 2, [CubeTensor<R>; 2], |[x, weight], grad| {
    linear_gradients(x, weight, grad)
});
rule!(Affine, 3, [CubeTensor<R>; 2], |[x, weight], grad| {
    let to_bias = sums::columns(positions(grad.clone()));
    let [to_x, to_weight] = linear_gradients(x, weight, grad);
    [to_x, to_weight, to_bias]
});

#[derive(Debug)]
struct Matmul;

impl<R: CubeRuntime, T: BoolElement> Backward<On<R, T>, 2> for Matmul {
    type State = [CubeTensor<R>; 2];

    /// Computes only the products that are needed: a factor may be V-wide noise.
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<On<R, T>>(&ops.node);
        let ([to_a, to_b], [a, b]) = (ops.parents, ops.state);
        if let Some(parent) = to_a {
            grads.register::<On<R, T>>(parent.id, times(grad.clone(), transposed(b)));
        }
        if let Some(parent) = to_b {
            grads.register::<On<R, T>>(parent.id, times(transposed(a), grad));
        }
    }
}

/// A scalar with the gradients to its inputs as state.
#[derive(Debug)]
struct WithGradients;

impl<R: CubeRuntime, T: BoolElement, const N: usize> Backward<On<R, T>, N> for WithGradients {
    type State = [CubeTensor<R>; N];

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<On<R, T>>(&ops.node);
        for (parent, grad) in ops.parents.into_iter().zip(ops.state) {
            if let Some(parent) = parent {
                let grad = On::<R, T>::float_mul(grad, upstream.clone());
                grads.register::<On<R, T>>(parent.id, grad);
            }
        }
    }
}

pub(super) fn attach_gradients<R: CubeRuntime, T: BoolElement, const N: usize>(
    value: CubeTensor<R>,
    inputs: [(Node<R, T>, CubeTensor<R>); N],
) -> Node<R, T> {
    let nodes = std::array::from_fn(|i| inputs[i].0.node.clone());
    let gradients = inputs.map(|(_, gradient)| gradient);
    node!(WithGradients, nodes, gradients, value)
}

pub(super) fn gelu_tanh<R: CubeRuntime, T: BoolElement>(x: Node<R, T>) -> Node<R, T> {
    let out = gelu::forward(x.primitive.clone());
    node!(Gelu, [x.node], x.primitive, out)
}

pub(super) fn rows<R: CubeRuntime, T: BoolElement>(
    matrix: Node<R, T>,
    ids: CubeTensor<R>,
) -> Node<R, T> {
    let saved = (ids.clone(), dims(&matrix.primitive));
    let out = On::<R, T>::embedding(matrix.primitive, ids);
    node!(Rows, [matrix.node], saved, out)
}

pub(super) fn noisy_rows<R: CubeRuntime, T: BoolElement>(
    matrix: Node<R, T>,
    saved: noisy::Saved<R>,
    seen: CubeTensor<R>,
) -> Node<R, T> {
    let out = noisy::forward(&saved, seen);
    node!(NoisyRows, [matrix.node], saved, out)
}

pub(super) fn norm_modulate<R: CubeRuntime, T: BoolElement>(
    [x, weight, shift, scale]: [Node<R, T>; 4],
    epsilon: f32,
) -> Node<R, T> {
    let (out, saved) = norm::forward(
        x.primitive,
        weight.primitive,
        shift.primitive,
        scale.primitive,
        epsilon,
    );
    let parents = [x.node, weight.node, shift.node, scale.node];
    node!(NormModulate, parents, saved, out)
}

pub(super) fn attention<R: CubeRuntime, T: BoolElement>(
    qkv: Node<R, T>,
    tables: [CubeTensor<R>; 2],
    attention: Attention,
) -> Node<R, T> {
    let (out, saved) = scores::forward(qkv.primitive, tables, attention);
    node!(SelfAttention, [qkv.node], saved, out)
}

pub(super) fn gated_residual<R: CubeRuntime, T: BoolElement>(
    [x, branch, gate]: [Node<R, T>; 3],
) -> Node<R, T> {
    let saved = [branch.primitive.clone(), gate.primitive.clone()];
    let out = residual::forward(x.primitive, branch.primitive, gate.primitive);
    node!(GatedResidual, [x.node, branch.node, gate.node], saved, out)
}

pub(super) fn matmul<R: CubeRuntime, T: BoolElement>(a: Node<R, T>, b: Node<R, T>) -> Node<R, T> {
    let factors = [a.primitive, b.primitive];
    let [left, right] = factors.clone();
    node!(Matmul, [a.node, b.node], factors, times(left, right))
}

/// x·weight + bias of `x` `[batch, length, inputs]`. Parameters and result have the number type of
/// `x`.
pub(super) fn linear<R: CubeRuntime, T: BoolElement>(
    x: Node<R, T>,
    weight: Node<R, T>,
    bias: Option<Node<R, T>>,
) -> Node<R, T> {
    let narrowed = cast(weight.primitive, x.primitive.dtype);
    let saved = [x.primitive.clone(), narrowed.clone()];
    match bias {
        None => {
            let out = linear_value(x.primitive, narrowed, None);
            node!(Linear, [x.node, weight.node], saved, out)
        }
        Some(bias) => {
            let out = linear_value(x.primitive, narrowed, Some(bias.primitive));
            node!(Affine, [x.node, weight.node, bias.node], saved, out)
        }
    }
}

/// The value of [`linear`].
pub(super) fn linear_value<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    bias: Option<CubeTensor<R>>,
) -> CubeTensor<R> {
    let mut shape = x.meta.shape().clone();
    let dtype = x.dtype;
    let last = shape.num_dims() - 1;
    shape[last] = weight.meta.shape()[1];
    let y = times(positions(x), cast(weight, dtype));
    let y = match bias {
        Some(bias) => {
            let columns = shape[last];
            let bias = reshape(cast(bias, dtype), [1, columns].into());
            burn_cubecl::ops::numeric::add(y, bias)
        }
        None => y,
    };
    reshape(y, shape)
}

/// Returns the gradients to x and, in f32, to the weight.
fn linear_gradients<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    grad: CubeTensor<R>,
) -> [CubeTensor<R>; 2] {
    let shape = x.meta.shape().clone();
    let grad = positions(grad);
    let to_weight = cast(times(transposed(positions(x)), grad.clone()), DType::F32);
    [reshape(times(grad, transposed(weight)), shape), to_weight]
}

/// Returns all positions of `[batch, length, width]` as the rows of a matrix.
fn positions<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let shape = x.meta.shape();
    let width = shape[shape.num_dims() - 1];
    let count = x.meta.num_elements() / width;
    reshape(x, [count, width].into())
}
