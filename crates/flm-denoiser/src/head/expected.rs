//! Scores of mean predictions, with the gradient to the network's inputs.

use super::{Head, Prediction, flat};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// A score for each sequence, and their sum in the graph.
#[derive(Clone, Debug)]
pub struct Expected<A: AutodiffBackend> {
    /// Σ over the sequences, `[1]`. Its gradient goes to state and times; the head's parameters
    /// get none.
    pub total: Tensor<A, 1>,
    /// The scores, without gradient, `[batch]`.
    pub of_each: Tensor<A::InnerBackend, 1>,
}

impl<A: AutodiffBackend> Prediction<A> {
    /// Scores the mean vectors of the predictions.
    ///
    /// `vectors` `[vocabulary, n]` has a vector for each token. With p the softmax of
    /// logits/`temperature`, `score` gets the means p·`vectors`, `[batch, length, n]`. It returns a
    /// number per sequence, `[batch]`, by differentiable operations. Means and gradients are
    /// computed for a chunk of positions at a time, outside the graph, so no V-wide tensor is kept
    /// for the backward pass.
    pub fn expected(
        &self,
        vectors: &Tensor<A::InnerBackend, 2>,
        temperature: f64,
        score: impl FnOnce(Tensor<A, 3>) -> Tensor<A, 1>,
    ) -> Expected<A> {
        let [batch, length, width] = self.features.dims();
        let (rows, head) = (batch * length, self.head.inner());
        let features = self.features.clone().inner().reshape([rows, width]);
        let [_, n] = vectors.dims();
        let runs = head.runs(rows).map(|(first, count)| {
            let p = head.softmax(features.clone().narrow(0, first, count), temperature);
            flm_ops::product(p, vectors.clone())
        });
        let means = Tensor::cat(runs.collect(), 0).reshape([batch, length, n]);
        // A separate graph, which ends at the means.
        let means = Tensor::<A, 3>::from_inner(means).require_grad();
        let scores = score(means.clone());
        let gradients = scores.clone().sum().backward();
        let upstream = (means.grad(&gradients))
            .unwrap_or_else(|| means.inner().zeros_like())
            .reshape([rows, n]);
        let runs = head.runs(rows).map(|(first, count)| {
            let [features, upstream] = [&features, &upstream]
                .map(|x: &Tensor<A::InnerBackend, 2>| x.clone().narrow(0, first, count));
            let slope = flm_ops::product(upstream, vectors.clone().transpose());
            head.to_features(features, slope, temperature)
        });
        let to_features = flat(Tensor::cat(runs.collect(), 0));
        let of_each = scores.inner();
        let inputs = [(flat(self.features.clone()), to_features)];
        Expected {
            total: flm_ops::attach_gradients(of_each.clone().sum(), inputs),
            of_each,
        }
    }
}

impl<B: Backend> Head<B> {
    /// Returns the gradient to features `[rows, width]`, given the gradient `slope` `[rows,
    /// vocabulary]` to the probabilities.
    fn to_features(
        &self,
        features: Tensor<B, 2>,
        slope: Tensor<B, 2>,
        temperature: f64,
    ) -> Tensor<B, 2> {
        let product = self.product(features);
        let bias = self.bias.clone();
        let t = (product.clone() + bias.clone().unsqueeze())
            .div_scalar(self.softcap)
            .tanh();
        let p = flm_ops::capped_softmax(product, bias, self.softcap, temperature);
        let mean = (p.clone() * slope.clone()).sum_dim(1);
        let to_logits = p * (slope - mean) / temperature;
        let to_product = to_logits * (t.clone() * t).neg().add_scalar(1.0);
        flm_ops::product(
            self.execution.precision.narrow(to_product),
            self.weight.clone().transpose(),
        )
    }
}

#[cfg(test)]
mod tests;
