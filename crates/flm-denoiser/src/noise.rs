//! The Gaussian prior as the network sees it.
//!
//! The network sees x₀ ~ N(0, I) of width V only through x₀E, whose rows are N(0, EᵀE). With E = QR
//! and QᵀQ = I, this equals z·R for z ~ N(0, I) of width d, so V-wide noise is unnecessary
//! (`mathematics.md`, section 6). In training, Q is held constant. The gradient to E is then the
//! mean, given z, of the gradient of V-wide noise, and its variance is no larger.

mod factor;

use crate::embed::VocabEmbed;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Tensor};
use factor::Factor;
use flm_ops::Noisy;
use flm_simplex::interpolant::{broadcast, interpolate};
use flm_simplex::noise::gaussian;
use rand::Rng;

/// Cost of drawing a normal number, in floating-point operations of a matrix product.
const DRAW: f64 = 700.0;

/// The width of the noise drawn for a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseWidth {
    /// V numbers per position, projected by E.
    Vocabulary,
    /// d numbers per position, multiplied by a factor of EᵀE that is recomputed at every step.
    Network,
}

impl NoiseWidth {
    /// Returns the cheaper width on the host, for steps of `tokens` positions in `parts` parts,
    /// each with its own backward pass.
    ///
    /// V-wide noise costs V draws and two products of 2Vd operations per position. Narrow noise
    /// costs a product of 2Vd² for EᵀE (of which the host computes about five eighths), and the
    /// same for the gradient of each part. A `teacher` T that sees the same noise through its own
    /// embedding adds EᵀT and TᵀT per step to narrow noise, or one product per position to V-wide
    /// noise. If V ≤ d, narrow noise saves nothing.
    ///
    /// On a device, draws cost less, but the gradient of wide noise has a larger variance there
    /// too, so the same rule applies.
    pub fn cheaper(vocab: usize, width: usize, tokens: usize, parts: usize, teacher: bool) -> Self {
        let [v, d, n, parts] = [vocab, width, tokens, parts].map(|x| x as f64);
        let (wide_again, narrow_again) = if teacher { (1.0, 1.625) } else { (0.0, 0.0) };
        let wide = n * v * (DRAW + (2.0 + wide_again) * 2.0 * d);
        let narrow = 2.0 * v * d * d * (0.625 + parts + narrow_again);
        if vocab > width && narrow < wide {
            Self::Network
        } else {
            Self::Vocabulary
        }
    }
}

/// The noise distribution as seen by one network, or by a network and its teacher.
///
/// It uses the embedding at the time of creation, and does not follow later updates of E.
#[derive(Clone, Debug)]
pub struct Prior<B: Backend> {
    vocab: usize,
    device: B::Device,
    factor: Option<Factor<B>>,
    source: Source,
}

/// Where noise is drawn.
#[derive(Clone, Copy, Debug)]
enum Source {
    Host,
    Device,
}

impl Source {
    /// Draws standard normal numbers.
    fn normal<B: Backend, R: Rng + ?Sized, const D: usize>(
        self,
        shape: [usize; D],
        rng: &mut R,
        device: &B::Device,
    ) -> Tensor<B, D> {
        match self {
            Self::Host => gaussian(shape, rng, device),
            Self::Device => {
                B::seed(device, rng.next_u64());
                Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
            }
        }
    }
}

impl<B: Backend> Prior<B> {
    /// Creates the prior for sampling: narrow if V > d.
    pub fn new(embed: &VocabEmbed<B>) -> Self {
        Self::of_width(embed, None, Self::width_for_sampling(embed))
    }

    /// Creates the prior for sampling with two networks that see the same noise through their own
    /// embeddings ([`seen_beside`](Noise::seen_beside)). The first network sees the same noise as
    /// it would alone.
    pub fn beside(embed: &VocabEmbed<B>, other: &VocabEmbed<B>) -> Self {
        Self::of_width(embed, Some(other), Self::width_for_sampling(embed))
    }

    fn width_for_sampling(embed: &VocabEmbed<B>) -> NoiseWidth {
        let [vocab, width] = embed.embedding.dims();
        if vocab > width {
            NoiseWidth::Network
        } else {
            NoiseWidth::Vocabulary
        }
    }

    /// Creates a prior of the given width for a network and an optional teacher, which sees the
    /// same noise through its own embedding.
    pub fn of_width(
        embed: &VocabEmbed<B>,
        teacher: Option<&VocabEmbed<B>>,
        noise: NoiseWidth,
    ) -> Self {
        let matrix = embed.embedding.val();
        let factor = (noise == NoiseWidth::Network).then(|| {
            Factor::new(
                matrix.clone(),
                teacher.map(|teacher| teacher.embedding.val()),
            )
        });
        Self {
            vocab: matrix.dims()[0],
            device: matrix.device(),
            factor,
            source: Source::Host,
        }
    }

    /// Creates the prior for a training step of `tokens` positions in `parts` parts: of the cheaper
    /// width, drawn where the backend computes.
    pub fn for_training(
        embed: &VocabEmbed<B>,
        teacher: Option<&VocabEmbed<B>>,
        tokens: usize,
        parts: usize,
    ) -> Self {
        let [vocab, width] = embed.embedding.dims();
        let cheaper = NoiseWidth::cheaper(vocab, width, tokens, parts, teacher.is_some());
        Self::of_width(embed, teacher, cheaper).where_computed()
    }

    /// Creates the V-wide prior, whose noise any network can see, drawn where the backend computes.
    pub fn wide(embed: &VocabEmbed<B>) -> Self {
        Self::of_width(embed, None, NoiseWidth::Vocabulary).where_computed()
    }

    /// Draws noise on the backend, with seeds from the generator. This is fast on a GPU, but the
    /// numbers differ from those of the host and of other backends.
    pub fn on_device(self) -> Self {
        Self {
            source: Source::Device,
            ..self
        }
    }

    /// Draws noise where the backend computes: on the host for the CPU backend, on the
    /// device otherwise.
    pub fn where_computed(self) -> Self {
        if flm_ops::on_host::<B>() {
            self
        } else {
            self.on_device()
        }
    }

    /// Draws noise for `batch` sequences of `length` tokens.
    pub fn draw<R: Rng + ?Sized>(&self, batch: usize, length: usize, rng: &mut R) -> Noise<B> {
        match &self.factor {
            None => {
                let shape = [batch, length, self.vocab];
                Noise::pinned(self.source.normal(shape, rng, &self.device))
            }
            Some(factor) => factor.draw(batch, length, self.source, rng),
        }
    }
}

/// A batch of noise x₀ ~ N(0, I).
#[derive(Clone, Debug)]
pub struct Noise<B: Backend>(Draws<B>);

#[derive(Clone, Debug)]
enum Draws<B: Backend> {
    /// x₀, `[batch, length, vocabulary]`.
    Wide(Tensor<B, 3>),
    /// z, `[batch, length, width]`, and its projections for the networks.
    Narrow {
        z: Tensor<B, 3>,
        seen: Tensor<B, 3>,
        by_teacher: Option<Tensor<B, 3>>,
        inverse: Tensor<B, 2>,
    },
}

impl<B: Backend> Noise<B> {
    /// Wraps given V-wide noise, `[batch, length, vocabulary]`, for tests against pinned numbers.
    pub fn pinned(wide: Tensor<B, 3>) -> Self {
        Self(Draws::Wide(wide))
    }

    /// Returns x₀.
    ///
    /// # Panics
    ///
    /// Panics if the noise is narrow.
    fn wide(&self) -> Tensor<B, 3> {
        match &self.0 {
            Draws::Wide(x) => x.clone(),
            Draws::Narrow { .. } => panic!("narrow noise does not contain x₀"),
        }
    }

    /// Returns the noise of `count` sequences from `first` on.
    pub fn narrow(&self, first: usize, count: usize) -> Self {
        let part = |x: &Tensor<B, 3>| x.clone().narrow(0, first, count);
        Self(match &self.0 {
            Draws::Wide(x) => Draws::Wide(part(x)),
            Draws::Narrow {
                z,
                seen,
                by_teacher,
                inverse,
            } => Draws::Narrow {
                z: part(z),
                seen: part(seen),
                by_teacher: by_teacher.as_ref().map(part),
                inverse: inverse.clone(),
            },
        })
    }

    /// Returns x₀E for the network of the prior, `[batch, length, width]`.
    pub fn seen(&self, embed: &VocabEmbed<B>) -> Tensor<B, 3> {
        match &self.0 {
            Draws::Wide(x) => embed.project(x.clone()),
            Draws::Narrow { seen, .. } => seen.clone(),
        }
    }

    /// Returns x₀E for the teacher of the prior.
    ///
    /// # Panics
    ///
    /// Panics if the noise is narrow and the prior has no teacher.
    pub fn seen_by_teacher(&self, embed: &VocabEmbed<B>) -> Tensor<B, 3> {
        match &self.0 {
            Draws::Wide(x) => embed.project(x.clone()),
            Draws::Narrow { by_teacher, .. } => by_teacher
                .clone()
                .expect("the prior should have been created with a teacher"),
        }
    }

    /// Returns x₀·\[E, F\] for the two networks of [`Prior::beside`], `[batch, length,
    /// both widths]`.
    ///
    /// # Panics
    ///
    /// Panics if the noise is narrow and the prior was created for one network.
    pub fn seen_beside(&self, embed: &VocabEmbed<B>, other: &VocabEmbed<B>) -> Tensor<B, 3> {
        Tensor::cat(vec![self.seen(embed), self.seen_by_teacher(other)], 2)
    }

    /// Returns x₀E for any network.
    ///
    /// # Panics
    ///
    /// Panics if the noise is narrow, which only the networks of the prior can see.
    pub fn seen_by(&self, embed: &VocabEmbed<B>) -> Tensor<B, 3> {
        match &self.0 {
            Draws::Wide(x) => embed.project(x.clone()),
            Draws::Narrow { .. } => panic!("narrow noise is visible only to its prior's networks"),
        }
    }

    /// Returns I_t·E for tokens `[batch, length]` at times t `[batch]`, `[batch, length, width]`,
    /// with the gradient to E.
    pub fn interpolate<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        embed: &VocabEmbed<A>,
        tokens: Tensor<A, 2, Int>,
        t: Tensor<A, 1>,
    ) -> Tensor<A, 3> {
        match &self.0 {
            Draws::Wide(x) => {
                let noise = embed.project(Tensor::from_inner(x.clone()));
                interpolate(noise, embed.tokens(tokens), t)
            }
            Draws::Narrow {
                z, seen, inverse, ..
            } => {
                let [batch, length, width] = z.dims();
                let rows = |x: &Tensor<B, 3>| x.clone().reshape([batch * length, width]);
                let t = t.inner().unsqueeze_dim::<2>(1).repeat_dim(1, length);
                flm_ops::noisy_rows(Noisy {
                    matrix: embed.embedding.val(),
                    ids: tokens.inner().flatten(0, 1),
                    t: t.flatten(0, 1),
                    z: rows(z),
                    seen: rows(seen),
                    inverse: inverse.clone(),
                })
                .reshape([batch, length, width])
            }
        }
    }

    /// Returns the token likelihoods of states with this noise, through the embedding as it is now.
    pub fn likelihoods(&self, embed: &VocabEmbed<B>) -> Likelihoods<'_, B> {
        let basis = match &self.0 {
            Draws::Wide(_) => None,
            Draws::Narrow { inverse, .. } => {
                let basis = flm_ops::matmul(embed.embedding.val(), inverse.clone());
                let [vocab, _] = basis.dims();
                let seen = basis.clone().square().sum_dim(1).reshape([1, 1, vocab]);
                Some((basis, seen))
            }
        };
        Likelihoods { noise: self, basis }
    }
}

/// The likelihoods of tokens given noisy states.
#[derive(Debug)]
pub struct Likelihoods<'a, B: Backend> {
    noise: &'a Noise<B>,
    /// For narrow noise, Q and the squared norms of its rows: the visible part of each
    /// token's dimension.
    basis: Option<(Tensor<B, 2>, Tensor<B, 3>)>,
}

impl<B: Backend> Likelihoods<'_, B> {
    /// Returns log p(I_t | token) for every token at each position, up to a constant per position,
    /// `[batch, length, vocabulary]`.
    ///
    /// It covers the sequences from `first` on. The result is V wide, so ask for a few sequences at
    /// a time.
    ///
    /// The states are those of `tokens` `[batch, length]` at times t `[batch]`, below 1, as the
    /// network sees them. For narrow noise, the invisible part carries no information.
    pub fn log_likelihoods(
        &self,
        first: usize,
        tokens: Tensor<B, 2, Int>,
        t: Tensor<B, 1>,
    ) -> Tensor<B, 3> {
        let [batch, length] = tokens.dims();
        let t = broadcast(t);
        let scale = t.clone() / (t.clone().neg().add_scalar(1.0)).square();
        match (&self.noise.0, &self.basis) {
            (Draws::Narrow { z, .. }, Some((basis, seen))) => {
                let [vocab, width] = basis.dims();
                let clean = flm_ops::rows(basis.clone(), tokens);
                let z = z.clone().narrow(0, first, batch);
                let state = interpolate(z, clean, t.clone().reshape([batch]));
                let rows = state.reshape([batch * length, width]);
                let along = flm_ops::matmul(rows, basis.clone().transpose());
                let along = along.reshape([batch, length, vocab]);
                (along - seen.clone() * t.div_scalar(2.0)) * scale
            }
            _ => {
                let x = self.noise.wide().narrow(0, first, batch);
                let [.., vocab] = x.dims();
                let clean = tokens.one_hot::<3>(vocab).float();
                (x * t.clone().neg().add_scalar(1.0) + clean * t) * scale
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DitConfig, Dropout};
    use burn::backend::Autodiff;
    use burn::module::{AutodiffModule, Param};
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    type Train = Autodiff<Flex>;

    fn embed<B: Backend>(vocab: usize, width: usize, seed: u64) -> VocabEmbed<B> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        VocabEmbed {
            embedding: Param::from_tensor(gaussian([vocab, width], &mut rng, &Default::default())),
        }
    }

    fn values<B: Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f64> {
        x.into_data().iter::<f64>().collect()
    }

    /// Asserts that the second moments of `x` and `y` `[n, width]` are `expected` within five
    /// standard errors.
    fn assert_moments(x: &Tensor<Flex, 2>, y: &Tensor<Flex, 2>, expected: Tensor<Flex, 2>) {
        let [n, width] = x.dims();
        let found = values(x.clone().transpose().matmul(y.clone()).div_scalar(n as f64));
        let variance = |x: &Tensor<Flex, 2>| values((x.clone() * x.clone()).mean_dim(0));
        let (vx, vy) = (variance(x), variance(y));
        for (i, (found, expected)) in found.into_iter().zip(values(expected)).enumerate() {
            // For Gaussian pairs, Var(xy) = σₓ²σᵧ² + Cov², at most twice the first term.
            let error = (2.0 * vx[i / width] * vy[i % width] / n as f64).sqrt();
            assert!(
                (found - expected).abs() < 5.0 * error,
                "{found} for {expected} ± {error}"
            );
        }
    }

    #[test]
    fn narrow_noise_has_the_covariance_of_wide_noise() {
        let (student, teacher) = (embed::<Flex>(50, 6, 1), embed::<Flex>(50, 6, 2));
        // If teacher and student are equal, the independent part W is zero.
        for teacher in [&teacher, &student] {
            for width in [NoiseWidth::Network, NoiseWidth::Vocabulary] {
                let prior = Prior::of_width(&student, Some(teacher), width);
                let noise = prior.draw(200, 100, &mut ChaCha8Rng::seed_from_u64(3));
                let seen = noise.seen(&student).reshape([20_000, 6]);
                let by_teacher = noise.seen_by_teacher(teacher).reshape([20_000, 6]);
                let (e, t) = (student.embedding.val(), teacher.embedding.val());
                assert_moments(&seen, &seen, e.clone().transpose().matmul(e.clone()));
                assert_moments(
                    &by_teacher,
                    &by_teacher,
                    t.clone().transpose().matmul(t.clone()),
                );
                assert_moments(&seen, &by_teacher, e.transpose().matmul(t));
            }
        }
    }

    #[test]
    fn parts_of_a_batch_are_parts_of_its_noise() {
        let embed = embed::<Flex>(20, 4, 1);
        for width in [NoiseWidth::Network, NoiseWidth::Vocabulary] {
            let prior = Prior::of_width(&embed, Some(&embed), width);
            let noise = prior.draw(5, 3, &mut ChaCha8Rng::seed_from_u64(3));
            let part = noise.narrow(1, 2);
            let expected = values(noise.seen(&embed).narrow(0, 1, 2));
            let close = |found: Vec<f64>| {
                assert!(
                    found
                        .iter()
                        .zip(&expected)
                        .all(|(a, b)| (a - b).abs() < 1e-5)
                );
            };
            close(values(part.seen(&embed)));
            let by_teacher = values(noise.seen_by_teacher(&embed).narrow(0, 1, 2));
            assert_eq!(values(part.seen_by_teacher(&embed)), by_teacher);
        }
    }

    #[test]
    fn the_cheaper_width_is_chosen() {
        use NoiseWidth::{Network, Vocabulary};
        let cheaper = NoiseWidth::cheaper;
        // No saving; the quickstart; a small step; a step of a thousand positions.
        assert_eq!(cheaper(61, 64, 10_000, 1, false), Vocabulary);
        assert_eq!(cheaper(160, 64, 704, 2, false), Network);
        assert_eq!(cheaper(50_258, 768, 64, 1, false), Vocabulary);
        assert_eq!(cheaper(50_258, 768, 1_024, 1, false), Network);
    }

    /// Mean and variance of each entry of the gradient to E, over draws of narrow and of
    /// wide noise.
    fn moments(
        embed: &VocabEmbed<Flex>,
        draws: u32,
        mut gradient: impl FnMut(&Prior<Flex>) -> Vec<f64>,
    ) -> [(Vec<f64>, Vec<f64>); 2] {
        [NoiseWidth::Network, NoiseWidth::Vocabulary].map(|width| {
            let prior = Prior::of_width(embed, None, width);
            let count = embed.embedding.shape().num_elements();
            let (mut sum, mut squares) = (vec![0.0; count], vec![0.0; count]);
            for _ in 0..draws {
                for (i, g) in gradient(&prior).into_iter().enumerate() {
                    sum[i] += g;
                    squares[i] += g * g;
                }
            }
            let n = f64::from(draws);
            let mean: Vec<f64> = sum.iter().map(|sum| sum / n).collect();
            let variance = squares.iter().zip(&mean);
            let variance = variance.map(|(square, mean)| square / n - mean * mean);
            (mean.clone(), variance.collect())
        })
    }

    /// Asserts that the means agree within five standard errors. Returns how many of them differ
    /// from zero by five standard errors, and the ratio of the variances of wide and narrow noise.
    fn compare([narrow, wide]: [(Vec<f64>, Vec<f64>); 2], draws: u32) -> (usize, f64) {
        let mut strong = 0;
        for i in 0..narrow.0.len() {
            // 512 entries: false alarm rate of 3e-4 if they were independent.
            let error = ((narrow.1[i] + wide.1[i]) / f64::from(draws)).sqrt();
            let difference = (narrow.0[i] - wide.0[i]).abs();
            assert!(
                difference < 5.0 * error,
                "entry {i}: {difference} ± {error}"
            );
            strong += usize::from(narrow.0[i].abs() > 5.0 * error);
        }
        let total = |variance: &[f64]| variance.iter().sum::<f64>();
        (strong, total(&wide.1) / total(&narrow.1))
    }

    // V/d = 8 in both.

    #[test]
    fn on_a_convex_loss_the_mean_gradient_is_that_of_wide_noise_and_varies_less() {
        let (embed, draws) = (embed::<Train>(64, 8, 5), 2_000);
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let plain = embed.valid();
        let tokens = Tensor::<Train, 2, Int>::zeros([1, 2], &Default::default());
        let found = moments(&plain, draws, |prior| {
            let noise = prior.draw(1, 2, &mut rng);
            let start = Tensor::zeros([1], &Default::default());
            let seen = noise.interpolate(&embed, tokens.clone(), start);
            let grads = (seen.clone() * seen).sum().backward();
            values(embed.embedding.val().grad(&grads).unwrap())
        });
        let (strong, ratio) = compare(found, draws);
        assert!(
            strong > 256,
            "only {strong} of 512 entries have a mean significantly different from zero"
        );
        assert!(ratio > 3.0, "variance ratio of wide noise: {ratio}");
    }

    #[test]
    fn on_the_network_the_mean_gradient_is_that_of_wide_noise_and_varies_less() {
        let (config, draws) = (DitConfig::new(64, 4, 8, 1, 2), 2_000);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let model = config.init::<Train>(&mut rng, &Default::default()).unwrap();
        let mut tensors = crate::named_tensors(&model.valid());
        for tensor in &mut tensors {
            tensor.values.fill_with(|| rng.random_range(-1.0..1.0));
        }
        let model = crate::apply_tensors(model, std::path::Path::new("drawn"), tensors).unwrap();
        let tokens = [3, 1, 4, 1, 5, 9, 2, 6];
        let tokens =
            Tensor::<Train, 1, Int>::from_ints(tokens, &Default::default()).reshape([2, 4]);
        let tau = Tensor::from_floats([0.2, 0.6], &Default::default());
        let found = moments(model.valid().embed(), draws, |prior| {
            let noise = prior.draw(2, 4, &mut rng);
            let t = Tensor::from_floats([0.1, 0.3], &Default::default());
            let state = noise.interpolate(model.embed(), tokens.clone(), t);
            let prediction = model.forward(state, tau.clone(), tau.clone(), &mut Dropout::off());
            let weights = Tensor::full([2, 4], 0.125, &Default::default());
            let grads = prediction
                .cross_entropy(tokens.clone(), weights)
                .loss
                .backward();
            values(model.embed().embedding.val().grad(&grads).unwrap())
        });
        let (_, ratio) = compare(found, draws);
        assert!(ratio > 4.0, "variance ratio of wide noise: {ratio}");
    }
}
