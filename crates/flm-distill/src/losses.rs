//! Weights of a loss.

use burn::tensor::{Tensor, backend::Backend};

/// Weights with which `[rows, length]` losses are their part of a mean over `batch` rows.
pub(crate) fn mean_of<B: Backend>(
    [rows, length]: [usize; 2],
    batch: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    Tensor::full([rows, length], 1.0 / (batch * length) as f64, device)
}
