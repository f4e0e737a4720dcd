//! Gradient steps on states towards a higher reward.

use crate::Reward;
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::{Dit, Dropout, Expected, TemperatureError, VocabEmbed};
use flm_simplex::guidance::Steer;

/// A gradient step on the reward of the predicted end, h ← h + λ·∇_h r(δ_{t,1}(h))·(EᵀE).
///
/// A step costs a forward pass and a backward pass. For a one-time network the look-ahead is its
/// denoiser D_t.
#[derive(Debug)]
pub struct Ascent<A: AutodiffBackend, R> {
    model: Dit<A>,
    reward: R,
    scale: f64,
    temperature: f64,
    vectors: Tensor<A::InnerBackend, 2>,
    /// Eᵀ·(embedding of the states), which maps a gradient of the network's input to a move of the
    /// whole state.
    metric: Tensor<A::InnerBackend, 2>,
}

impl<A: AutodiffBackend, R: Reward<A>> Ascent<A, R> {
    /// Creates a step with λ = `scale` and the look-ahead of `model`.
    ///
    /// `states` is the embedding of the states: that of the network, or several
    /// [concatenated](VocabEmbed::beside) with the network's first.
    pub fn new(
        model: &Dit<A::InnerBackend>,
        states: &VocabEmbed<A::InnerBackend>,
        reward: R,
        scale: f64,
    ) -> Self {
        let embedding = model.embed().embedding.val();
        Self {
            model: Dit::from_inner(model.clone()).no_grad(),
            vectors: reward.vectors(),
            reward,
            scale,
            temperature: 1.0,
            metric: embedding.transpose().matmul(states.embedding.val()),
        }
    }

    /// Sets the temperature of the look-ahead.
    ///
    /// # Errors
    ///
    /// [`TemperatureError`] if it is not positive and finite.
    pub fn at_temperature(self, temperature: f64) -> Result<Self, TemperatureError> {
        let temperature = TemperatureError::check(temperature)?;
        Ok(Self {
            temperature,
            ..self
        })
    }

    /// Returns the reward of each sequence, `[batch]`, for a state at network time `tau`, and its
    /// gradient with respect to the network's input, `[batch, length, width]`.
    pub fn look_ahead(
        &self,
        state: Tensor<A::InnerBackend, 3>,
        tau: f64,
    ) -> (Tensor<A::InnerBackend, 1>, Tensor<A::InnerBackend, 3>) {
        let ([batch, ..], [width, _]) = (state.dims(), self.metric.dims());
        let row = |tau: f64| Tensor::full([batch], tau, &state.device());
        let seen = Tensor::<A, 3>::from_inner(state.clone().narrow(2, 0, width)).require_grad();
        let (now, end) = (row(tau), row(1.0));
        let prediction = (self.model).forward(seen.clone(), now, end, &mut Dropout::off());
        let score = |means| self.reward.of(means);
        let Expected { total, of_each } =
            prediction.expected(&self.vectors, self.temperature, score);
        let gradient = seen.grad(&total.backward());
        let gradient = gradient.unwrap_or_else(|| seen.inner().zeros_like());
        (of_each, gradient)
    }
}

impl<A: AutodiffBackend, R: Reward<A>> Steer<A::InnerBackend> for Ascent<A, R> {
    fn steer(&self, state: Tensor<A::InnerBackend, 3>, tau: f64) -> Tensor<A::InnerBackend, 3> {
        let (_, gradient) = self.look_ahead(state.clone(), tau);
        let metric = self.metric.clone().unsqueeze();
        state + gradient.matmul(metric) * self.scale
    }
}
