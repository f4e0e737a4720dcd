//! The posterior of each position's token given that position's own state, as an extra
//! network input.
//!
//! A state at time t is t·e_y + (1−t)·ε. Alone, it multiplies the odds of token v by exp(ℓ_v), with
//! ℓ_v = λ·x_v − ½r²·|q_v|², r = t/(1−t) and λ = t/(1−t)² = r + r². The network sees x only through
//! h = xE. Therefore x is replaced by its projection h·(EᵀE)⁻¹Eᵀ, and q_v is the projection of e_v,
//! so ℓ is exact for the visible part. A plain network has to learn this map from h to tokens at
//! every noise level. Here it is an input: softmax(ℓ + b)·E₂ is added to h, where b and E₂ are
//! learned and E₂ starts at zero.
//!
//! ℓ is computed from the state and E without a gradient. The probabilities softmax(ℓ + b) are
//! computed for a chunk of positions at a time, and recomputed in the backward pass. No V-wide
//! tensor thus covers all positions ([`flm_ops::soft_rows`]).

use crate::mode::{Mode, SoftKeys};
use crate::{ConfigError, DitConfig, init};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, backend::Backend};
use std::sync::Arc;

/// Number of points in the table of r over τ.
const POINTS: usize = 1024;
/// The maximum of r. Beyond it, one token has all the evidence.
const LARGEST: f64 = 30.0;

/// Evidence as a second input of the network.
#[derive(Module, Debug)]
pub struct Evidence<B: Backend> {
    /// E₂, `[vocabulary, width]`.
    embedding: Param<Tensor<B, 2>>,
    /// b, `[vocabulary]`.
    bias: Param<Tensor<B, 1>>,
    /// r at τ = 0, 1/(POINTS − 1), …, 1.
    #[module(skip)]
    ratios: Arc<[f32]>,
}

impl<B: Backend> Evidence<B> {
    /// Creates the evidence for a network of these sizes, with zero output at the start.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Schedule`] for fewer than two tokens.
    pub(crate) fn new(config: &DitConfig, device: &B::Device) -> Result<Self, ConfigError> {
        let schedule = config.schedule()?;
        let ratio = |point: usize| {
            let t = schedule.t_of_tau(point as f64 / (POINTS - 1) as f64);
            (t / (1.0 - t)).min(LARGEST) as f32
        };
        Ok(Self {
            embedding: init::zeros([config.vocab_size, config.width], device),
            bias: init::zeros([config.vocab_size], device),
            ratios: (0..POINTS).map(ratio).collect(),
        })
    }

    /// Returns E₂.
    pub(crate) fn matrix(&self) -> &Param<Tensor<B, 2>> {
        &self.embedding
    }

    /// Returns r for each sequence, `[batch, 1, 1]`.
    pub(crate) fn ratio<M: Mode<B>>(&self, tau: M::Of<1>) -> M::Of<3> {
        let device = M::value(&tau).device();
        let table = Tensor::<B, 1>::from_floats(&*self.ratios, &device);
        let at = M::value(&tau).clone().detach() * (POINTS - 1) as f64;
        let below = at.clone().floor().clamp(0.0, (POINTS - 2) as f64);
        let place: Tensor<B, 1, Int> = below.clone().int();
        let low = table.clone().select(0, place.clone());
        let rise = table.select(0, place + 1) - low.clone();
        let value = low + rise.clone() * (at - below);
        M::along(tau, value, rise * (POINTS - 1) as f64)
    }

    /// Returns the term to add to the state `[batch, length, width]`, for r in `ratio` `[batch, 1
    /// or length, 1]`. At most `numbers` token probabilities are held at once.
    pub(crate) fn read<M: Mode<B>>(
        &self,
        embedding: Tensor<B, 2>,
        state: M::Of<3>,
        ratio: M::Of<3>,
        numbers: usize,
    ) -> M::Of<3> {
        let (reader, basis) = projection(embedding.detach());
        let seen = basis.clone().square().sum_dim(1);
        let weight = Tensor::cat(vec![basis, seen], 1).transpose();
        let [batch, length, width] = M::value(&state).dims();
        let coordinates = M::map(state, |h| {
            let rows = h.detach().reshape([batch * length, width]);
            let [_, seen] = reader.dims();
            flm_ops::matmul(rows, reader.clone()).reshape([batch, length, seen])
        });
        let square = M::times(ratio.clone(), ratio.clone());
        let of_seen = M::map(square.clone(), |x| x.expand([batch, length, 1]) * -0.5);
        let features = M::join(M::times(coordinates, M::sum(ratio, square)), of_seen);
        let rows = M::map(features, |x| {
            let [_, _, features] = x.dims();
            x.reshape([batch * length, features])
        });
        let matrix = self.embedding.val();
        let [_, out] = matrix.dims();
        let keys = SoftKeys {
            weight,
            bias: self.bias.val(),
            matrix,
            numbers,
        };
        M::map(M::soft_rows(rows, keys), |x| {
            x.reshape([batch, length, out])
        })
    }
}

/// Returns K `[width, n]` and an orthonormal Q `[vocabulary, n]` with h·K·Qᵀ = h·(EᵀE)⁻¹Eᵀ
/// for h = xE.
fn projection<B: Backend>(embedding: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let [vocab, width] = embedding.dims();
    let across = embedding.clone().transpose();
    if vocab > width {
        let [_, inverse] = flm_ops::cholesky(flm_ops::matmul(across, embedding.clone()));
        let basis = flm_ops::matmul(embedding, inverse.clone());
        return (inverse, basis);
    }
    // With at most as many tokens as columns, x is fully visible: h·Eᵀ(EEᵀ)⁻¹.
    let [_, inverse] = flm_ops::cholesky(flm_ops::matmul(embedding, across.clone()));
    let whole = flm_ops::matmul(inverse.clone(), inverse.transpose());
    let basis = Tensor::eye(vocab, &whole.device());
    (flm_ops::matmul(across, whole), basis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::{Duals, Values};
    use burn::tensor::Tolerance;
    use burn::tensor::activation::softmax;
    use burn_flex::Flex;
    use flm_ops::dual::Dual;
    use flm_simplex::noise::gaussian;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn drawn<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
        gaussian(
            shape,
            &mut ChaCha8Rng::seed_from_u64(seed),
            &Default::default(),
        )
    }

    /// Evidence with E₂ = I, so its output is the token probabilities, and an embedding
    /// `[vocab, width]`.
    fn evidence(vocab: usize, width: usize) -> (Evidence<Flex>, Tensor<Flex, 2>) {
        let config = DitConfig::new(vocab, 3, 8, 1, 2);
        let mut evidence = Evidence::new(&config, &Default::default()).unwrap();
        evidence.embedding = Param::from_tensor(Tensor::eye(vocab, &Default::default()));
        evidence.bias = Param::from_tensor(drawn([vocab], 1));
        (evidence, drawn([vocab, width], 2))
    }

    /// The token probabilities at each position, computed for two positions at a time.
    fn shares(
        evidence: &Evidence<Flex>,
        embedding: Tensor<Flex, 2>,
        state: Tensor<Flex, 3>,
        ratio: Tensor<Flex, 3>,
    ) -> Tensor<Flex, 2> {
        let [vocab, _] = embedding.dims();
        let read = evidence.read::<Values>(embedding, state, ratio, 2 * vocab);
        read.flatten(0, 1)
    }

    fn close<const D: usize>(found: Tensor<Flex, D>, expected: Tensor<Flex, D>, tolerance: f32) {
        let (found, expected) = (found.into_data(), expected.into_data());
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(tolerance));
    }

    #[test]
    fn it_is_the_posterior_of_each_position_under_the_prior_of_its_bias() {
        // With more columns than tokens, x is fully visible, so the state x itself gives
        // the posterior.
        let (vocab, tau) = (5, 0.4);
        let (evidence, embedding) = evidence(vocab, 8);
        let config = DitConfig::new(vocab, 3, 8, 1, 2);
        let t = config.schedule().unwrap().t_of_tau(tau);
        let x = drawn([2, 3, vocab], 3);
        let state = x.clone().reshape([6, vocab]).matmul(embedding.clone());
        let ratio = evidence.ratio::<Values>(Tensor::full([2], tau, &Default::default()));
        let read = shares(&evidence, embedding, state.reshape([2, 3, 8]), ratio);
        let logits =
            x.reshape([6, vocab]) * (t / (1.0 - t).powi(2)) + evidence.bias.val().unsqueeze();
        // r is interpolated in a table of about a thousand points, and multiplies numbers of
        // order one.
        close(read, softmax(logits, 1), 1e-3);
    }

    #[test]
    fn through_fewer_columns_it_is_the_posterior_of_what_is_seen() {
        let (vocab, width, tau) = (7, 3, 0.3);
        let (evidence, embedding) = evidence(vocab, width);
        let config = DitConfig::new(vocab, 3, 8, 1, 2);
        let t = config.schedule().unwrap().t_of_tau(tau);
        let state = drawn([1, 2, width], 4);
        let ratio = evidence.ratio::<Values>(Tensor::full([1], tau, &Default::default()));
        let read = shares(&evidence, embedding.clone(), state.clone(), ratio);
        // log N(h; t·E_v, (1−t)²EᵀE), computed directly.
        let values = |x: Tensor<Flex, 2>| -> Vec<f64> { x.into_data().iter().collect() };
        let e = nalgebra::DMatrix::from_row_slice(vocab, width, &values(embedding));
        let precision = (e.transpose() * &e).try_inverse().unwrap();
        let h = nalgebra::DMatrix::from_row_slice(2, width, &values(state.reshape([2, width])));
        let bias: Vec<f64> = evidence.bias.val().into_data().iter().collect();
        for position in 0..2 {
            let weights: Vec<f64> = (0..vocab)
                .map(|v| {
                    let d = h.row(position) - e.row(v) * t;
                    let square = (&d * &precision * d.transpose())[(0, 0)];
                    (bias[v] - square / (2.0 * (1.0 - t).powi(2))).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for (v, weight) in weights.iter().enumerate() {
                let found: f32 = read
                    .clone()
                    .slice([position..position + 1, v..v + 1])
                    .into_scalar();
                let expected = weight / total;
                assert!(
                    (f64::from(found) - expected).abs() < 1e-3,
                    "{found} {expected}"
                );
            }
        }
    }

    #[test]
    fn its_tangent_is_a_difference_quotient() {
        let (evidence, embedding) = evidence(6, 4);
        let (state, moves) = (drawn([2, 3, 4], 5), drawn([2, 3, 4], 6));
        let tau = Tensor::<Flex, 1>::from_floats([0.2, 0.55], &Default::default());
        let direction = Tensor::<Flex, 1>::from_floats([1.0, -0.5], &Default::default());
        let dual = |value, tangent| Dual { value, tangent };
        let ratio = evidence.ratio::<Duals>(dual(tau.clone(), direction.clone()));
        let state_dual = Dual {
            value: state.clone(),
            tangent: moves.clone(),
        };
        let found = evidence.read::<Duals>(embedding.clone(), state_dual, ratio, 12);
        let at = |step: f64| {
            let ratio = evidence.ratio::<Values>(tau.clone() + direction.clone() * step);
            let state = state.clone() + moves.clone() * step;
            evidence.read::<Values>(embedding.clone(), state, ratio, 6)
        };
        // Central differences in f32: rounding of 1e-7/2e-4, with steps inside one interval of
        // the table.
        let expected = (at(1e-4) - at(-1e-4)).div_scalar(2e-4);
        close(found.tangent, expected, 2e-2);
        close(found.value, at(0.0), 1e-6);
    }

    #[test]
    fn a_fresh_one_adds_nothing() {
        let config = DitConfig::new(6, 3, 4, 1, 2);
        let evidence = Evidence::<Flex>::new(&config, &Default::default()).unwrap();
        let ratio = evidence.ratio::<Values>(Tensor::full([2], 0.5, &Default::default()));
        let read = evidence.read::<Values>(drawn([6, 4], 2), drawn([2, 3, 4], 3), ratio, 6);
        assert_eq!(read.abs().max().into_scalar(), 0.0);
    }
}
