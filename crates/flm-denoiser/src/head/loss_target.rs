//! Loss targets for a chunk of positions.

use super::divergence::divergence;
use super::uniform::UniformNoise;
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::{CappedLoss, Target};

/// A loss target for a chunk of positions.
pub(super) enum LossTarget<B: Backend> {
    /// A target for the probabilities.
    Probabilities(Target<B>),
    /// A target for the raw outputs, before softcap and softmax: Σ (scale·output − point)², `point`
    /// `[count, vocabulary]`, `scale` `[count, 1]`.
    Outputs {
        point: Tensor<B, 2>,
        scale: Tensor<B, 2>,
    },
    /// The KL divergence of the probabilities: Σ p·(log p − log q), q `[count, vocabulary]`.
    Divergence(Tensor<B, 2>),
    /// The bound of a uniform-state diffusion, a function of the probabilities.
    UniformBound(UniformNoise<B>),
    /// The expectation Σ p·value of values `[count, vocabulary]` under the probabilities at
    /// a temperature.
    Expectation {
        values: Tensor<B, 2>,
        temperature: f64,
    },
}

impl<B: Backend> LossTarget<B> {
    /// The loss of each position, `[count]`, for logits product + bias.
    pub(super) fn loss(
        self,
        product: Tensor<B, 2>,
        bias: Tensor<B, 1>,
        softcap: f64,
    ) -> Tensor<B, 1> {
        match self {
            Self::Probabilities(target) => flm_ops::capped_loss(product, bias, target, softcap),
            Self::Outputs { point, scale } => squares((product + bias.unsqueeze()) * scale - point),
            Self::Divergence(q) => divergence(Capped::of(product, bias, softcap).p, q).0,
            Self::UniformBound(noise) => noise.loss(Capped::of(product, bias, softcap).p).0,
            Self::Expectation {
                values,
                temperature,
            } => expectation(Capped::at(product, bias, softcap, temperature).p, values).0,
        }
    }

    /// The loss with the gradient of Σ weight·loss.
    pub(super) fn gradient(
        self,
        product: Tensor<B, 2>,
        bias: Tensor<B, 1>,
        weights: Tensor<B, 1>,
        softcap: f64,
    ) -> CappedLoss<B> {
        match self {
            Self::Probabilities(target) => {
                flm_ops::capped_loss_gradient(product, bias, target, weights, softcap)
            }
            Self::Outputs { point, scale } => {
                let error = (product + bias.unsqueeze()) * scale.clone() - point;
                let slope = scale.mul_scalar(2.0) * weights.unsqueeze_dim::<2>(1);
                let product = error.clone() * slope;
                CappedLoss {
                    loss: squares(error),
                    bias: product.clone().sum_dim(0).squeeze_dim(0),
                    product,
                }
            }
            Self::Divergence(q) => {
                Capped::of(product, bias, softcap).gradient(weights, |p| divergence(p, q))
            }
            Self::UniformBound(noise) => {
                Capped::of(product, bias, softcap).gradient(weights, |p| noise.loss(p))
            }
            Self::Expectation {
                values,
                temperature,
            } => Capped::at(product, bias, softcap, temperature)
                .gradient(weights / temperature, |p| expectation(p, values)),
        }
    }
}

/// Soft-capped logits divided by the softcap, tanh((product + bias)/softcap), and their softmax,
/// each `[count, vocabulary]`.
struct Capped<B: Backend> {
    t: Tensor<B, 2>,
    p: Tensor<B, 2>,
}

impl<B: Backend> Capped<B> {
    fn of(product: Tensor<B, 2>, bias: Tensor<B, 1>, softcap: f64) -> Self {
        Self::at(product, bias, softcap, 1.0)
    }

    /// The softmax at a temperature. Callers divide the gradient to the logits by `temperature`.
    fn at(product: Tensor<B, 2>, bias: Tensor<B, 1>, softcap: f64, temperature: f64) -> Self {
        let t = (product + bias.unsqueeze()).div_scalar(softcap).tanh();
        let p = softmax(t.clone().mul_scalar(softcap / temperature), 1);
        Self { t, p }
    }

    /// Returns the gradient of Σ weight·loss for a `loss` `[count]` that is a function of p, which
    /// also returns its derivative with respect to p, `[count, vocabulary]`.
    fn gradient(
        self,
        weights: Tensor<B, 1>,
        loss: impl FnOnce(Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 2>),
    ) -> CappedLoss<B> {
        let Self { t, p } = self;
        let (loss, slope) = loss(p.clone());
        let mean = (p.clone() * slope.clone()).sum_dim(1);
        let to_logits = p * (slope - mean) * weights.unsqueeze_dim::<2>(1);
        let product = to_logits * (t.clone() * t).neg().add_scalar(1.0);
        CappedLoss {
            loss,
            bias: product.clone().sum_dim(0).squeeze_dim(0),
            product,
        }
    }
}

/// Σ p·value for each row, `[rows]`, and its derivative with respect to p, `[rows, vocabulary]`.
fn expectation<B: Backend>(p: Tensor<B, 2>, values: Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let mean = (p * values.clone()).sum_dim(1).squeeze_dim(1);
    (mean, values)
}

/// Σ x² for each row.
fn squares<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 1> {
    (x.clone() * x).sum_dim(1).squeeze_dim(1)
}
