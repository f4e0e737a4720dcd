//! Every operation twice, as offered and as a composition, over inputs in flat leaves.

use crate::{Rope, reference};
use burn::tensor::{Int, Tensor, backend::Backend};

/// How an input lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View {
    /// In row order.
    Plain,
    /// The last two dimensions exchanged.
    Transposed,
    /// The second half of rows twice as long.
    Narrowed,
}

/// An input: its shape as the operation sees it, how it lies, and the scale of its normal values.
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

    /// Values of the leaf that the input is a view of.
    pub(crate) fn count(&self) -> usize {
        let count: usize = self.shape.iter().product();
        if matches!(self.view, View::Narrowed) {
            2 * count
        } else {
            count
        }
    }

    /// The input as a view of its leaf.
    fn of<B: Backend, const D: usize>(&self, leaf: &Tensor<B, 1>) -> Tensor<B, D> {
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

/// An operation at given sizes.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Gelu,
    Norm,
    Attention {
        heads: usize,
        softcap: f64,
    },
    Residual,
    Softmax {
        cap: f64,
        temperature: f64,
    },
    CrossEntropy {
        cap: f64,
    },
    /// The second input becomes a target by a softmax of its own.
    SoftCrossEntropy {
        cap: f64,
    },
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

    /// Tokens spread over the vocabulary, its first and last among them.
    fn ids<B: Backend>(&self) -> Tensor<B, 1, Int> {
        let (rows, vocab) = (self.inputs[0].shape[0], self.inputs[0].shape[1]);
        let ids: Vec<i32> = (0..rows).map(|row| if row == 0 { vocab - 1 } else { (row - 1) * 7 % vocab } as i32).collect();
        Tensor::from_ints(ids.as_slice(), &Default::default())
    }

    fn rope<B: Backend>(&self, heads: usize) -> Rope<B> {
        let (length, triple) = (self.inputs[0].shape[1], self.inputs[0].shape[2]);
        Rope::new(length, triple / 3 / heads, 10_000.0, &Default::default())
    }

    /// The operation as the crate offers it, flat.
    pub(crate) fn offered<B: Backend>(&self, leaves: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let three = |i: usize| self.input::<B, 3>(leaves, i);
        let two = |i: usize| self.input::<B, 2>(leaves, i);
        match self.operation {
            Operation::Gelu => crate::gelu_tanh(two(0)).flatten(0, 1),
            Operation::Norm => {
                let weight = self.input::<B, 1>(leaves, 1);
                crate::norm_modulate(three(0), weight, three(2), three(3), EPSILON).flatten(0, 2)
            }
            Operation::Attention { heads, softcap } => {
                crate::attention(three(0), &self.rope(heads), heads, softcap).flatten(0, 2)
            }
            Operation::Residual => {
                crate::gated_residual(three(0), three(1), three(2)).flatten(0, 2)
            }
            Operation::Softmax { cap, temperature } => {
                crate::capped_softmax(two(0), cap, temperature).flatten(0, 1)
            }
            Operation::CrossEntropy { cap } => crate::capped_cross_entropy(two(0), self.ids(), cap),
            Operation::SoftCrossEntropy { cap } => {
                let target = reference::capped_softmax(two(1), cap, 1.0);
                crate::capped_soft_cross_entropy(two(0), target, cap)
            }
        }
    }

    /// The operation composed of burn's, flat.
    pub(crate) fn composed<B: Backend>(&self, leaves: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let three = |i: usize| self.input::<B, 3>(leaves, i);
        let two = |i: usize| self.input::<B, 2>(leaves, i);
        match self.operation {
            Operation::Gelu => reference::gelu_tanh(two(0)).flatten(0, 1),
            Operation::Norm => {
                let weight = self.input::<B, 1>(leaves, 1);
                reference::norm_modulate(three(0), weight, three(2), three(3), EPSILON)
                    .flatten(0, 2)
            }
            Operation::Attention { heads, softcap } => {
                reference::attention(three(0), &self.rope(heads), heads, softcap).flatten(0, 2)
            }
            Operation::Residual => {
                reference::gated_residual(three(0), three(1), three(2)).flatten(0, 2)
            }
            Operation::Softmax { cap, temperature } => {
                reference::capped_softmax(two(0), cap, temperature).flatten(0, 1)
            }
            Operation::CrossEntropy { cap } => {
                reference::capped_cross_entropy(two(0), self.ids(), cap)
            }
            Operation::SoftCrossEntropy { cap } => {
                let target = reference::capped_softmax(two(1), cap, 1.0);
                reference::capped_soft_cross_entropy(two(0), target.detach(), cap)
            }
        }
    }
}

const VIEWS: [View; 3] = [View::Plain, View::Transposed, View::Narrowed];

/// All cases: lengths and batches of one, odd sizes, widths beside multiples of a vector, small and large vocabularies, logits
/// up to and beyond their cap, inputs in row order and not.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for view in VIEWS {
        for shape in [[1, 1], [3, 37], [130, 257]] {
            // Up to ten: both tails of the function.
            cases.push(Case {
                operation: Operation::Gelu,
                inputs: vec![Input::new(&shape, view).scaled(3.0)],
            });
        }
        for [batch, length, width] in [[1, 1, 2], [2, 1, 37], [1, 5, 16], [3, 7, 64]] {
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
            cases.push(Case {
                operation: Operation::Norm,
                inputs,
            });
            let inputs = vec![
                Input::new(&x, view),
                Input::new(&x, view),
                Input::new(&row, view),
            ];
            cases.push(Case {
                operation: Operation::Residual,
                inputs,
            });
        }
        for (batch, length, heads, head_width, softcap, scale) in [
            (1, 1, 1, 2, 50.0, 1.0),
            (2, 7, 3, 6, 50.0, 1.0),
            (1, 33, 2, 16, 2.0, 2.0),
            (3, 5, 1, 34, 50.0, 4.0),
        ] {
            let input = Input::new(&[batch, length, 3 * heads * head_width], view).scaled(scale);
            cases.push(Case {
                operation: Operation::Attention { heads, softcap },
                inputs: vec![input],
            });
        }
        // A standard deviation of 20 puts one logit in eight beyond the cap.
        for ([rows, vocab], scale) in [
            ([1, 2], 1.0),
            ([7, 61], 20.0),
            ([300, 61], 3.0),
            ([5, 20_011], 3.0),
        ] {
            let input = || Input::new(&[rows, vocab], view).scaled(scale);
            let softmax = |temperature| Operation::Softmax {
                cap: 30.0,
                temperature,
            };
            cases.push(Case {
                operation: softmax(1.0),
                inputs: vec![input()],
            });
            cases.push(Case {
                operation: softmax(0.5),
                inputs: vec![input()],
            });
            cases.push(Case {
                operation: Operation::CrossEntropy { cap: 30.0 },
                inputs: vec![input()],
            });
            cases.push(Case {
                operation: Operation::SoftCrossEntropy { cap: 30.0 },
                inputs: vec![input(), input()],
            });
        }
    }
    cases
}
