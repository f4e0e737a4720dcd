//! Predictions of the networks, and gradients of the flow's loss.

use super::{ANSWER, Parity, Verdict, numbers};
use crate::fixture::{Fixture, flat};
use crate::gradients::named_gradients;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, Dropout, Prediction, Score};
use flm_simplex::interpolant::interpolate;

/// Returns the prediction for the named state, `[batch, length, vocabulary]`, and the named times.
pub(super) fn predict<B: Backend>(
    model: &Dit<B>,
    file: &Fixture,
    state: &str,
    tau_s: &str,
    tau_t: &str,
) -> Prediction<B> {
    let projected = model.embed().project(file.float(state));
    let times = [tau_s, tau_t].map(|name| file.float(name));
    let [tau_s, tau_t] = times;
    model.forward(projected, tau_s, tau_t, &mut Dropout::off())
}

impl<B: AutodiffBackend> Parity<B> {
    /// Returns the flow's prediction for the noisy tokens.
    fn of_flow(&self) -> Option<Prediction<B>> {
        let flow = self.flow.as_ref()?;
        Some(predict(flow, &self.expected, "x_t", "tau", "tau"))
    }

    /// Returns the flow's cross-entropy against the tokens.
    fn flow_loss(&self) -> Option<Score<B>> {
        let tokens = self.expected.int::<B, 2>("tokens");
        let [batch, length] = tokens.dims();
        let mean = Tensor::full(
            [batch, length],
            1.0 / (batch * length) as f64,
            &Default::default(),
        );
        Some(self.of_flow()?.cross_entropy(tokens, mean))
    }

    /// Compares a network's prediction, or one of its inputs.
    pub(super) fn answer(&self, name: &str) -> Option<Verdict> {
        let file = &self.expected;
        let found = match name {
            "t" => {
                let taus = file.values("tau");
                let ts = taus
                    .iter()
                    .map(|tau| self.schedule.t_of_tau(f64::from(*tau)));
                let found: Vec<f32> = ts.map(|t| t as f32).collect();
                return Some(numbers(&found, &file.values(name), super::schedule::TIME));
            }
            "x_t" => {
                let noise = file.float::<B::InnerBackend, 3>("noise");
                let [.., vocabulary] = noise.dims();
                let tokens = file.int::<B::InnerBackend, 2>("tokens");
                let clean = tokens.one_hot::<3>(vocabulary).float();
                flat(interpolate(noise, clean, file.float("t")))
            }
            "flm_logits" => flat(self.of_flow()?.dense_logits()),
            "flm_log_probs" => flat(self.of_flow()?.dense_log_probs()),
            "flm_loss_per_token" => flat(self.flow_loss()?.per_token),
            "fmlm_log_probs" => {
                let model = self.flow_map.as_ref()?;
                let answer = predict(model, file, "x_t", "pair_tau_s", "pair_tau_t");
                flat(answer.dense_log_probs())
            }
            _ => return None,
        };
        Some(numbers(&found, &file.values(name), ANSWER))
    }

    /// Compares a gradient of the flow's mean loss.
    pub(super) fn gradient(&self, name: &str) -> Option<Verdict> {
        let parameter = name.strip_prefix("flm_grad.")?;
        let gradients = named_gradients(self.flow.as_ref()?, self.flow_loss()?.loss);
        let found = gradients
            .iter()
            .find(|gradient| gradient.name == parameter)?;
        Some(numbers(&found.values, &self.expected.values(name), ANSWER))
    }
}
