//! What an objective answers.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

/// What a step costs, in evaluations of the network for each row: forward, and back, which costs as much as two forward.
pub(crate) const TRAINED: f64 = 3.0;

/// The loss of a batch.
#[derive(Clone, Debug)]
pub struct TokenLosses<A: AutodiffBackend> {
    /// What is trained, the mean over all tokens, in the graph, in nats, `[1]`.
    pub mean: Tensor<A, 1>,
    /// The loss of each token, `[rows, length]`.
    pub per_token: Tensor<A::InnerBackend, 2>,
    /// Under which name each row is reported.
    pub names: Vec<&'static str>,
    /// What else is worth knowing about the batch.
    pub diagnostics: Vec<Measured>,
}

/// A mean that is reported beside a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Its name.
    pub name: &'static str,
    /// The sum of what it is the mean of.
    pub sum: f64,
    /// How many there are.
    pub count: f64,
}

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
