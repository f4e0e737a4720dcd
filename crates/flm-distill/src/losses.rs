//! Weights of losses.

use burn::tensor::{Tensor, backend::Backend};

/// Returns weights that make `[rows, length]` losses their part of a mean over `batch` rows.
pub(crate) fn mean_of<B: Backend>(
    [rows, length]: [usize; 2],
    batch: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    Tensor::full([rows, length], 1.0 / (batch * length) as f64, device)
}
