//! Every operation twice, as the crate's function and as a composition, over inputs in flat leaves.

use crate::dual::{self, Dual};
use crate::{Attention, Mask, Modulated, Rope, reference};
use burn::tensor::{Tensor, backend::Backend};

/// The memory layout of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View {
    /// In row order.
    Plain,
    /// With the last two dimensions exchanged.
    Transposed,
    /// The second half of rows twice as long.
    Narrowed,
}

/// An input: its shape as the operation sees it, its layout, and the scale of its normal values.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) shape: Vec<usize>,
    pub(crate) view: View,
    pub(crate) scale: f32,
}

impl Input {
    pub(crate) fn new(shape: &[usize], view: View) -> Self {
        Self {
            shape: shape.to_vec(),
            view,
            scale: 1.0,
        }
    }

    pub(crate) fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Returns the number of values of the leaf that the input is a view of.
    pub(crate) fn count(&self) -> usize {
        let count: usize = self.shape.iter().product();
        if matches!(self.view, View::Narrowed) {
            2 * count
        } else {
            count
        }
    }

    /// Returns the input as a view of its leaf.
    pub(super) fn of<B: Backend, const D: usize>(&self, leaf: &Tensor<B, 1>) -> Tensor<B, D> {
        let mut shape: [usize; D] = self
            .shape
            .clone()
            .try_into()
            .expect("the rank that the operation asks for");
        let last = shape[D - 1];
        match self.view {
            View::Plain => leaf.clone().reshape(shape),
            View::Transposed => {
                shape.swap(D - 2, D - 1);
                leaf.clone().reshape(shape).swap_dims(D - 2, D - 1)
            }
            View::Narrowed => {
                shape[D - 1] = 2 * last;
                leaf.clone().reshape(shape).narrow(D - 1, last, last)
            }
        }
    }
}

/// An operation and its settings.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Gelu,
    Norm,
    Attention(Attention),
    Residual { mask: Option<Mask> },
    Linear,
    GeluLinear,
    NormLinear { bias: bool },
}

/// An operation and its inputs.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) operation: Operation,
    pub(crate) inputs: Vec<Input>,
}

const EPSILON: f64 = 1e-5;

impl Case {
    fn input<B: Backend, const D: usize>(&self, leaves: &[Tensor<B, 1>], i: usize) -> Tensor<B, D> {
        self.inputs[i].of(&leaves[i])
    }

    /// Returns the first four inputs as those of a modulated norm.
    fn modulated<B: Backend>(&self, leaves: &[Tensor<B, 1>]) -> Modulated<B> {
        Modulated {
            x: self.input(leaves, 0),
            weight: self.input(leaves, 1),
            shift: self.input(leaves, 2),
            scale: self.input(leaves, 3),
            epsilon: EPSILON,
        }
    }

    fn rope<B: Backend>(&self, heads: usize) -> Rope<B> {
        let (length, triple) = (self.inputs[0].shape[1], self.inputs[0].shape[2]);
        Rope::new(length, triple / 3 / heads, 10_000.0, &Default::default())
    }

    /// Returns the result of the crate's function, flat.
    pub(crate) fn offered<B: Backend>(&self, leaves: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let three = |i: usize| self.input::<B, 3>(leaves, i);
        let two = |i: usize| self.input::<B, 2>(leaves, i);
        match self.operation {
            Operation::Gelu => crate::gelu_tanh(two(0)).flatten(0, 1),
            Operation::Norm => crate::norm_modulate(self.modulated(leaves)).flatten(0, 2),
            Operation::Attention(attention) => {
                crate::attention(three(0), &self.rope(attention.heads), attention).flatten(0, 2)
            }
            Operation::Residual { mask } => {
                crate::gated_residual(three(0), three(1), three(2), mask).flatten(0, 2)
            }
            Operation::Linear => crate::linear(three(0), two(1), None).flatten(0, 2),
            Operation::GeluLinear => {
                crate::gelu_linear(three(0), two(1), self.input(leaves, 2)).flatten(0, 2)
            }
            Operation::NormLinear { bias } => {
                let bias = bias.then(|| self.input(leaves, 5));
                crate::norm_linear(self.modulated(leaves), two(4), bias).flatten(0, 2)
            }
        }
    }

    /// Returns whether an input is a parameter, whose tangent is zero.
    pub(crate) fn is_parameter(&self, input: usize) -> bool {
        match self.operation {
            Operation::Gelu | Operation::Attention(_) | Operation::Residual { .. } => false,
            Operation::Linear | Operation::GeluLinear => input > 0,
            Operation::Norm | Operation::NormLinear { .. } => input == 1 || input > 3,
        }
    }

    /// Returns the result and its derivative along the tangents of the leaves, flat.
    pub(crate) fn dual<B: Backend>(&self, leaves: &[Dual<B, 1>]) -> Dual<B, 1> {
        fn moving<B: Backend, const D: usize>(
            case: &Case,
            leaves: &[Dual<B, 1>],
            i: usize,
        ) -> Dual<B, D> {
            leaves[i].clone().map(|leaf| case.inputs[i].of(&leaf))
        }
        let three = |i: usize| moving::<B, 3>(self, leaves, i);
        let matrix = |i: usize| moving::<B, 2>(self, leaves, i).value;
        let row = |i: usize| moving::<B, 1>(self, leaves, i).value;
        let modulated = || dual::Modulated {
            x: three(0),
            weight: row(1),
            shift: three(2),
            scale: three(3),
            epsilon: EPSILON,
        };
        let out = match self.operation {
            Operation::Gelu => {
                let out = dual::gelu_tanh(moving::<B, 2>(self, leaves, 0));
                return out.map(|out| out.flatten(0, 1));
            }
            Operation::Norm => dual::norm_modulate(modulated()),
            Operation::Attention(attention) => {
                dual::attention(three(0), &self.rope(attention.heads), attention)
            }
            Operation::Residual { mask } => {
                dual::gated_residual(three(0), three(1), three(2), mask)
            }
            Operation::Linear => dual::linear(three(0), matrix(1), None),
            Operation::GeluLinear => {
                dual::linear(dual::gelu_tanh(three(0)), matrix(1), Some(row(2)))
            }
            Operation::NormLinear { bias } => {
                let normal = dual::norm_modulate(modulated());
                dual::linear(normal, matrix(4), bias.then(|| row(5)))
            }
        };
        out.map(|out| out.flatten(0, 2))
    }

    /// Returns the result of the composition of burn's operations, flat.
    pub(crate) fn composed<B: Backend>(&self, leaves: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let three = |i: usize| self.input::<B, 3>(leaves, i);
        let two = |i: usize| self.input::<B, 2>(leaves, i);
        match self.operation {
            Operation::Gelu => reference::gelu_tanh(two(0)).flatten(0, 1),
            Operation::Norm => reference::norm_modulate(self.modulated(leaves)).flatten(0, 2),
            Operation::Attention(attention) => {
                reference::attention(three(0), &self.rope(attention.heads), attention).flatten(0, 2)
            }
            Operation::Residual { mask } => {
                reference::gated_residual(three(0), three(1), three(2), mask).flatten(0, 2)
            }
            Operation::Linear => reference::linear(three(0), two(1), None).flatten(0, 2),
            Operation::GeluLinear => {
                let bias = Some(self.input(leaves, 2));
                reference::linear(reference::gelu_tanh(three(0)), two(1), bias).flatten(0, 2)
            }
            Operation::NormLinear { bias } => {
                let normal = reference::norm_modulate(self.modulated(leaves));
                let bias = bias.then(|| self.input(leaves, 5));
                reference::linear(normal, two(4), bias).flatten(0, 2)
            }
        }
    }
}

pub(super) const VIEWS: [View; 3] = [View::Plain, View::Transposed, View::Narrowed];

/// Returns all cases: lengths and batches of one, lengths of several tiles and tasks with a
/// remainder, odd sizes, widths next to multiples of a vector, and inputs in row order and not.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for view in VIEWS {
        for shape in [[1, 1], [3, 37], [130, 257]] {
            // Arguments up to about ten reach both tails of the function.
            cases.push(Case {
                operation: Operation::Gelu,
                inputs: vec![Input::new(&shape, view).scaled(3.0)],
            });
        }
        for [batch, length, width] in [[1, 1, 2], [2, 1, 37], [1, 5, 16], [3, 7, 64], [2, 70, 257]]
        {
            let (x, row) = ([batch, length, width], [batch, 1, width]);
            let weight = Input::new(
                &[width],
                if matches!(view, View::Transposed) {
                    View::Plain
                } else {
                    view
                },
            );
            let (shift, scale) = (Input::new(&row, view), Input::new(&row, view));
            let inputs = vec![Input::new(&x, view).scaled(2.0), weight, shift, scale];
            let product = Input::new(&[width, 5], view);
            let bias = Input::new(&[5], View::Plain);
            for bias in [None, Some(bias.clone())] {
                let mut inputs = inputs.clone();
                let operation = Operation::NormLinear {
                    bias: bias.is_some(),
                };
                inputs.push(product.clone());
                inputs.extend(bias);
                cases.push(Case { operation, inputs });
            }
            cases.push(Case {
                operation: Operation::Norm,
                inputs,
            });
            cases.push(Case {
                operation: Operation::Linear,
                inputs: vec![Input::new(&x, view), product.clone()],
            });
            cases.push(Case {
                operation: Operation::GeluLinear,
                inputs: vec![Input::new(&x, view).scaled(3.0), product, bias],
            });
            let inputs = vec![
                Input::new(&x, view),
                Input::new(&x, view),
                Input::new(&row, view),
            ];
            for mask in [None, Some(Mask::new(0.3, 5))] {
                cases.push(Case {
                    operation: Operation::Residual { mask },
                    inputs: inputs.clone(),
                });
            }
        }
        for (batch, length, heads, head_width, softcap, scale) in [
            (1, 1, 1, 2, 50.0, 1.0),
            (2, 7, 3, 6, 50.0, 1.0),
            (1, 33, 2, 16, 2.0, 2.0),
            (3, 5, 1, 34, 50.0, 4.0),
            (2, 130, 2, 8, 50.0, 2.0),
        ] {
            let input = Input::new(&[batch, length, 3 * heads * head_width], view).scaled(scale);
            for causal in [false, true] {
                let attention = Attention {
                    heads,
                    softcap,
                    causal,
                };
                cases.push(Case {
                    operation: Operation::Attention(attention),
                    inputs: vec![input.clone()],
                });
            }
        }
    }
    cases
}

/// Returns cases with a shift, a scale and a gate per position.
pub(crate) fn by_position() -> Vec<Case> {
    let mut cases = Vec::new();
    for view in VIEWS {
        for shape in [[2, 2, 37], [1, 5, 16], [3, 7, 64]] {
            let input = || Input::new(&shape, view);
            let weight = Input::new(&shape[2..], View::Plain);
            let inputs = vec![input().scaled(2.0), weight, input(), input()];
            let mut mapped = inputs.clone();
            mapped.push(Input::new(&[shape[2], 5], view));
            cases.push(Case {
                operation: Operation::Norm,
                inputs,
            });
            cases.push(Case {
                operation: Operation::NormLinear { bias: false },
                inputs: mapped,
            });
            for mask in [None, Some(Mask::new(0.3, 5))] {
                cases.push(Case {
                    operation: Operation::Residual { mask },
                    inputs: vec![input(), input(), input()],
                });
            }
        }
    }
    cases
}
