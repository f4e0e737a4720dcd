//! The flow's own objective: cross-entropy of D_τ(I_t) against the tokens.

use crate::cost;
use crate::losses::{RowLosses, mean_of};
use crate::rows::{TimeRow, diagonal_rows};
use crate::state::RowTimes;
use burn::tensor::{Int, Tensor, backend::AutodiffBackend};
use flm_denoiser::{Dit, Dropout, Noise};
use flm_simplex::Schedule;
use rand::Rng;

/// Trains a denoiser of the interpolant I_t = (1−t)x₀ + t·x₁.
#[derive(Clone, Debug)]
pub struct FlowObjective {
    schedule: Schedule,
}

impl FlowObjective {
    /// The objective under the model's time schedule (`DitConfig::schedule`).
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule }
    }

    /// Times for a whole batch, stratified in τ.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<TimeRow> {
        diagonal_rows(batch, rng)
    }

    /// What a step of `batch` rows costs, in evaluations of the network.
    pub fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * cost::TRAINED
    }

    /// Losses of `tokens` `[batch, length]` at the given times.
    pub fn losses<A: AutodiffBackend>(
        &self,
        model: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        noise: &Noise<A::InnerBackend>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> RowLosses<A> {
        let (shape, device) = (tokens.dims(), tokens.device());
        let times = RowTimes::<A>::of(rows, &self.schedule, &device);
        let state = noise.interpolate(model.embed(), tokens.clone(), times.s);
        let prediction = model.forward(state, times.tau_s, times.tau_t, dropout);
        let score = prediction.cross_entropy(tokens, mean_of(shape, shape[0], &device));
        RowLosses {
            mean: score.loss,
            per_token: score.per_token,
            kinds: rows.iter().map(|row| row.kind).collect(),
        }
    }
}
