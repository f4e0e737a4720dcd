//! Times, states, distributions and derivatives of the flow map at pinned pairs of times.

use super::network::predict;
use super::schedule::TIME;
use super::{ANSWER, Parity, Verdict, numbers};
use crate::fixture::flat;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, Dropout, Dual};
use flm_simplex::{flow_map, interpolant};

/// Tolerance for dτ/dt. The reference rounds t and dτ/dt to f32, and the slope changes by about
/// fifty per unit of t.
const SLOPE: f64 = 1e-5;

impl<B: AutodiffBackend> Parity<B> {
    /// Compares a tensor of `flow_map.safetensors`, computed from the other pinned tensors.
    pub(super) fn along_the_map(&self, name: &str) -> Option<Verdict> {
        let file = &self.map_file;
        let expected = || file.values(name);
        let float = |name: &str| file.float::<B::InnerBackend, 3>(name);
        let time = |name: &str| file.float::<B::InnerBackend, 1>(name);
        let found = match name {
            "s" | "t" | "u" => {
                let taus = file.values(&format!("tau_{name}"));
                return Some(numbers(&self.times(&taus), &expected(), TIME));
            }
            "tau_u" => {
                let ends = file.values("tau_s").into_iter().zip(file.values("tau_t"));
                let middle: Vec<f32> = ends.map(|(s, t)| f32::midpoint(s, t)).collect();
                return Some(numbers(&middle, &expected(), TIME));
            }
            "d_tau_d_t_at_s" | "d_tau_d_t_at_t" => {
                let ts = file.values(&name[name.len() - 1..]);
                let slopes = ts
                    .iter()
                    .map(|t| self.schedule.dtau_dt(f64::from(*t)) as f32);
                return Some(numbers(&slopes.collect::<Vec<_>>(), &expected(), SLOPE));
            }
            "semigroup_gamma" => flat(flow_map::semigroup_weights(time("s"), time("u"), time("t"))),
            // The golden file lacks `D_s_at_I_s` and `I_s`. There `velocity_s` is an input.
            "I_s" => flat(self.wide_start()),
            "velocity_s" if file.0.contains_key("I_s") => {
                let way = float("D_s_at_I_s") - float("I_s");
                flat(way / interpolant::broadcast(time("s").neg() + 1.0))
            }
            "velocity_s" => return Some(Verdict::Input),
            "X_su" => self.carried("delta_su", "u")?,
            "X_st" => self.carried("delta_st", "t")?,
            "semigroup_target" => {
                let gamma = interpolant::broadcast(time("semigroup_gamma"));
                let first = self.believed("delta_su")?;
                flat(first * gamma.clone() + float("delta_ut") * (gamma.neg() + 1.0))
            }
            "D_s_at_I_s" | "D_t_at_X_st" | "delta_st" | "delta_su" | "delta_ut" => {
                flat(self.believed(name)?)
            }
            _ => flat(self.derivative(name.strip_prefix("d_delta_")?)?),
        };
        Some(numbers(&found, &expected(), ANSWER))
    }

    fn times(&self, taus: &[f32]) -> Vec<f32> {
        taus.iter()
            .map(|tau| self.schedule.t_of_tau(f64::from(*tau)) as f32)
            .collect()
    }

    /// Returns the projected I_s, interpolated from noise and tokens: the golden file has no I_s.
    fn start<A: Backend>(&self, model: &Dit<A>) -> Tensor<A, 3> {
        interpolant::interpolate(
            model.embed().project(self.expected.float("noise")),
            model.embed().tokens(self.expected.int("tokens")),
            self.map_file.float("s"),
        )
    }

    /// Returns a network's prediction as dense probabilities.
    fn believed(&self, name: &str) -> Option<Tensor<B::InnerBackend, 3>> {
        let file = &self.map_file;
        if name.starts_with("D_") {
            let (state, tau) = match name {
                "D_s_at_I_s" => ("I_s", "tau_s"),
                _ => ("X_st", "tau_t"),
            };
            let denoised = predict(self.flow.as_ref()?, file, state, tau, tau).distribution();
            return Some(denoised.dense().inner());
        }
        let model = self.flow_map.as_ref()?;
        let denoised = match name {
            "delta_ut" => predict(model, file, "X_su", "tau_u", "tau_t").distribution(),
            _ => {
                let end = if name == "delta_su" { "tau_u" } else { "tau_t" };
                let times = ["tau_s", end].map(|name| file.float(name));
                let [tau_s, tau_t] = times;
                model
                    .forward(self.start(model), tau_s, tau_t, &mut Dropout::off())
                    .distribution()
            }
        };
        Some(denoised.dense().inner())
    }

    /// Returns I_s, `[batch, length, vocabulary]`.
    fn wide_start(&self) -> Tensor<B::InnerBackend, 3> {
        let noise = self.expected.float::<B::InnerBackend, 3>("noise");
        let [.., vocabulary] = noise.dims();
        let tokens = self.expected.int::<B::InnerBackend, 2>("tokens");
        let clean = tokens.one_hot::<3>(vocabulary).float();
        interpolant::interpolate(noise, clean, self.map_file.float("s"))
    }

    /// Returns X at the time named `end`, `[batch, length, vocabulary]`.
    fn carried(&self, delta: &str, end: &str) -> Option<Vec<f32>> {
        let file = &self.map_file;
        let denoised = self.believed(delta)?;
        Some(flat(flow_map::transport(
            self.wide_start(),
            denoised,
            file.float("s"),
            file.float(end),
        )))
    }

    /// Returns the derivative of δ_{s,t} at I_s along one of the times or along the velocity.
    fn derivative(&self, along: &str) -> Option<Tensor<B, 3>> {
        let file = &self.map_file;
        let model = self.flow_map.as_ref()?;
        let state = self.start(model);
        let [tau_s, tau_t] = ["tau_s", "tau_t"].map(|name| file.float::<B, 1>(name));
        let (still, zero, one) = (state.zeros_like(), tau_s.zeros_like(), tau_s.ones_like());
        let (direction, by_s, by_t) = match along {
            "d_tau_s" => (still, one, zero),
            "d_tau_t" => (still, zero, one),
            "along_velocity" => {
                let velocity = model.embed().project(file.float("velocity_s"));
                (velocity, zero.clone(), zero)
            }
            _ => return None,
        };
        let dual = |value, tangent| Dual { value, tangent };
        let state = Dual {
            value: state,
            tangent: direction,
        };
        let jvp = model.jvp(state, dual(tau_s, by_s), dual(tau_t, by_t));
        Some(jvp.dense().tangent)
    }
}
