//! Predictions with a derivative along a direction.

use super::{Head, Prediction, Score, TokenDistribution, flat};
use crate::embed::VocabEmbed;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_ops::dual::{self, Dual};

/// The network's output for a batch with its derivative along a direction (a
/// Jacobian-vector product).
///
/// It stores features. The head computes probabilities and their tangents from them for a chunk of
/// positions at a time.
#[derive(Clone, Debug)]
pub struct Jvp<B: Backend> {
    /// `[batch, length, width]`.
    pub(super) features: Dual<B, 3>,
    pub(super) head: Head<B>,
}

impl<B: Backend> Jvp<B> {
    /// Returns the denoiser's distribution, without its tangent.
    pub fn distribution(&self) -> TokenDistribution<B> {
        let (features, head) = (self.features.value.clone(), self.head.clone());
        Prediction { features, head }.distribution()
    }

    /// Returns the mean D·E of the clean projected state and its tangent, `[batch, length, width]`.
    pub fn mean(&self, embed: &VocabEmbed<B>) -> Dual<B, 3> {
        let embedding = embed.embedding.val();
        let [batch, length, _] = self.features.value.dims();
        let width = embedding.dims()[1];
        let (values, tangents) = self
            .head
            .runs(batch * length)
            .map(|(first, count)| {
                let run = self.rows(first, count);
                let mean = run.map(|run| flm_ops::product(run, embedding.clone()));
                (mean.value, mean.tangent)
            })
            .unzip();
        let whole = |runs| Tensor::cat(runs, 0).reshape([batch, length, width]);
        Dual {
            value: whole(values),
            tangent: whole(tangents),
        }
    }

    /// Returns the probabilities and their tangents, V-wide, `[batch, length, vocabulary]`, for
    /// tests rather than hot paths.
    pub fn dense(&self) -> Dual<B, 3> {
        let [batch, length, _] = self.features.value.dims();
        let vocab = self.head.vocab_size();
        self.rows(0, batch * length)
            .map(|rows| rows.reshape([batch, length, vocab]))
    }

    /// Probabilities and tangents of `count` positions from `first` on, indexed through the batch,
    /// `[count, vocabulary]`.
    pub(super) fn rows(&self, first: usize, count: usize) -> Dual<B, 2> {
        let product = self.features.clone().map(|features| {
            let [batch, length, width] = features.dims();
            let rows = features.reshape([batch * length, width]);
            self.head.product(rows.narrow(0, first, count))
        });
        dual::capped_softmax(product, self.head.bias.clone(), self.head.softcap, 1.0)
    }
}

impl<A: AutodiffBackend> Jvp<A> {
    /// Returns the squared norm Σ ṗ² of the probabilities' tangent, weighted as
    /// in [`Prediction::cross_entropy`].
    ///
    /// Its gradient, to values and tangents, goes through the derivative. A backward pass costs as
    /// much as for two evaluations.
    pub fn squared_tangent(&self, weights: Tensor<A::InnerBackend, 2>) -> Score<A> {
        let [batch, length, width] = self.features.value.dims();
        let rows = batch * length;
        let [values, tangents] = [&self.features.value, &self.features.tangent]
            .map(|x| x.clone().inner().reshape([rows, width]));
        let flat_weights = weights.clone().reshape([rows]);
        let tracked = [&self.features.value, &self.features.tangent]
            .into_iter()
            .any(flm_ops::may_take_gradient)
            || flm_ops::may_take_gradient(&self.head.weight);
        let mut squares = Vec::new();
        let mut gradients: Vec<[Tensor<A::InnerBackend, 2>; 2]> = Vec::new();
        let mut to_head = None;
        for (first, count) in self.head.runs(rows) {
            // A separate graph, so that its V-wide tensors are freed with the chunk.
            let leaf = |x: &Tensor<A::InnerBackend, 2>| {
                let run = Tensor::<A, 2>::from_inner(x.clone().narrow(0, first, count));
                if tracked { run.require_grad() } else { run }
            };
            let features = [leaf(&values), leaf(&tangents)];
            let head = self.head.leaf(tracked);
            let [value, tangent] = features.clone().map(|x| head.product(x));
            let product = Dual { value, tangent };
            let moving = dual::capped_softmax(product, head.bias.clone(), head.softcap, 1.0);
            let square = moving.tangent.powi_scalar(2).sum_dim(1).reshape([count]);
            squares.push(square.clone().inner());
            if !tracked {
                continue;
            }
            let weights = Tensor::from_inner(flat_weights.clone().narrow(0, first, count));
            let grads = (square * weights).sum().backward();
            let of = |x: &Tensor<A, 2>| x.grad(&grads).unwrap_or_else(|| x.clone().inner() * 0.0);
            gradients.push([of(&features[0]), of(&features[1])]);
            let bias = head.bias.grad(&grads);
            let bias = bias.unwrap_or_else(|| head.bias.clone().inner() * 0.0);
            let run = (of(&head.weight), bias);
            to_head = Some(match to_head {
                Some((weight, bias)) => (weight + run.0, bias + run.1),
                None => run,
            });
        }
        let per_token = Tensor::cat(squares, 0).reshape([batch, length]);
        let value = (per_token.clone() * weights).sum();
        let loss = match to_head {
            Some((weight, bias)) => {
                let (to_values, to_tangents) = gradients
                    .into_iter()
                    .map(|[value, tangent]| (value, tangent))
                    .unzip();
                flm_ops::attach_gradients(
                    value,
                    [
                        (
                            flat(self.features.value.clone()),
                            flat(Tensor::cat(to_values, 0)),
                        ),
                        (
                            flat(self.features.tangent.clone()),
                            flat(Tensor::cat(to_tangents, 0)),
                        ),
                        (flat(self.head.weight.clone()), flat(weight)),
                        (self.head.bias.clone(), bias),
                    ],
                )
            }
            None => Tensor::from_inner(value),
        };
        Score { loss, per_token }
    }
}

#[cfg(test)]
mod tests;
