//! The kernels as nodes of burn's autodiff graph, each with its own backward rule.

use crate::Mask;
use crate::flex::buffer::{contiguous, values};
use crate::flex::{attention, gelu, linear, noisy, norm, residual};
use crate::route::AutodiffFlex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn_flex::{Flex, FlexTensor};

type Node = FloatTensor<AutodiffFlex>;

/// Registers the gradient of each parent that needs one.
macro_rules! register {
    ($parents:expr, $gradients:expr, $grads:expr) => {
        for (parent, gradient) in $parents.into_iter().zip($gradients) {
            if let Some(parent) = parent {
                $grads.register::<Flex>(parent.id, gradient);
            }
        }
    };
}

/// A node with one parent whose backward pass needs only `State`.
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

pub(crate) fn gelu_tanh(x: Node) -> Node {
    let input = contiguous(x.primitive);
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
    let input = contiguous(qkv.primitive);
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

#[derive(Debug)]
struct NormModulate;

impl Backward<Flex, 4> for NormModulate {
    type State = norm::Saved;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<Flex>(&ops.node);
        let made = norm::backward(&ops.state, upstream);
        let made = [made.x, made.weight, made.shift, made.scale];
        register!(ops.parents, made, grads);
    }
}

pub(crate) fn norm_modulate(x: Node, weight: Node, shift: Node, scale: Node, epsilon: f32) -> Node {
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
    type State = (FlexTensor, FlexTensor, Option<Mask>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let (branch, gate, mask) = ops.state;
        let (dbranch, dgate) = residual::backward(&branch, &gate, mask, &upstream);
        register!(ops.parents, [upstream, dbranch, dgate], grads);
    }
}

pub(crate) fn gated_residual(x: Node, branch: Node, gate: Node, mask: Option<Mask>) -> Node {
    let (branch_of, gate_of) = (contiguous(branch.primitive), contiguous(gate.primitive));
    let out = residual::forward(x.primitive, &branch_of, &gate_of, mask);
    let saved = (branch_of, gate_of, mask);
    match GatedResidual
        .prepare::<NoCheckpointing>([x.node, branch.node, gate.node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

pub(crate) fn is_tracked(x: &Node) -> bool {
    !x.node.requirement.is_none()
}

/// A scalar with the gradients to its inputs as state.
#[derive(Debug)]
struct WithGradients;

impl<const N: usize> Backward<Flex, N> for WithGradients {
    type State = [FlexTensor; N];

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<Flex>(&ops.node);
        let upstream = values(&contiguous(upstream))[0];
        for (parent, grad) in ops.parents.into_iter().zip(ops.state) {
            if let Some(parent) = parent {
                let grad = if upstream == 1.0 {
                    grad
                } else {
                    Flex::float_mul_scalar(grad, upstream.into())
                };
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

pub(crate) fn attach_gradients<const N: usize>(
    value: FlexTensor,
    inputs: [(Node, FlexTensor); N],
) -> Node {
    let nodes = std::array::from_fn(|i| inputs[i].0.node.clone());
    match WithGradients
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(inputs.map(|(_, gradient)| gradient), value),
        OpsKind::UnTracked(prep) => prep.finish(value),
    }
}

unary_node!(
    NoisyRows,
    (noisy::Saved, FlexTensor),
    |(saved, matrix): Self::State, grad| noisy::backward(&saved, &matrix, &contiguous(grad))
);

pub(crate) fn noisy_rows(saved: noisy::Saved, seen: FlexTensor, matrix: Node) -> Node {
    let of = contiguous(matrix.primitive);
    let out = noisy::forward(&saved, &seen, &of);
    match NoisyRows
        .prepare::<NoCheckpointing>([matrix.node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((saved, of), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

/// A product whose input is recomputed from its own inputs: a normalized state, or a GELU.
///
/// The parents are those of the input, then the weight, then the bias, if any.
#[derive(Debug)]
struct Product;

/// How the input of a product is computed.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few a network, moved once")]
enum Input {
    Given(FlexTensor),
    Gelu(FlexTensor),
    Norm {
        saved: norm::Saved,
        shift: FlexTensor,
    },
}

impl Input {
    fn value(&self) -> FlexTensor {
        match self {
            Self::Given(x) => x.clone(),
            Self::Gelu(x) => gelu::forward(x.clone()),
            Self::Norm { saved, shift } => norm::forward(saved, shift.clone()),
        }
    }

    /// Returns the gradients to the input's own inputs, from the gradient to its value.
    fn gradients(&self, grad: FlexTensor) -> Vec<FlexTensor> {
        match self {
            Self::Given(_) => vec![grad],
            Self::Gelu(x) => vec![gelu::backward(x, grad)],
            Self::Norm { saved, .. } => {
                let made = norm::backward(saved, grad);
                vec![made.x, made.weight, made.shift, made.scale]
            }
        }
    }
}

impl<const N: usize> Backward<Flex, N> for Product {
    type State = (Input, FlexTensor);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let (input, weight) = ops.state;
        // The recomputed input is dropped before its gradient, of the same size, is allocated.
        let to_weight = linear::weight_gradient(&input.value(), &grad);
        let to_input = linear::gradient(&weight, &grad);
        let gradients = input.gradients(to_input).into_iter().chain([to_weight]);
        // A bias is the one parent after these; without it, its gradient is never computed.
        let to_bias = std::iter::once_with(|| linear::column_sums(&grad));
        register!(ops.parents, gradients.chain(to_bias), grads);
    }
}

/// Creates the node of a product with these parents.
fn product<const N: usize>(
    parents: [Node; N],
    input: Input,
    weight: FlexTensor,
    bias: Option<&FlexTensor>,
) -> Node {
    let out = linear::forward(&input.value(), &weight, bias);
    match Product
        .prepare::<NoCheckpointing>(parents.map(|parent| parent.node))
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((input, weight), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

pub(crate) fn linear(x: Node, weight: Node, bias: Option<Node>) -> Node {
    let (input, matrix) = (
        Input::Given(contiguous(x.primitive.clone())),
        weight.primitive.clone(),
    );
    match bias {
        Some(bias) => {
            let row = bias.primitive.clone();
            product([x, weight, bias], input, matrix, Some(&row))
        }
        None => product([x, weight], input, matrix, None),
    }
}

pub(crate) fn gelu_linear(x: Node, weight: Node, bias: Node) -> Node {
    let (input, matrix) = (
        Input::Gelu(contiguous(x.primitive.clone())),
        weight.primitive.clone(),
    );
    let row = bias.primitive.clone();
    product([x, weight, bias], input, matrix, Some(&row))
}

pub(crate) fn norm_linear(
    [x, gain, shift, scale]: [Node; 4],
    epsilon: f32,
    weight: Node,
    bias: Option<Node>,
) -> Node {
    let input = Input::Norm {
        saved: norm::Saved {
            x: contiguous(x.primitive.clone()),
            weight: contiguous(gain.primitive.clone()),
            scale: contiguous(scale.primitive.clone()),
            epsilon,
        },
        shift: contiguous(shift.primitive.clone()),
    };
    let matrix = weight.primitive.clone();
    match bias {
        Some(bias) => {
            let row = bias.primitive.clone();
            product(
                [x, gain, shift, scale, weight, bias],
                input,
                matrix,
                Some(&row),
            )
        }
        None => product([x, gain, shift, scale, weight], input, matrix, None),
    }
}
