//! The kernels as nodes of burn's autodiff graph, each with its own backward rule.

use crate::flex::{attention, gelu, norm, residual, softmax};
use crate::route::AutodiffFlex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::tensor::ops::FloatTensor;
use burn_flex::{Flex, FlexTensor};

type Node = FloatTensor<AutodiffFlex>;

/// A node of one parent whose backward pass needs `State` alone.
macro_rules! unary_node {
    ($name:ident, $state:ty, $backward:expr) => {
        #[derive(Debug)]
        struct $name;

        impl Backward<Flex, 1> for $name {
            type State = $state;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let state = ops.state;
                unary::<Flex, _>(ops.parents, ops.node, grads, |grad| $backward(state, grad));
            }
        }
    };
}

unary_node!(Gelu, FlexTensor, |x: FlexTensor, grad| gelu::backward(
    &x, grad
));
unary_node!(
    Attention,
    (FlexTensor, attention::Setting),
    |(qkv, setting): Self::State, grad| { attention::backward(&qkv, &setting, grad) }
);
// The state is the gradient of each row's loss to its logits, made in the forward pass.
unary_node!(CrossEntropy, FlexTensor, softmax::scale_rows);

pub(crate) fn gelu_tanh(x: Node) -> Node {
    let input = crate::flex::buffer::contiguous(x.primitive);
    let out = gelu::forward(input.clone());
    match Gelu
        .prepare::<NoCheckpointing>([x.node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(input, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

pub(crate) fn attention(qkv: Node, setting: attention::Setting) -> Node {
    let input = crate::flex::buffer::contiguous(qkv.primitive);
    let out = attention::forward(input.clone(), &setting);
    match Attention
        .prepare::<NoCheckpointing>([qkv.node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((input, setting), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

pub(crate) fn cross_entropy(logits: Node, target: softmax::Target<'_>, cap: f32) -> Node {
    let input = crate::flex::buffer::contiguous(logits.primitive);
    match CrossEntropy
        .prepare::<NoCheckpointing>([logits.node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (loss, grad) = softmax::cross_entropy(&input, target, cap, true);
            prep.finish(grad.expect("a gradient was asked for"), loss)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(softmax::cross_entropy(&input, target, cap, false).0)
        }
    }
}

#[derive(Debug)]
struct NormModulate;

impl Backward<Flex, 4> for NormModulate {
    type State = norm::Saved;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<Flex>(&ops.node);
        let made = norm::backward(&ops.state, upstream);
        let made = [made.x, made.weight, made.shift, made.scale];
        for (parent, grad) in ops.parents.into_iter().zip(made) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

pub(crate) fn norm_modulate(x: Node, weight: Node, shift: Node, scale: Node, epsilon: f32) -> Node {
    let contiguous = crate::flex::buffer::contiguous;
    let saved = norm::Saved {
        x: contiguous(x.primitive),
        weight: contiguous(weight.primitive),
        scale: contiguous(scale.primitive),
        epsilon,
    };
    let out = norm::forward(&saved, shift.primitive);
    let nodes = [x.node, weight.node, shift.node, scale.node];
    match NormModulate
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

#[derive(Debug)]
struct GatedResidual;

impl Backward<Flex, 3> for GatedResidual {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = crate::flex::buffer::contiguous(grads.consume::<Flex>(&ops.node));
        let (branch, gate) = ops.state;
        let (dbranch, dgate) = residual::backward(&branch, &gate, &upstream);
        for (parent, grad) in ops.parents.into_iter().zip([upstream, dbranch, dgate]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

pub(crate) fn gated_residual(x: Node, branch: Node, gate: Node) -> Node {
    let contiguous = crate::flex::buffer::contiguous;
    let saved = (contiguous(branch.primitive), contiguous(gate.primitive));
    let out = residual::forward(x.primitive, &saved.0, &saved.1);
    match GatedResidual
        .prepare::<NoCheckpointing>([x.node, branch.node, gate.node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
