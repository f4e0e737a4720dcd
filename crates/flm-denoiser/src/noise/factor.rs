//! The triangular factor of an embedding's Gram matrix.

use super::{Draws, Noise, Source};
use burn::tensor::{Tensor, backend::Backend};
use rand::Rng;

/// Number of column blocks of the Gram matrix on the host, which computes only the blocks on and
/// above the diagonal.
const BLOCKS: usize = 4;

/// R with RᵀR = EᵀE, and the matrices with which a teacher's embedding T sees the same noise.
///
/// x₀E = z·R for z = x₀Q. The part of x₀T along Q is z·QᵀT. The rest is independent of z with
/// covariance TᵀT − (QᵀT)ᵀ(QᵀT) = WᵀW, so it is w·W for an independent w ~ N(0, I). All three are
/// blocks of the Cholesky factor of the Gram matrix of \[E, T\]: R and QᵀT on top, W below.
#[derive(Clone, Debug)]
pub(super) struct Factor<B: Backend> {
    /// R, upper triangular, `[width, width]`.
    root: Tensor<B, 2>,
    /// R⁻¹.
    inverse: Tensor<B, 2>,
    /// QᵀT, `[width, teacher width]`, and W, `[teacher width, teacher width]`.
    teacher: Option<[Tensor<B, 2>; 2]>,
}

impl<B: Backend> Factor<B> {
    pub(super) fn new(embedding: Tensor<B, 2>, teacher: Option<Tensor<B, 2>>) -> Self {
        let [_, width] = embedding.dims();
        let squares = gram(&embedding);
        let Some(teacher) = teacher else {
            let [root, inverse] = flm_ops::cholesky(squares);
            return Self {
                root,
                inverse,
                teacher: None,
            };
        };
        let across = flm_ops::matmul(embedding.transpose(), teacher.clone());
        let all = width + teacher.dims()[1];
        let above = Tensor::cat(vec![squares, across.clone()], 1);
        let below = Tensor::cat(vec![across.transpose(), gram(&teacher)], 1);
        let [root, inverse] = flm_ops::cholesky(Tensor::cat(vec![above, below], 0));
        Self {
            teacher: Some(
                [0..width, width..all].map(|rows| root.clone().slice([rows, width..all])),
            ),
            root: root.slice([0..width, 0..width]),
            inverse: inverse.slice([0..width, 0..width]),
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

/// XᵀX. On the host, the blocks below the diagonal are zero.
fn gram<B: Backend>(matrix: &Tensor<B, 2>) -> Tensor<B, 2> {
    if !flm_ops::on_host::<B>() {
        return flm_ops::matmul(matrix.clone().transpose(), matrix.clone());
    }
    let ([_, width], device) = (matrix.dims(), matrix.device());
    let step = width.div_ceil(BLOCKS);
    let columns = |first: usize| {
        let last = width.min(first + step);
        let left = matrix.clone().narrow(1, 0, last).transpose();
        let block = flm_ops::matmul(left, matrix.clone().narrow(1, first, last - first));
        let below = Tensor::zeros([width - last, last - first], &device);
        Tensor::cat(vec![block, below], 0)
    };
    Tensor::cat((0..width).step_by(step).map(columns).collect(), 1)
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

    /// The largest entry of |QᵀQ − I|, in single precision as in training.
    fn drift(embedding: Tensor<Flex, 2>, factor: &Factor<Flex>) -> f32 {
        let [_, width] = embedding.dims();
        let basis = embedding.matmul(factor.inverse.clone());
        let error =
            basis.clone().transpose().matmul(basis) - Tensor::eye(width, &Default::default());
        error.abs().max().into_scalar()
    }

    #[test]
    fn a_factor_is_the_root_of_the_gram_matrix_at_any_width() {
        for width in [1, 2, 3, 5, 49, 97] {
            let [embedding, teacher] = [1, 2].map(|seed| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                gaussian::<Flex, _, 2>([3 * width, width], &mut rng, &Default::default())
            });
            let factor = Factor::new(embedding.clone(), Some(teacher.clone()));
            assert!(drift(embedding.clone(), &factor) < 1e-4, "width {width}");
            let [along, rest] = factor.teacher.unwrap();
            let product =
                |a: &Tensor<Flex, 2>, b: &Tensor<Flex, 2>| a.clone().transpose().matmul(b.clone());
            for (found, expected) in [
                (
                    product(&factor.root, &factor.root),
                    product(&embedding, &embedding),
                ),
                (product(&factor.root, &along), product(&embedding, &teacher)),
                (
                    product(&along, &along) + product(&rest, &rest),
                    product(&teacher, &teacher),
                ),
            ] {
                let largest: f32 = expected.clone().abs().max().into_scalar();
                let error: f32 = (found - expected).abs().max().into_scalar();
                assert!(
                    error < 1e-5 * largest,
                    "width {width}: {error} of {largest}"
                );
            }
        }
    }

    #[test]
    fn an_embedding_that_is_no_number_gives_noise_that_is_none() {
        let embedding = Tensor::<Flex, 2>::full([10, 3], f32::NAN, &Default::default());
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let noise = Factor::new(embedding, None).draw(2, 4, Source::Host, rng);
        let Draws::Narrow { seen, .. } = noise.0 else {
            panic!("a factor draws narrow noise");
        };
        assert!(seen.into_data().iter::<f32>().all(f32::is_nan));
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
        assert!(ratio > 1.0, "E moved by only {ratio} of its size");
        assert!(worst < 1e-3, "{worst}");
    }
}
