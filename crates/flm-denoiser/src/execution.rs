//! Execution settings.

use flm_ops::Precision;

/// How a network is evaluated. It is no property of the model, so model folders do not store it.
///
/// The derivative along a direction ([`jvp`](crate::Dit::jvp)) is always computed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Precision of the matrix products in blocks and head. The residual stream, norms, softmaxes,
    /// losses, parameters and their gradients are f32.
    pub precision: Precision,
    /// Maximum number of elements in a V-wide tensor (but at least one position's). Scoring a
    /// mixture holds up to four such tensors at once.
    pub head_numbers: usize,
}

impl Default for Execution {
    /// f32, and 64 MiB per V-wide tensor.
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            head_numbers: 1 << 24,
        }
    }
}
