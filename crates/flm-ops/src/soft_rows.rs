//! Means of a tall matrix's rows, weighted by a softmax over all rows.

use crate::route::{AutodiffFlex, Route, route};
use crate::{check, cube, primitive, wrap};
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use burn_flex::Flex;

/// The input of [`soft_rows`].
#[derive(Clone, Debug)]
pub struct SoftRows<B: Backend> {
    /// `[rows, features]`.
    pub features: Tensor<B, 2>,
    /// Scores of the matrix's rows are features·weight, `[features, tall]`.
    pub weight: Tensor<B, 2>,
    /// Added to the scores, `[tall]`.
    pub bias: Tensor<B, 1>,
    /// `[tall, width]`.
    pub matrix: Tensor<B, 2>,
    /// Largest number of scores in memory at once; the scores of a row are never divided.
    pub numbers: usize,
}

/// softmax(features·weight + bias)·matrix, `[rows, width]`, computed in runs of rows.
///
/// The gradient flows to bias and matrix, and not to features and weight. On backends with kernels
/// the backward pass computes the shares again, so no tensor of all rows times the matrix's height
/// is in memory.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn soft_rows<B: Backend>(input: SoftRows<B>) -> Tensor<B, 2> {
    input.check();
    let input = SoftRows {
        features: input.features.detach(),
        weight: input.weight.detach(),
        ..input
    };
    match route::<B>(input.features.dtype()) {
        Route::AutodiffFlex => {
            wrap::<AutodiffFlex, B, 2>(node::<Flex>(input.primitives::<AutodiffFlex>()))
        }
        Route::Flex | Route::Composed => cube::soft_rows(input),
    }
}

impl<B: Backend> SoftRows<B> {
    #[track_caller]
    fn check(&self) {
        let ([rows, features], [tall, width]) = (self.features.dims(), self.matrix.dims());
        let (beside, with) = (
            ("features", &[rows, features][..]),
            ("matrix", &[tall, width][..]),
        );
        check::shape(
            "soft_rows",
            "weight",
            &self.weight.dims(),
            &[features, tall],
            beside,
        );
        check::shape("soft_rows", "bias", &self.bias.dims(), &[tall], with);
    }

    /// Returns the tensors as primitives of backend `A`, another name of `B`.
    pub(crate) fn primitives<A: Backend>(self) -> Primitives<A> {
        Primitives {
            features: primitive::<A, B, 2>(self.features),
            weight: primitive::<A, B, 2>(self.weight),
            bias: primitive::<A, B, 1>(self.bias),
            matrix: primitive::<A, B, 2>(self.matrix),
            numbers: self.numbers,
        }
    }

    /// Returns runs of rows, as (first, count).
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> + use<B> {
        let ([rows, _], [tall]) = (self.features.dims(), self.bias.dims());
        let step = (self.numbers / tall).max(1);
        (0..rows)
            .step_by(step)
            .map(move |first| (first, step.min(rows - first)))
    }

    /// Returns the shares of a run, `[count, tall]`.
    fn shares(&self, (first, count): (usize, usize)) -> Tensor<B, 2> {
        let features = self.features.clone().narrow(0, first, count);
        let scores = crate::matmul(features, self.weight.clone());
        softmax(scores + self.bias.clone().unsqueeze(), 1)
    }

    pub(crate) fn value(&self) -> Tensor<B, 2> {
        let run = |run| crate::matmul(self.shares(run), self.matrix.clone());
        Tensor::cat(self.runs().map(run).collect(), 0)
    }

    /// Returns the gradients to bias and matrix.
    fn gradients(&self, upstream: &Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 2>) {
        let mut to_bias = self.bias.zeros_like();
        let mut to_matrix = self.matrix.zeros_like();
        for (first, count) in self.runs() {
            let shares = self.shares((first, count));
            let upstream = upstream.clone().narrow(0, first, count);
            let to_shares = crate::matmul(upstream.clone(), self.matrix.clone().transpose());
            let mean = (shares.clone() * to_shares.clone()).sum_dim(1);
            let to_scores = shares.clone() * (to_shares - mean);
            to_bias = to_bias + to_scores.sum_dim(0).squeeze_dim(0);
            to_matrix = to_matrix + crate::matmul(shares.transpose(), upstream);
        }
        (to_bias, to_matrix)
    }
}

/// [`SoftRows`] in a backend's primitives.
pub(crate) struct Primitives<A: Backend> {
    features: FloatTensor<A>,
    weight: FloatTensor<A>,
    bias: FloatTensor<A>,
    matrix: FloatTensor<A>,
    numbers: usize,
}

#[derive(Debug)]
struct Node;

impl<C: Backend> Backward<C, 2> for Node {
    type State = SoftRows<C>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = tensor::<C, 2>(grads.consume::<C>(&ops.node));
        let (to_bias, to_matrix) = ops.state.gradients(&upstream);
        let [bias, matrix] = ops.parents;
        if let Some(bias) = bias {
            grads.register::<C>(bias.id, to_bias.into_primitive().tensor());
        }
        if let Some(matrix) = matrix {
            grads.register::<C>(matrix.id, to_matrix.into_primitive().tensor());
        }
    }
}

fn tensor<C: Backend, const D: usize>(x: FloatTensor<C>) -> Tensor<C, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Returns the operation as one node of a graph over `C`.
pub(crate) fn node<C: Backend>(input: Primitives<Autodiff<C>>) -> FloatTensor<Autodiff<C>> {
    let nodes = [input.bias.node, input.matrix.node];
    let saved = SoftRows::<C> {
        features: tensor(input.features.primitive),
        weight: tensor(input.weight.primitive),
        bias: tensor(input.bias.primitive),
        matrix: tensor(input.matrix.primitive),
        numbers: input.numbers,
    };
    let out = saved.value().into_primitive().tensor();
    match Node
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
    use burn::tensor::TensorData;
    use burn::tensor::backend::AutodiffBackend;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    type Composed = Autodiff<Flex, BalancedCheckpointing>;

    fn drawn<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| rng.random_range(-2.0..2.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    /// Returns the value, and the gradients of a weighted sum to bias and matrix.
    fn found<A: AutodiffBackend<InnerBackend = Flex>>(
        numbers: usize,
    ) -> (Tensor<Flex, 2>, Tensor<Flex, 1>, Tensor<Flex, 2>) {
        let bias = Tensor::<A, 1>::from_inner(drawn([11], 3)).require_grad();
        let matrix = Tensor::<A, 2>::from_inner(drawn([11, 4], 4)).require_grad();
        let out = soft_rows(SoftRows {
            features: Tensor::from_inner(drawn([7, 3], 1)),
            weight: Tensor::from_inner(drawn([3, 11], 2)),
            bias: bias.clone(),
            matrix: matrix.clone(),
            numbers,
        });
        let weights = Tensor::from_inner(drawn([7, 4], 5));
        let grads = (out.clone() * weights).sum().backward();
        let (to_bias, to_matrix) = (bias.grad(&grads), matrix.grad(&grads));
        (out.inner(), to_bias.unwrap(), to_matrix.unwrap())
    }

    fn close<const D: usize>(a: Tensor<Flex, D>, b: Tensor<Flex, D>) {
        let apart: f32 = (a - b).abs().max().into_scalar();
        assert!(apart < 1e-5, "{apart}");
    }

    #[test]
    fn runs_of_any_length_give_the_value_and_the_gradients_of_the_composition() {
        let expected = found::<Composed>(usize::MAX);
        for numbers in [1, 22, 35, 1000] {
            let found = found::<AutodiffFlex>(numbers);
            close(found.0, expected.0.clone());
            close(found.1, expected.1.clone());
            close(found.2, expected.2.clone());
        }
    }

    #[test]
    #[should_panic(expected = "soft_rows")]
    fn shapes_must_fit() {
        let _ = soft_rows::<Flex>(SoftRows {
            features: drawn([2, 3], 1),
            weight: drawn([4, 5], 2),
            bias: drawn([5], 3),
            matrix: drawn([5, 2], 4),
            numbers: 10,
        });
    }
}
