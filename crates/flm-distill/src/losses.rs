//! What an objective answers.

use crate::rows::RowKind;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// The loss of a batch.
#[derive(Clone, Debug)]
pub struct RowLosses<A: AutodiffBackend> {
    /// What is trained, the mean over all tokens, in the graph, `[1]`: cross-entropies in nats or squared distances, as the objective has them, under
    /// the learned weight where there is one.
    pub mean: Tensor<A, 1>,
    /// The loss of each token without learned weight, `[batch, length]`.
    pub per_token: Tensor<A::InnerBackend, 2>,
    /// What each row teaches, `batch` of them.
    pub kinds: Vec<RowKind>,
}

/// Weights with which `[rows, length]` losses are their part of a mean over `batch` rows.
pub(crate) fn mean_of<B: Backend>(
    [rows, length]: [usize; 2],
    batch: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    Tensor::full([rows, length], 1.0 / (batch * length) as f64, device)
}
