//! Embeddings of tokens, states and times.

use crate::config::TIME_FEATURES;
use crate::init;
use crate::mode::Mode;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, backend::Backend};
use nalgebra::{DMatrix, SymmetricEigen};
use rand::Rng;

/// Longest period of the sinusoidal time features.
const MAX_PERIOD: f64 = 10_000.0;
/// Eigenvalues of EᵀE below this fraction of the largest are rounding errors of single precision.
const RANK: f64 = 1e-12;

/// The token embedding matrix E, `[vocabulary, width]`, without a bias.
#[derive(Module, Debug)]
pub struct VocabEmbed<B: Backend> {
    /// E, one row per token.
    pub embedding: Param<Tensor<B, 2>>,
}

impl<B: Backend> VocabEmbed<B> {
    pub(crate) fn new(
        vocab_size: usize,
        width: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        // The reference initializes E as a linear map of fan-in `width`.
        let bound = 1.0 / (width as f64).sqrt();
        Self {
            embedding: init::uniform([vocab_size, width], bound, rng, device),
        }
    }

    /// Concatenates two embeddings, and so their states: x·\[E, F\] = \[xE, xF\].
    ///
    /// # Panics
    ///
    /// Panics if the vocabularies differ in size.
    pub fn beside(&self, other: &Self) -> Self {
        let both = vec![self.embedding.val(), other.embedding.val()];
        Self {
            embedding: Param::from_tensor(Tensor::cat(both, 1)),
        }
    }

    /// Returns the rows of E for token ids `[batch, length]`: the projected state of one-hot data,
    /// `[batch, length, width]`.
    pub fn tokens(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        flm_ops::rows(self.embedding.val(), ids)
    }

    /// Returns x·E for a dense state or distribution `[batch, length, vocabulary]`: the projected
    /// state `[batch, length, width]`.
    pub fn project(&self, dense: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, length, vocab] = dense.dims();
        let weight = self.embedding.val();
        let width = weight.dims()[1];
        flm_ops::matmul(dense.reshape([batch * length, vocab]), weight)
            .reshape([batch, length, width])
    }

    /// Returns the projection P onto the columns of E, `[vocabulary, vocabulary]`, in row order.
    ///
    /// For a state x of width V, xE and x·P hold the same information. The trace of P is the rank
    /// of E, which is at most the width.
    ///
    /// Computed on the host in double precision, from the eigenvectors of EᵀE. Returns `None` if E
    /// is not finite.
    pub fn projection(&self) -> Option<Vec<f64>> {
        let [vocab, width] = self.embedding.dims();
        let values: Vec<f64> = self.embedding.val().into_data().iter::<f64>().collect();
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let matrix = DMatrix::from_row_slice(vocab, width, &values);
        let squares = SymmetricEigen::new(matrix.transpose() * &matrix);
        let least = RANK * squares.eigenvalues.max();
        let mut projection = DMatrix::zeros(vocab, vocab);
        let seen = squares
            .eigenvalues
            .iter()
            .zip(squares.eigenvectors.column_iter());
        for (value, vector) in seen.filter(|(value, _)| **value > least) {
            let direction = &matrix * vector / value.sqrt();
            projection.ger(1.0, &direction, &direction, 1.0);
        }
        // The matrix is symmetric, so column order equals row order.
        Some(projection.as_slice().to_vec())
    }
}

/// A time embedding: sinusoids of τ through a two-layer MLP. τ is not scaled.
///
/// The middle entry is a placeholder for the activation, so that the parameters have the
/// reference's names (`mlp.0`, `mlp.2`).
#[derive(Module, Debug)]
pub struct TimeEmbed<B: Backend> {
    mlp: (Linear<B>, burn::nn::Gelu, Linear<B>),
}

impl<B: Backend> TimeEmbed<B> {
    pub(crate) fn new(cond_dim: usize, rng: &mut impl Rng, device: &B::Device) -> Self {
        let first = init::linear(TIME_FEATURES, cond_dim, true, rng, device);
        let last = init::linear(cond_dim, cond_dim, true, rng, device);
        Self {
            mlp: (first, burn::nn::Gelu::new(), last),
        }
    }

    /// [`new`](Self::new) with zero output at the start, so that a flow map starts as the flow it
    /// is distilled from.
    pub(crate) fn silent(cond_dim: usize, rng: &mut impl Rng, device: &B::Device) -> Self {
        let first = init::linear(TIME_FEATURES, cond_dim, true, rng, device);
        Self {
            mlp: (
                first,
                burn::nn::Gelu::new(),
                init::zero_linear(cond_dim, cond_dim, device),
            ),
        }
    }

    /// Returns the embedding `[batch, cond_dim]` of times `tau` `[batch]`.
    pub(crate) fn evaluate<M: Mode<B>>(&self, tau: M::Of<1>) -> M::Of<2> {
        let half = TIME_FEATURES / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| (-MAX_PERIOD.ln() * i as f64 / half as f64).exp() as f32)
            .collect();
        let angles = M::map(tau, |tau: Tensor<B, 1>| {
            let frequencies = Tensor::<B, 1>::from_floats(frequencies.as_slice(), &tau.device());
            tau.unsqueeze_dim::<2>(1) * frequencies.unsqueeze_dim::<2>(0)
        });
        let hidden = M::silu(M::affine(&self.mlp.0, M::waves(angles)));
        M::affine(&self.mlp.2, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use burn_flex::Flex;

    fn embed(rows: &[[f32; 3]]) -> VocabEmbed<Flex> {
        let values: Vec<f32> = rows.concat();
        let matrix = Tensor::<Flex, 1>::from_floats(values.as_slice(), &Default::default());
        VocabEmbed {
            embedding: Param::from_tensor(matrix.reshape([rows.len(), 3])),
        }
    }

    #[test]
    fn what_is_seen_is_a_projection_onto_the_columns() {
        // Columns of very different scale, then two equal columns.
        for (rows, rank) in [
            (
                vec![
                    [1.0, 300.0, 0.002],
                    [2.0, -100.0, 0.001],
                    [-1.0, 50.0, 0.003],
                    [0.5, 7.0, -0.001],
                    [3.0, 1.0, 0.002],
                ],
                3.0,
            ),
            (
                vec![
                    [1.0, 2.0, 1.0],
                    [2.0, -1.0, 2.0],
                    [0.0, 1.0, 0.0],
                    [1.0, 1.0, 1.0],
                ],
                2.0,
            ),
            // Fewer tokens than columns: P is the identity.
            (vec![[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], 2.0),
            (vec![[0.0; 3]; 4], 0.0),
        ] {
            let n = rows.len();
            let p = DMatrix::from_vec(n, n, embed(&rows).projection().unwrap());
            let e = DMatrix::from_row_slice(n, 3, &rows.concat()).cast::<f64>();
            let close = |a: &DMatrix<f64>, b: &DMatrix<f64>| {
                (a - b).abs().max() < 1e-7 * (1.0 + b.abs().max())
            };
            assert!((p.trace() - rank).abs() < 1e-9, "{}", p.trace());
            assert!(close(&(&p * &p), &p) && close(&p.transpose(), &p) && close(&(&p * &e), &e));
        }
        assert_eq!(embed(&[[f32::NAN, 1.0, 2.0], [1.0; 3]]).projection(), None);
    }
}
