//! Losses under a weight that is learned together with the flow map.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::{Dit, Score};

/// The learned weight w of each row's loss, if the network has one ([`flm_denoiser::LossWeight`]).
/// The training loss is e^(−w)·ℓ + w.
pub(crate) struct Weighting<A: AutodiffBackend>(Option<Tensor<A, 1>>);

impl<A: AutodiffBackend> Weighting<A> {
    /// Returns the weights at the times τ_s `[rows]`.
    pub(crate) fn of(student: &Dit<A>, tau_s: Tensor<A, 1>) -> Self {
        Self(student.loss_weight(tau_s))
    }

    /// Returns the weights of `count` rows from `first` on.
    pub(crate) fn narrow(&self, first: usize, count: usize) -> Self {
        let part = |w: &Tensor<A, 1>| w.clone().narrow(0, first, count);
        Self(self.0.as_ref().map(part))
    }

    /// Scores losses `[rows, length]` with `weights` under the learned ones: the sum of
    /// weight·(e^(−w)·ℓ + w). `score` computes the sum of weight·ℓ.
    ///
    /// The network's gradient is scaled by e^(−w), and the gradient of w is weight·(1 − e^(−w)·ℓ).
    /// The loss of each token stays ℓ.
    pub(crate) fn score(
        &self,
        weights: Tensor<A::InnerBackend, 2>,
        score: impl FnOnce(Tensor<A::InnerBackend, 2>) -> Score<A>,
    ) -> Score<A> {
        let Some(w) = &self.0 else {
            return score(weights);
        };
        let damping = w.clone().inner().neg().exp();
        let scored = score(weights.clone() * damping.clone().unsqueeze_dim::<2>(1));
        let rows =
            |x: Tensor<A::InnerBackend, 2>| Tensor::<A, 1>::from_inner(x.sum_dim(1).squeeze_dim(1));
        let losses = rows(weights.clone() * scored.per_token.clone());
        // Zero, but with a gradient to w: the score already contains e^(−w)·ℓ.
        let damped = (w.clone().neg().exp() - Tensor::from_inner(damping)) * losses;
        let own = w.clone() * rows(weights);
        Score {
            loss: scored.loss + (damped + own).sum(),
            per_token: scored.per_token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn_flex::Flex;

    type Train = Autodiff<Flex>;

    /// Scores losses that are the squares of `x` `[2, 3]`.
    fn squares(x: &Tensor<Train, 2>, weights: Tensor<Flex, 2>) -> Score<Train> {
        let per_token = x.clone() * x.clone();
        Score {
            loss: (per_token.clone() * Tensor::from_inner(weights)).sum(),
            per_token: per_token.inner(),
        }
    }

    fn values<const D: usize>(x: Tensor<Flex, D>) -> Vec<f32> {
        x.into_data().to_vec().unwrap()
    }

    #[test]
    fn value_and_gradients_are_those_of_the_formula() {
        let device = Default::default();
        let x = [[0.5, -1.0, 2.0], [1.5, 0.0, -0.5]];
        let x = Tensor::<Train, 2>::from_floats(x, &device).require_grad();
        let weights = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]];
        let weights = || Tensor::<Flex, 2>::from_floats(weights, &device);
        let gradients = |w: &Tensor<Train, 1>, loss: Tensor<Train, 1>| {
            let value = values(loss.clone().inner());
            let grads = loss.backward();
            [
                value,
                values(x.grad(&grads).unwrap()),
                values(w.grad(&grads).unwrap()),
            ]
        };
        for w in [[0.0, 0.0], [0.7, -1.2]] {
            let w = || Tensor::<Train, 1>::from_floats(w, &device).require_grad();
            let (one, other) = (w(), w());
            let score =
                Weighting(Some(one.clone())).score(weights(), |weights| squares(&x, weights));
            let per_token = x.clone() * x.clone();
            assert_eq!(values(score.per_token), values(per_token.clone().inner()));
            let column = other.clone().unsqueeze_dim::<2>(1);
            let plain = per_token * column.clone().neg().exp() + column;
            let plain = (plain * Tensor::from_inner(weights())).sum();
            let (found, expected) = (gradients(&one, score.loss), gradients(&other, plain));
            for (found, expected) in found.iter().zip(&expected) {
                for (a, b) in found.iter().zip(expected) {
                    // Sums of six numbers of order one in f32.
                    assert!((a - b).abs() < 1e-5, "{found:?} {expected:?}");
                }
            }
        }
        // At w = 0 the loss and the network's gradient are the plain ones. The gradient of w is the
        // weight times 1 − ℓ.
        let plain = squares(&x, weights());
        let w = Tensor::<Train, 1>::zeros([2], &device).require_grad();
        let score = Weighting(Some(w.clone())).score(weights(), |weights| squares(&x, weights));
        assert_eq!(
            values(score.loss.clone().inner()),
            values(plain.loss.clone().inner())
        );
        let expected: Tensor<Flex, 2> = (plain.per_token.neg() + 1.0) * weights();
        let (score, plain) = (score.loss.backward(), plain.loss.backward());
        assert_eq!(
            values(x.grad(&score).unwrap()),
            values(x.grad(&plain).unwrap())
        );
        let found = values(w.grad(&score).unwrap());
        for (a, b) in found.iter().zip(values(expected.sum_dim(1))) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
