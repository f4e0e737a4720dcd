//! What an objective answers.

use crate::rows::RowKind;
use burn::tensor::{Tensor, backend::Backend};

/// The loss of every token of a batch.
#[derive(Clone, Debug)]
pub struct RowLosses<B: Backend> {
    /// Nats, `[batch, length]`.
    pub per_token: Tensor<B, 2>,
    /// What each row teaches, `batch` of them.
    pub kinds: Vec<RowKind>,
}
