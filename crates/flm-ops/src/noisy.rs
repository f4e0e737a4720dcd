//! Rows of a tall matrix, mixed with noise that is projected by the matrix.

use crate::route::{AutodiffFlex, Route, route};
use crate::{autodiff, check, cube, flex, primitive, wrap};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor};
use burn_flex::Flex;
use flex::buffer::contiguous;

/// The input of [`noisy_rows`].
#[derive(Clone, Debug)]
pub struct Noisy<A: AutodiffBackend> {
    /// E, `[tall, width]`.
    pub matrix: Tensor<A, 2>,
    /// Indices of rows of E, `[rows]`.
    pub ids: Tensor<A::InnerBackend, 1, Int>,
    /// The share of these rows in the mixture, from 0 (noise only) to 1, `[rows]`.
    pub t: Tensor<A::InnerBackend, 1>,
    /// Standard normal numbers, `[rows, width]`.
    pub z: Tensor<A::InnerBackend, 2>,
    /// z·R with E = QR and QᵀQ = I: noise of width `tall`, projected by E, `[rows, width]`.
    pub seen: Tensor<A::InnerBackend, 2>,
    /// R⁻¹, `[width, width]`.
    pub inverse: Tensor<A::InnerBackend, 2>,
}

/// Returns (1 − t)·z·QᵀE + t·E\[ids\], `[rows, width]`: states on the line from noise to one-hot
/// rows, projected by E. Of the noise, only the `width` numbers per row that E can see are drawn.
///
/// The gradient to E is computed as one matrix, with Q constant: E·R⁻¹·zᵀ·(1 − t)·(upstream
/// gradient), with the rows of t·(upstream gradient) added to those in `ids`.
///
/// # Panics
///
/// Panics if the shapes do not fit, or, in the CPU kernel, if an id lies outside the matrix.
pub fn noisy_rows<A: AutodiffBackend>(input: Noisy<A>) -> Tensor<A, 2> {
    input.check();
    match route::<A>(input.matrix.dtype()) {
        Route::AutodiffFlex => {
            let inner = |x| contiguous(primitive::<Flex, A::InnerBackend, 2>(x));
            let ids: Vec<i32> = input.ids.into_data().iter::<i32>().collect();
            check::tokens("noisy_rows", &ids, input.matrix.dims()[0]);
            let saved = flex::noisy::Saved {
                ids,
                t: contiguous(primitive::<Flex, A::InnerBackend, 1>(input.t)),
                z: inner(input.z),
                inverse: inner(input.inverse),
            };
            let seen = inner(input.seen);
            let matrix = primitive::<AutodiffFlex, A, 2>(input.matrix);
            wrap::<AutodiffFlex, A, 2>(autodiff::noisy_rows(saved, seen, matrix))
        }
        Route::Flex | Route::Composed => cube::noisy_rows(input),
    }
}

impl<A: AutodiffBackend> Noisy<A> {
    #[track_caller]
    fn check(&self) {
        let ([_, width], dims) = (self.matrix.dims(), self.z.dims());
        let beside = ("matrix", &self.matrix.dims()[..]);
        let z = ("z", &dims[..]);
        check::shape("noisy_rows", "z", &dims, &[dims[0], width], beside);
        let inverse = self.inverse.dims();
        check::shape("noisy_rows", "inverse", &inverse, &[width, width], beside);
        check::shape("noisy_rows", "seen", &self.seen.dims(), &dims, z);
        check::shape("noisy_rows", "ids", &self.ids.dims(), &dims[..1], z);
        check::shape("noisy_rows", "t", &self.t.dims(), &dims[..1], z);
    }
}
