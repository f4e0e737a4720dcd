//! The times of a batch as tensors.

use crate::rows::TimeRow;
use burn::tensor::{Tensor, backend::Backend};
use flm_simplex::{Schedule, interpolant::rows};

/// The times of each row, `[batch]`: τ for the network, t for the geometry.
#[derive(Clone, Debug)]
pub(crate) struct RowTimes<B: Backend> {
    pub(crate) tau_s: Tensor<B, 1>,
    pub(crate) tau_u: Tensor<B, 1>,
    pub(crate) tau_t: Tensor<B, 1>,
    pub(crate) s: Tensor<B, 1>,
    pub(crate) u: Tensor<B, 1>,
    pub(crate) t: Tensor<B, 1>,
    /// dτ/dt at s and at t.
    pub(crate) speed_s: Tensor<B, 1>,
    pub(crate) speed_t: Tensor<B, 1>,
}

impl<B: Backend> RowTimes<B> {
    pub(crate) fn of(times: &[TimeRow], schedule: &Schedule, device: &B::Device) -> Self {
        let tau = |f: fn(&TimeRow) -> f64| times.iter().map(f).collect::<Vec<f64>>();
        let (tau_s, tau_u, tau_t) = (
            tau(|row| row.tau_s),
            tau(|row| row.tau_u),
            tau(|row| row.tau_t),
        );
        let [s, u, t] = [&tau_s, &tau_u, &tau_t].map(|taus| schedule.ts_of_taus(taus));
        Self {
            speed_s: rows(&schedule.dtau_dts(&s), device),
            speed_t: rows(&schedule.dtau_dts(&t), device),
            s: rows(&s, device),
            u: rows(&u, device),
            t: rows(&t, device),
            tau_s: rows(&tau_s, device),
            tau_u: rows(&tau_u, device),
            tau_t: rows(&tau_t, device),
        }
    }
}
