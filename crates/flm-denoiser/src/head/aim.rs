//! What a run of positions is scored against.

use burn::tensor::{Tensor, backend::Backend};
use flm_ops::{CappedLoss, Target};

/// Where the answers of a run of positions should be.
pub(super) enum Aim<B: Backend> {
    /// Of their probabilities.
    Probabilities(Target<B>),
    /// Of what the head says before softcap and softmax: Σ (scale·output − point)², `point` `[count, vocabulary]`, `scale` `[count, 1]`.
    Outputs {
        point: Tensor<B, 2>,
        scale: Tensor<B, 2>,
    },
}

impl<B: Backend> Aim<B> {
    /// The loss of each position, `[count]`, of logits product + bias.
    pub(super) fn loss(
        self,
        product: Tensor<B, 2>,
        bias: Tensor<B, 1>,
        softcap: f64,
    ) -> Tensor<B, 1> {
        match self {
            Self::Probabilities(target) => flm_ops::capped_loss(product, bias, target, softcap),
            Self::Outputs { point, scale } => squares((product + bias.unsqueeze()) * scale - point),
        }
    }

    /// The same with the gradient of Σ weight·loss.
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
        }
    }
}

/// Σ x² of each row.
fn squares<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 1> {
    (x.clone() * x).sum_dim(1).squeeze_dim(1)
}
