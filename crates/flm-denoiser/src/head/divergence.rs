//! How far a distribution is from another.

use burn::tensor::{Tensor, backend::Backend};

/// Below this a probability is none: its logarithm stays a number.
const LEAST: f64 = 1e-37;

/// Σ p·(log p − log q) of each row, `[rows]`, and its slope along p, `[rows, vocabulary]`.
pub(super) fn divergence<B: Backend>(
    p: Tensor<B, 2>,
    q: Tensor<B, 2>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let log = |x: Tensor<B, 2>| x.clamp_min(LEAST).log();
    let ratio = log(p.clone()) - log(q);
    let loss = (p * ratio.clone()).sum_dim(1).squeeze_dim(1);
    (loss, ratio.add_scalar(1.0))
}

/// −Σ p·log p of each row, `[rows]`.
pub(super) fn entropy<B: Backend>(p: Tensor<B, 2>) -> Tensor<B, 1> {
    let log = p.clone().clamp_min(LEAST).log();
    (p * log).sum_dim(1).neg().squeeze_dim(1)
}
