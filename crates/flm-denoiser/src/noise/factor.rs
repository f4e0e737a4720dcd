//! The triangular factor of an embedding's Gram matrix.

use super::{Draws, Noise, Source};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use nalgebra::DMatrix;
use rand::Rng;

/// Columns in a block of the Gram matrix: only blocks on and above the diagonal are computed.
const BLOCKS: usize = 4;
/// Sizes from which the factorization goes by halves, which are matrix products.
const SMALL: usize = 48;
/// What is added to the diagonal, relative to its mean, if rounding has made the matrix indefinite: first, and then ten times
/// as much each time.
const RIDGE: f64 = 1e-7;

/// R with RᵀR = EᵀE, and what it takes for a teacher's embedding T to see the same noise.
///
/// x₀E = z·R for z = x₀Q. Of x₀T the part along Q is z·QᵀT; the rest is independent of z and has the covariance
/// TᵀT − (QᵀT)ᵀ(QᵀT) = WᵀW, so it is w·W for another w ~ N(0, I).
#[derive(Clone, Debug)]
pub(super) struct Factor<B: Backend> {
    /// R, upper triangular, `[width, width]`.
    root: Tensor<B, 2>,
    /// R⁻¹.
    inverse: Tensor<B, 2>,
    /// QᵀT, `[width, the teacher's]`, and W, square.
    teacher: Option<[Tensor<B, 2>; 2]>,
}

impl<B: Backend> Factor<B> {
    pub(super) fn new(embedding: Tensor<B, 2>, teacher: Option<Tensor<B, 2>>) -> Self {
        let device = embedding.device();
        let squares = gram(&embedding);
        let (root, inverse) = cholesky(&squares, squares.trace());
        let teacher = teacher.map(|teacher| {
            // QᵀT = R⁻ᵀ·EᵀT.
            let along =
                inverse.transpose() * host(flm_ops::matmul(embedding.transpose(), teacher.clone()));
            let squares = gram(&teacher);
            // Where the teacher sees what the student sees, what is left is rounding: measured by the whole.
            let size = squares.trace();
            let rest = squares - along.transpose() * &along;
            [
                to_device(&along, &device),
                to_device(&cholesky(&rest, size).0, &device),
            ]
        });
        Self {
            root: to_device(&root, &device),
            inverse: to_device(&inverse, &device),
            teacher,
        }
    }

    pub(super) fn draw<R: Rng + ?Sized>(
        &self,
        batch: usize,
        length: usize,
        source: Source,
        rng: &mut R,
    ) -> Noise<B> {
        let ([width, _], device) = (self.root.dims(), self.root.device());
        let mut rows = |width| source.normal::<B, R, 2>([batch * length, width], rng, &device);
        let shaped = |x: Tensor<B, 2>| {
            let [_, width] = x.dims();
            x.reshape([batch, length, width])
        };
        let z = rows(width);
        Noise(Draws::Narrow {
            seen: shaped(flm_ops::matmul(z.clone(), self.root.clone())),
            by_teacher: self.teacher.as_ref().map(|[along, rest]| {
                let [_, width] = rest.dims();
                shaped(
                    flm_ops::matmul(z.clone(), along.clone())
                        + flm_ops::matmul(rows(width), rest.clone()),
                )
            }),
            z: shaped(z),
            inverse: self.inverse.clone(),
        })
    }
}

/// EᵀE: products in the backend's precision, kept in double.
fn gram<B: Backend>(matrix: &Tensor<B, 2>) -> DMatrix<f64> {
    let [_, width] = matrix.dims();
    let step = width.div_ceil(BLOCKS);
    let mut gram = DMatrix::zeros(width, width);
    for first in (0..width).step_by(step) {
        let count = step.min(width - first);
        let left = matrix.clone().narrow(1, 0, first + count);
        let right = matrix.clone().narrow(1, first, count);
        let block = host(flm_ops::matmul(left.transpose(), right));
        gram.view_mut((0, first), (first + count, count))
            .copy_from(&block);
        gram.view_mut((first, 0), (count, first + count))
            .copy_from(&block.transpose());
    }
    gram
}

/// R and R⁻¹ with RᵀR = `matrix`, which is positive semidefinite but for rounding of numbers whose trace is `size`.
fn cholesky(matrix: &DMatrix<f64>, size: f64) -> (DMatrix<f64>, DMatrix<f64>) {
    let n = matrix.nrows();
    // A matrix of zeros has noise of no size.
    let least = RIDGE * (size / n as f64).max(f64::MIN_POSITIVE.sqrt());
    let mut ridge = 0.0;
    while (matrix.sum() + ridge).is_finite() {
        let mut raised = matrix.clone();
        for i in 0..n {
            raised[(i, i)] += ridge;
        }
        if let Some(factors) = halves(&raised) {
            return factors;
        }
        ridge = if ridge > 0.0 { 10.0 * ridge } else { least };
    }
    // Of what is no number there is no factor, and the loss will say so.
    let unknown = DMatrix::from_element(n, n, f64::NAN);
    (unknown.clone(), unknown)
}

/// R and R⁻¹ of a positive definite matrix by halves, so that most of the work is matrix products.
fn halves(matrix: &DMatrix<f64>) -> Option<(DMatrix<f64>, DMatrix<f64>)> {
    let n = matrix.nrows();
    if n <= SMALL {
        let root = matrix.clone().cholesky()?.l().transpose();
        let inverse = root.solve_upper_triangular(&DMatrix::identity(n, n))?;
        return Some((root, inverse));
    }
    let (half, rest) = (n / 2, n - n / 2);
    let part = |from, size| matrix.view(from, size).into_owned();
    let (root, inverse) = halves(&part((0, 0), (half, half)))?;
    let corner = inverse.transpose() * part((0, half), (half, rest));
    let left = part((half, half), (rest, rest)) - corner.transpose() * &corner;
    let (root2, inverse2) = halves(&left)?;
    let inverse_corner = -(&inverse * &corner) * &inverse2;
    Some((
        triangle(&root, &corner, &root2),
        triangle(&inverse, &inverse_corner, &inverse2),
    ))
}

/// An upper triangular matrix of its blocks.
fn triangle(first: &DMatrix<f64>, corner: &DMatrix<f64>, second: &DMatrix<f64>) -> DMatrix<f64> {
    let (half, rest) = corner.shape();
    let mut whole = DMatrix::zeros(half + rest, half + rest);
    whole.view_mut((0, 0), (half, half)).copy_from(first);
    whole.view_mut((0, half), (half, rest)).copy_from(corner);
    whole.view_mut((half, half), (rest, rest)).copy_from(second);
    whole
}

fn host<B: Backend>(matrix: Tensor<B, 2>) -> DMatrix<f64> {
    let [rows, columns] = matrix.dims();
    let values: Vec<f64> = matrix.into_data().iter::<f64>().collect();
    DMatrix::from_row_slice(rows, columns, &values)
}

fn to_device<B: Backend>(matrix: &DMatrix<f64>, device: &B::Device) -> Tensor<B, 2> {
    let shape = [matrix.nrows(), matrix.ncols()];
    let values: Vec<f32> = matrix
        .transpose()
        .iter()
        .map(|value| *value as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DitConfig, Dropout, Prior};
    use burn::backend::Autodiff;
    use burn::module::AutodiffModule;
    use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
    use burn::tensor::Int;
    use burn_flex::Flex;
    use flm_simplex::noise::gaussian;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The largest entry of QᵀQ − I, in single precision as training computes it.
    fn drift(embedding: Tensor<Flex, 2>, factor: &Factor<Flex>) -> f32 {
        let [_, width] = embedding.dims();
        let basis = embedding.matmul(factor.inverse.clone());
        let error =
            basis.clone().transpose().matmul(basis) - Tensor::eye(width, &Default::default());
        error.abs().max().into_scalar()
    }

    #[test]
    fn a_factor_is_the_root_of_the_gram_matrix_at_any_size() {
        // Below, at and above the size from which it goes by halves, odd and even.
        for width in [1, 2, 48, 49, 97, 130] {
            let mut rng = ChaCha8Rng::seed_from_u64(width as u64);
            let embedding =
                gaussian::<Flex, _, 2>([3 * width, width], &mut rng, &Default::default());
            let factor = Factor::new(embedding.clone(), None);
            let squared = factor.root.clone().transpose().matmul(factor.root.clone());
            let gram = embedding.clone().transpose().matmul(embedding.clone());
            let error: f32 = (squared - gram.clone()).abs().max().into_scalar();
            let largest: f32 = gram.abs().max().into_scalar();
            assert!(
                error < 1e-5 * largest,
                "width {width}: {error} of {largest}"
            );
            assert!(drift(embedding, &factor) < 1e-4, "width {width}");
        }
    }

    #[test]
    fn columns_that_repeat_each_other_still_have_a_factor() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let half = gaussian::<Flex, _, 2>([40, 6], &mut rng, &Default::default());
        let embedding = Tensor::cat(vec![half.clone(), half], 1);
        let factor = Factor::new(embedding.clone(), None);
        let squared = factor.root.clone().transpose().matmul(factor.root);
        let gram = embedding.clone().transpose().matmul(embedding);
        let error: f32 = (squared - gram).abs().max().into_scalar();
        assert!(error < 1e-2, "{error}");
        let zero = Factor::new(Tensor::<Flex, 2>::zeros([40, 6], &Default::default()), None);
        assert!(zero.root.abs().max().into_scalar() < 1e-3);
    }

    #[test]
    fn an_embedding_that_is_no_number_gives_noise_that_is_none() {
        let embedding = Tensor::<Flex, 2>::full([10, 3], f32::NAN, &Default::default());
        let factor = Factor::new(embedding, None);
        assert!(factor.root.into_data().iter::<f32>().all(f32::is_nan));
    }

    #[test]
    fn the_basis_stays_orthonormal_through_a_thousand_steps_at_a_high_learning_rate() {
        type Train = Autodiff<Flex>;
        let (config, mut rng) = (
            DitConfig::new(40, 4, 16, 1, 2),
            ChaCha8Rng::seed_from_u64(2),
        );
        let mut model = config.init::<Train>(&mut rng, &Default::default()).unwrap();
        let mut optimizer = AdamWConfig::new().init();
        let before = model.valid().embed().embedding.val();
        let mut worst = 0.0_f32;
        for _ in 0..1_000 {
            let plain = model.valid();
            let factor = Factor::new(plain.embed().embedding.val(), None);
            worst = worst.max(drift(plain.embed().embedding.val(), &factor));
            let prior = Prior::of_width(plain.embed(), None, crate::NoiseWidth::Network);
            let ids: Vec<i32> = (0..8).map(|_| rng.random_range(0..40)).collect();
            let tokens = Tensor::<Train, 1, Int>::from_ints(ids.as_slice(), &Default::default());
            let tokens = tokens.reshape([2, 4]);
            let tau = Tensor::from_floats([rng.random::<f32>(), 0.5], &Default::default());
            let noise = prior.draw(2, 4, &mut rng);
            let state = noise.interpolate(model.embed(), tokens.clone(), tau.clone());
            let prediction = model.forward(state, tau.clone(), tau, &mut Dropout::off());
            let weights = Tensor::full([2, 4], 0.125, &Default::default());
            let grads = prediction.cross_entropy(tokens, weights).loss.backward();
            let grads = GradientsParams::from_grads(grads, &model);
            model = optimizer.step(3e-2, model, grads);
        }
        let moved = model.valid().embed().embedding.val() - before.clone();
        let ratio: f32 = (moved.abs().mean() / before.abs().mean()).into_scalar();
        assert!(ratio > 1.0, "E moved by {ratio} of itself only");
        assert!(worst < 1e-3, "{worst}");
    }
}
