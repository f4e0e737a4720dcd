//! Tensors for losses.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// Returns weights for a mean over `[rows, length]`, from one weight per row.
pub(crate) fn mean_weights<B: Backend>(row: Tensor<B, 1>, length: usize) -> Tensor<B, 2> {
    let [rows] = row.dims();
    row.div_scalar((rows * length) as f64)
        .unsqueeze_dim::<2>(1)
        .repeat_dim(1, length)
}

/// Creates a tensor `[rows, length]` from one number per token.
pub(crate) fn per_token<B: Backend>(
    numbers: Vec<f32>,
    length: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    let rows = numbers.len() / length;
    Tensor::from_data(TensorData::new(numbers, [rows, length]), device)
}
