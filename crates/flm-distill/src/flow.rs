//! The flow's own objective: cross-entropy of D_τ(I_t) against the tokens.

use crate::cost;
use crate::losses::{RowLosses, mean_of};
use crate::rows::{TimeRow, diagonal_rows};
use crate::state::RowTimes;
use burn::tensor::{Bool, Int, Tensor, TensorData, backend::AutodiffBackend};
use flm_denoiser::{Dit, Dropout, Noise};
use flm_simplex::Schedule;
use rand::Rng;

/// Trains a denoiser of the interpolant I_t = (1−t)x₀ + t·x₁.
#[derive(Clone, Debug)]
pub struct FlowObjective {
    schedule: Schedule,
    conditioning: f64,
}

impl FlowObjective {
    /// The objective under the model's time schedule (`DitConfig::schedule`).
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            conditioning: 0.0,
        }
    }

    /// The same with some positions of a row known, with this chance of a row ([`known_positions`](crate::known_positions)).
    pub fn with_conditioning(self, chance: f64) -> Self {
        Self {
            conditioning: chance,
            ..self
        }
    }

    /// The chance of a row to have some positions known.
    pub fn conditioning(&self) -> f64 {
        self.conditioning
    }

    /// Times for a whole batch, stratified in τ.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<TimeRow> {
        diagonal_rows(batch, rng)
    }

    /// What a step of `batch` rows costs, in evaluations of the network.
    pub fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * cost::TRAINED
    }

    /// Losses of `tokens` `[batch, length]` at the given times, of which nothing is known.
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

    /// The same where some positions are `known`, row by row: the network sees them clean, at time 1, and nothing is asked about them. Their loss is zero
    /// in the mean over all tokens, so a batch of which more is known pulls less.
    ///
    /// # Panics
    ///
    /// If `known` is not as long as the tokens.
    pub fn losses_given<A: AutodiffBackend>(
        &self,
        model: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        known: &[bool],
        noise: &Noise<A::InnerBackend>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> RowLosses<A> {
        let (shape, device) = (tokens.dims(), tokens.device());
        let times = RowTimes::<A>::of(rows, &self.schedule, &device);
        let known = TensorData::new(known.to_vec(), shape);
        let known = Tensor::<A, 2, Bool>::from_data(known, &device);
        let clean = model.embed().tokens(tokens.clone());
        let held = known.clone().unsqueeze_dim::<3>(2).expand(clean.dims());
        let noisy = noise.interpolate(model.embed(), tokens.clone(), times.s);
        let state = noisy.mask_where(held, clean);
        let prediction =
            model.forward_given(state, times.tau_s, times.tau_t, known.clone(), dropout);
        let asked = known.bool_not().float().inner();
        let weights = mean_of(shape, shape[0], &device) * asked.clone();
        let score = prediction.cross_entropy(tokens, weights);
        RowLosses {
            mean: score.loss,
            per_token: score.per_token * asked,
            kinds: rows.iter().map(|row| row.kind).collect(),
        }
    }
}
