//! Numbers of losses as tensors.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// Weights of a mean over `[rows, length]`, one for each row.
pub(crate) fn mean_weights<B: Backend>(row: Tensor<B, 1>, length: usize) -> Tensor<B, 2> {
    let [rows] = row.dims();
    row.div_scalar((rows * length) as f64)
        .unsqueeze_dim::<2>(1)
        .repeat_dim(1, length)
}

/// Numbers of each token as a tensor `[rows, length]`.
pub(crate) fn per_token<B: Backend>(
    numbers: Vec<f32>,
    length: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    let rows = numbers.len() / length;
    Tensor::from_data(TensorData::new(numbers, [rows, length]), device)
}
