//! The flow's own objective: cross-entropy of D_τ(I_t) against the tokens.

use crate::losses::RowLosses;
use crate::rows::{TimeRow, diagonal_rows};
use crate::state::RowTimes;
use burn::tensor::{Int, Tensor, backend::Backend};
use flm_denoiser::{Dit, Dropout, Noise};
use flm_simplex::{Schedule, interpolant::interpolate};
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

    /// Losses of `tokens` `[batch, length]` at the given times, one for each sequence.
    pub fn losses<B: Backend>(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        noise: Noise<B>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> RowLosses<B> {
        let times = RowTimes::<B>::of(rows, &self.schedule, &tokens.device());
        let state = interpolate(
            model.embed().noise(noise),
            model.embed().tokens(tokens.clone()),
            times.s,
        );
        let prediction = model.forward(state, times.tau_s, times.tau_t, dropout);
        RowLosses {
            per_token: prediction.cross_entropy(tokens),
            kinds: rows.iter().map(|row| row.kind).collect(),
        }
    }
}
