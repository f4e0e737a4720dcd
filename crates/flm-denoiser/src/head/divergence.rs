//! Divergence and entropy of distributions.

use burn::tensor::{Tensor, backend::Backend};

/// Smaller probabilities are clamped to this value, so that the logarithm stays finite.
const LEAST: f64 = 1e-37;

/// Σ p·(log p − log q) for each row, `[rows]`, and its derivative with respect to p,
/// `[rows, vocabulary]`.
pub(super) fn divergence<B: Backend>(
    p: Tensor<B, 2>,
    q: Tensor<B, 2>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let log = |x: Tensor<B, 2>| x.clamp_min(LEAST).log();
    let ratio = log(p.clone()) - log(q);
    let loss = (p * ratio.clone()).sum_dim(1).squeeze_dim(1);
    (loss, ratio.add_scalar(1.0))
}

/// −Σ p·log p for each row, `[rows]`.
pub(super) fn entropy<B: Backend>(p: Tensor<B, 2>) -> Tensor<B, 1> {
    let log = p.clone().clamp_min(LEAST).log();
    (p * log).sum_dim(1).neg().squeeze_dim(1)
}
