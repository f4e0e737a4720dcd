//! How a network is evaluated.

use flm_ops::Precision;

/// How a network is evaluated: nothing of what it is, so no model folder holds it.
///
/// The derivative along a direction ([`jvp`](crate::Dit::jvp)) is made in f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Of the products in blocks and head. The residual stream, norms, softmaxes, losses, parameters and their gradients are f32.
    pub precision: Precision,
    /// Numbers in a V-wide tensor (but at least one position's). While a mixture is scored, up to four such tensors are alive.
    pub head_numbers: usize,
}

impl Default for Execution {
    /// f32, and 64 MiB for a V-wide tensor.
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            head_numbers: 1 << 24,
        }
    }
}
