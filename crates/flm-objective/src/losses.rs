//! The result of an objective.

use burn::tensor::{Tensor, backend::AutodiffBackend};

/// The loss of one part of a step.
#[derive(Clone, Debug)]
pub struct Losses<B: AutodiffBackend> {
    /// The mean over all tokens, in the autodiff graph, `[1]`: the value that is differentiated. It
    /// includes the auxiliary network's loss, if there is one.
    pub mean: Tensor<B, 1>,
    /// The loss of each token, `[rows, length]`.
    pub per_token: Tensor<B::InnerBackend, 2>,
    /// The name under which each row is reported.
    pub names: Vec<&'static str>,
    /// Means that are reported alongside the loss.
    pub diagnostics: Vec<Diagnostic>,
    /// τ of each row, if a clock may be fitted to the losses.
    pub taus: Vec<f64>,
}

impl<B: AutodiffBackend> Losses<B> {
    /// Creates losses without diagnostics or times.
    pub fn new(
        mean: Tensor<B, 1>,
        per_token: Tensor<B::InnerBackend, 2>,
        names: Vec<&'static str>,
    ) -> Self {
        Self {
            mean,
            per_token,
            names,
            diagnostics: Vec::new(),
            taus: Vec::new(),
        }
    }
}

/// A mean that is reported alongside a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Diagnostic {
    /// Its name.
    pub name: &'static str,
    /// The sum of the values.
    pub sum: f64,
    /// The number of values.
    pub count: f64,
}
