//! The network as a denoiser of projected states, for the samplers of `flm_simplex`.

use crate::{Dit, Dropout, TokenDistribution, VocabEmbed};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use flm_simplex::Denoiser;
use flm_simplex::stream::generator;

/// An error for an invalid temperature.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a temperature must be positive and finite, found {found}")]
pub struct TemperatureError {
    /// The given value.
    pub found: f64,
}

impl TemperatureError {
    /// Returns the temperature if it is valid.
    ///
    /// # Errors
    ///
    /// [`TemperatureError`] if it is not positive and finite.
    pub fn check(temperature: f64) -> Result<f64, Self> {
        if temperature.is_finite() && temperature > 0.0 {
            Ok(temperature)
        } else {
            Err(Self { found: temperature })
        }
    }
}

/// Dropout in sampling, which gives the weak network of
/// autoguidance ([`Autoguidance`](flm_simplex::guidance::Autoguidance)).
///
/// The mask depends only on the seed, the times of an evaluation and the index of a sample. It does
/// not depend on the other samples of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutGuidance {
    /// Dropout probability of each entry of a residual branch, in [0, 1).
    pub rate: f64,
    /// The seed, common to all samples.
    pub seed: u64,
    /// The purpose of the generators ([`generator`]).
    pub purpose: u64,
    /// The index of the first sample of the batch.
    pub first: usize,
}

/// A [`Dit`] on projected states h = xE, without dropout unless it is [weakened](Self::weakened).
///
/// Samplers on h draw the same samples as samplers on x, from states V/d times smaller
/// (`mathematics.md`, section 6). Start them from noise as the network sees it
/// ([`Prior`](crate::Prior)) and give them fresh noise of the same kind. Use a one-time network
/// with [`euler`](flm_simplex::sampler::euler) and a two-time network
/// with [`flow_map`](flm_simplex::sampler::flow_map).
///
/// ```
/// use burn_flex::Flex;
/// use flm_denoiser::{DitConfig, Prior, SamplingDenoiser};
/// use flm_simplex::sampler;
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let config = DitConfig::new(27, 16, 32, 1, 2);
/// let dit = config.init::<Flex>(&mut rng, &Default::default())?;
/// let start = Prior::new(dit.embed()).draw(3, 16, &mut rng).seen(dit.embed());
/// let distribution = sampler::euler(&SamplingDenoiser::new(&dit), &config.schedule()?, start, 4, |_| ())?;
/// assert_eq!(distribution.argmax().dims(), [3, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SamplingDenoiser<'a, B: Backend> {
    model: &'a Dit<B>,
    temperature: f64,
    nucleus: f64,
    weakness: Option<DropoutGuidance>,
    within: Option<Within<'a, B>>,
    known: Option<Known<B>>,
}

/// The part of a wider state that this network sees.
#[derive(Debug)]
struct Within<'a, B: Backend> {
    /// The first column of that part.
    first: usize,
    /// The embedding of the whole state.
    embed: &'a VocabEmbed<B>,
}

/// Known, noise-free positions.
#[derive(Debug)]
struct Known<B: Backend> {
    /// `[batch, length]`.
    here: Tensor<B, 2, Bool>,
    /// Their state, `[batch, length, width]`.
    state: Tensor<B, 3>,
}

impl<'a, B: Backend> SamplingDenoiser<'a, B> {
    /// Creates a denoiser at temperature 1, as in training.
    pub fn new(model: &'a Dit<B>) -> Self {
        Self {
            model,
            temperature: 1.0,
            nucleus: 1.0,
            weakness: None,
            within: None,
            known: None,
        }
    }

    /// Fixes the positions where `known` `[batch, length]` is true to `tokens` `[batch, length]`.
    ///
    /// The network sees these positions clean and at time 1, whatever state the sampler has there
    /// ([`Dit::forward_given`]). The network must be trained for it (`DitConfig::conditioning`).
    /// For other networks, use [`Pinned`](flm_simplex::Pinned).
    pub fn knowing(self, known: Tensor<B, 2, Bool>, tokens: Tensor<B, 2, Int>) -> Self {
        let known = Known {
            here: known,
            state: self.model.embed().tokens(tokens),
        };
        Self {
            known: Some(known),
            ..self
        }
    }

    /// Sets the temperature: distributions are a softmax of logits/`temperature`, so values below 1
    /// favor likely tokens.
    ///
    /// # Errors
    ///
    /// [`TemperatureError`] if the temperature is not positive and finite.
    pub fn at_temperature(self, temperature: f64) -> Result<Self, TemperatureError> {
        let temperature = TemperatureError::check(temperature)?;
        Ok(Self {
            temperature,
            ..self
        })
    }

    /// Restricts distributions to a nucleus of probability `nucleus`
    /// ([`TokenDistribution::within`]); 1 keeps all tokens.
    pub fn within_nucleus(self, nucleus: f64) -> Self {
        Self { nucleus, ..self }
    }

    /// Enables dropout.
    pub fn weakened(self, weakness: DropoutGuidance) -> Self {
        Self {
            weakness: Some(weakness),
            ..self
        }
    }

    /// Sets wider states, embedded by `embed`, of which this network sees its own columns from
    /// `first` on.
    ///
    /// Two networks can thus share a sampler. Let `embed` be both embeddings [side by
    /// side](VocabEmbed::beside), and each network sees its own part of the same x.
    pub fn within_states(self, first: usize, embed: &'a VocabEmbed<B>) -> Self {
        Self {
            within: Some(Within { first, embed }),
            ..self
        }
    }

    /// Returns the part of a state that the network sees.
    fn seen(&self, state: Tensor<B, 3>) -> Tensor<B, 3> {
        let [_, width] = self.model.embed().embedding.dims();
        match &self.within {
            Some(within) => state.narrow(2, within.first, width),
            None => state,
        }
    }
}

impl<B: Backend> Denoiser<B> for SamplingDenoiser<'_, B> {
    type TokenDistribution = TokenDistribution<B>;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> TokenDistribution<B> {
        self.denoise_after(None, state, tau_s, tau_t)
    }

    /// With known positions, `earlier` is ignored, because no network is trained on both.
    fn denoise_after(
        &self,
        earlier: Option<&TokenDistribution<B>>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> TokenDistribution<B> {
        let ([batch, ..], device) = (state.dims(), state.device());
        let row = |tau: f64| Tensor::full([batch], tau, &device);
        let weakness = self.weakness.map(|weakness| {
            let times = [tau_s, tau_t].map(f64::to_bits);
            let rng = generator(weakness.seed, weakness.purpose, times[0], times[1]);
            (weakness, rng)
        });
        let (weakness, mut rng) = weakness.unzip();
        let mut dropout = match (weakness, &mut rng) {
            (Some(weakness), Some(rng)) => {
                Dropout::on(weakness.rate, rng).starting_at(weakness.first)
            }
            _ => Dropout::off(),
        };
        let (tau_s, tau_t) = (row(tau_s), row(tau_t));
        let state = self.seen(state);
        let prediction = match &self.known {
            None => {
                let earlier = earlier.filter(|_| self.model.hears_earlier());
                let earlier = earlier.map(|denoised| denoised.mean(self.model.embed()));
                self.model
                    .forward_after(earlier, state, tau_s, tau_t, &mut dropout)
            }
            Some(known) => {
                let here = known.here.clone();
                let held = here.clone().unsqueeze_dim::<3>(2).expand(state.dims());
                let state = state.mask_where(held, known.state.clone());
                self.model
                    .forward_given(state, tau_s, tau_t, here, &mut dropout)
            }
        };
        let denoised = prediction.distribution_at(self.temperature);
        denoised.within(self.nucleus)
    }

    fn mean(&self, denoised: &TokenDistribution<B>) -> Tensor<B, 3> {
        let embed = self.within.as_ref().map(|within| within.embed);
        denoised.mean(embed.unwrap_or(self.model.embed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DitConfig, apply_tensors, named_tensors};
    use burn::tensor::Tolerance;
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    /// A network with all parameters random, so that all of them take part.
    fn loud(two_time: bool) -> Dit<Flex> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let config = DitConfig::new(11, 5, 16, 1, 2).with_two_time(two_time);
        let model = config.init::<Flex>(&mut rng, &Default::default()).unwrap();
        let mut tensors = named_tensors(&model);
        for tensor in &mut tensors {
            tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
        }
        apply_tensors(model, Path::new("drawn"), tensors).unwrap()
    }

    fn state(batch: usize) -> Tensor<Flex, 3> {
        flm_simplex::noise::gaussian(
            [batch, 5, 16],
            &mut ChaCha8Rng::seed_from_u64(8),
            &Default::default(),
        )
    }

    #[test]
    fn times_reach_every_row_and_the_mean_is_projected() {
        let model = loud(true);
        let sampling = SamplingDenoiser::new(&model);
        let denoised = sampling.denoise(state(3), 0.25, 0.75);
        let row = |taus: [f32; 3]| Tensor::from_floats(taus, &Default::default());
        let direct = |s, t| {
            model
                .forward(state(3), row(s), row(t), &mut Dropout::off())
                .distribution()
                .dense()
        };
        let expected = direct([0.25; 3], [0.75; 3]);
        denoised
            .dense()
            .into_data()
            .assert_eq(&expected.into_data(), true);
        // The times matter: swapping them changes the output.
        let exchanged = direct([0.75; 3], [0.25; 3]);
        let change: f32 = (denoised.dense() - exchanged).abs().max().into_scalar();
        assert!(change > 1e-3, "{change}");
        let mean = denoised
            .dense()
            .matmul(model.embed().embedding.val().unsqueeze());
        // f32 sums of eleven products.
        let tolerance = Tolerance::relative(1e-5).set_absolute(1e-6);
        sampling
            .mean(&denoised)
            .into_data()
            .assert_approx_eq::<f32>(&mean.into_data(), tolerance);
    }

    #[test]
    fn what_is_known_is_seen_clean_whatever_is_carried_there() {
        let model = loud(true);
        let (device, ids) = (Default::default(), [[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]]);
        let known = [[1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0]];
        let known = || Tensor::<Flex, 2>::from_floats(known, &device).bool();
        let tokens = Tensor::<Flex, 2, Int>::from_ints(ids, &device);
        let sampling = SamplingDenoiser::new(&model).knowing(known(), tokens.clone());
        let found = sampling.denoise(state(2), 0.25, 0.75).dense();
        let held = known().unsqueeze_dim::<3>(2).expand([2, 5, 16]);
        let clean = state(2).mask_where(held.clone(), model.embed().tokens(tokens));
        let row = |tau: f64| Tensor::full([2], tau, &device);
        let off = &mut Dropout::off();
        let expected = model.forward_given(clean, row(0.25), row(0.75), known(), off);
        let expected = expected.distribution().dense().into_data();
        found.into_data().assert_eq(&expected, true);
        let other = state(2).mask_fill(held, 100.0);
        let again = sampling.denoise(other, 0.25, 0.75).dense().into_data();
        again.assert_eq(&expected, true);
    }

    #[test]
    fn temperature_divides_the_logits() {
        let model = loud(false);
        let warm = SamplingDenoiser::new(&model)
            .denoise(state(1), 0.5, 0.5)
            .dense();
        let cold = SamplingDenoiser::new(&model)
            .at_temperature(0.5)
            .unwrap()
            .denoise(state(1), 0.5, 0.5)
            .dense();
        // softmax(2x) is the normalized square of softmax(x).
        let square = warm.powi_scalar(2);
        let expected = square.clone() / square.sum_dim(2);
        cold.into_data().assert_approx_eq::<f32>(
            &expected.into_data(),
            Tolerance::relative(1e-4).set_absolute(1e-7),
        );
    }

    #[test]
    fn impossible_temperatures_are_refused() {
        let model = loud(false);
        for found in [0.0, -1.0, f64::INFINITY] {
            let error = SamplingDenoiser::new(&model)
                .at_temperature(found)
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a temperature must be positive and finite, found {found}")
            );
        }
        assert!(
            SamplingDenoiser::new(&model)
                .at_temperature(f64::NAN)
                .is_err()
        );
    }
}
