//! The residual recipe of the paper's first version: a second network added to a frozen denoiser,
//! then one network distilled from both.
//!
//! X_{s,t}(x) = x + (t−s)·b_s(x) + ½(t−s)²·g_{s,t}(x), see [`flm_denoiser::Residual`].
//! [`ResidualObjective`] trains g. [`ResidualStudent`] trains a flow map of one network with the
//! same endpoints.

mod jump;
mod student;

pub use student::ResidualStudent;

use crate::losses::mean_of;
use crate::rows::{RowKind, TimeRow, kinds, on_clock};
use crate::state::RowTimes;
use crate::weighting::Weighting;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise, Prior, TokenDistribution};
use flm_objective::{Inner, Losses, Objective, StepSize, TRAINED, TrainingStep};
use flm_simplex::Schedule;
use flm_simplex::interpolant::{interpolate, rows};
use jump::Jump;
use rand::{Rng, RngExt};

/// Trains the second network, g, so that two half jumps equal a whole one.
///
/// The loss of a token is Σ_V (sg\[x + (1−s)·b̂\] − D_s − ½(t−s)(1−s)·g_{s,t})², where b̂ is the
/// average velocity along the way from s over u to t (`mathematics.md`, section 4).
///
/// The state x cancels (`residual/jump.rs`). Only network answers are V wide, and the head computes
/// them a run of positions at a time.
#[derive(Clone, Debug)]
pub struct ResidualObjective<B: Backend> {
    schedule: Schedule,
    denoiser: Dit<B>,
}

/// The probability that a training row of g spans the whole way from 0 to 1.
const BOUNDARY: f64 = 1.0 / 64.0;

/// The shortest jump, in τ.
const SHORTEST: f64 = 1e-6;

/// Draws the times of a batch, each row independently. A row spans the whole way with probability
/// `boundary`. Otherwise its width is w = max(U, 1e-6), starting at τ_s = U′·(1−w).
fn residual_rows<R: Rng + ?Sized>(batch: usize, boundary: f64, rng: &mut R) -> Vec<TimeRow> {
    (0..batch)
        .map(|_| {
            let [width, place, edge]: [f64; 3] = rng.random();
            if edge < boundary {
                return TimeRow::span(RowKind::Boundary, 0.0, 1.0);
            }
            let width = width.max(SHORTEST);
            let tau_s = place * (1.0 - width);
            TimeRow::span(RowKind::OffDiagonal, tau_s, (tau_s + width).min(1.0))
        })
        .collect()
}

impl<B: Backend> ResidualObjective<B> {
    /// Creates the objective; `schedule` is that of both networks (`DitConfig::schedule`).
    pub fn new(schedule: Schedule, denoiser: Dit<B>) -> Self {
        Self { schedule, denoiser }
    }

    /// Draws the times of a whole batch.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<TimeRow> {
        on_clock(residual_rows(batch, BOUNDARY, rng), self.schedule.clock())
    }

    /// Returns the losses of `tokens` `[batch, length]` at the given times for g, the network in
    /// training.
    pub fn score<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        second: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        noise: &Noise<B>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (shape, plain) = (tokens.dims(), tokens.clone().inner());
        let device = plain.device();
        let times = RowTimes::<A>::of(rows, &self.schedule, &tokens.device());
        let state = noise.interpolate(second.embed(), tokens, times.s);
        let jumps = Jump::of_rows(rows, &self.schedule);
        let target = self.target(
            &second.valid(),
            state.clone().inner(),
            (plain, noise),
            rows,
            &jumps,
        );
        let weighting = Weighting::of(second, times.tau_s.clone());
        let answer = second.forward(state, times.tau_s, times.tau_t, dropout);
        let scale = column(&jumps, |jump| jump.scale, &device);
        let score = weighting.score(mean_of(shape, shape[0], &device), |weights| {
            answer.squared_output_error(&target, scale, weights)
        });
        Losses::new(score.loss, score.per_token, kinds(rows))
    }

    /// Returns the target of `scale`·g_{s,t}, from the current g at `state`, I_s as g sees it.
    fn target(
        &self,
        second: &Dit<B>,
        state: Tensor<B, 3>,
        (tokens, noise): (Tensor<B, 2, Int>, &Noise<B>),
        rows: &[TimeRow],
        jumps: &[Jump],
    ) -> TokenDistribution<B> {
        let device = state.device();
        let (denoiser, column) = (&self.denoiser, |of| column(jumps, of, &device));
        let times = RowTimes::<B>::of(rows, &self.schedule, &device);
        let (tau_s, tau_u, tau_t) = (times.tau_s, times.tau_u, times.tau_t);
        let mut off = Dropout::off();
        let embed = denoiser.embed();
        let seen = interpolate(noise.seen_by_teacher(embed), embed.tokens(tokens), times.s);
        let clean = denoiser
            .forward(seen.clone(), tau_s.clone(), tau_s.clone(), &mut off)
            .distribution();
        let first = second
            .forward(state.clone(), tau_s, tau_u.clone(), &mut off)
            .outputs();
        // X_{s,u} as each network sees it.
        let kept = column(|jump| 1.0 - jump.share);
        let moved = clean
            .clone()
            .scaled(column(|jump| jump.share))
            .plus(first.clone(), column(|jump| jump.bend));
        let keep = |state: Tensor<B, 3>| state * kept.clone().reshape([-1, 1, 1]);
        let middle = keep(seen) + moved.mean(embed);
        let there = denoiser
            .forward(middle, tau_u.clone(), tau_u.clone(), &mut off)
            .distribution();
        let middle = keep(state) + moved.mean(second.embed());
        let last = second.forward(middle, tau_u, tau_t, &mut off).outputs();
        clean
            .scaled(column(|jump| jump.clean))
            .plus(there, column(|jump| jump.there))
            .plus(first, column(|jump| jump.first))
            .plus(last, column(|jump| jump.last))
    }
}

impl<B: AutodiffBackend> Objective<B> for ResidualObjective<B::InnerBackend> {
    type Network = Dit<B>;
    type Shared = Prior<B::InnerBackend>;

    fn shared(&self, network: &Inner<B, Dit<B>>, size: StepSize) -> Self::Shared {
        let denoiser = Some(self.denoiser.embed());
        Prior::for_training(network.embed(), denoiser, size.tokens, size.parts)
    }

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let rows = step.share(&self.rows(step.batch, &mut step.times()));
        let noise = step.noise(tokens.dims());
        step.with_dropout(|dropout| self.score(network, tokens, &noise, &rows, dropout))
    }

    /// A forward and a backward pass of g, and each network twice for the target.
    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * (TRAINED + 4.0)
    }
}

/// Returns one number of each jump, `[rows]`.
fn column<B: Backend>(jumps: &[Jump], of: fn(&Jump) -> f64, device: &B::Device) -> Tensor<B, 1> {
    rows(&jumps.iter().map(of).collect::<Vec<f64>>(), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn rows_are_drawn_by_the_distribution_of_the_recipe() {
        let (batch, boundary) = (40_000, 1.0 / 64.0);
        let rows = residual_rows(batch, boundary, &mut ChaCha8Rng::seed_from_u64(1));
        let (edges, others): (Vec<&TimeRow>, Vec<&TimeRow>) =
            rows.iter().partition(|row| row.kind == RowKind::Boundary);
        // Five standard deviations of a count: false alarm about 6e-7, here and below.
        let expected = batch as f64 * boundary;
        assert!((edges.len() as f64 - expected).abs() < 5.0 * expected.sqrt());
        assert!(
            edges
                .iter()
                .all(|row| (row.tau_s, row.tau_u, row.tau_t) == (0.0, 0.5, 1.0))
        );
        let count: f64 = others.len() as f64;
        let mean = |f: fn(&TimeRow) -> f64| others.iter().map(|row| f(row)).sum::<f64>() / count;
        let error = 5.0 * (1.0 / 12.0 / count).sqrt();
        assert!((mean(|row| row.tau_t - row.tau_s) - 0.5).abs() < error);
        assert!((mean(|row| row.tau_s / (1.0 - (row.tau_t - row.tau_s))) - 0.5).abs() < error);
        for row in &others {
            assert!(0.0 <= row.tau_s && row.tau_s < row.tau_t && row.tau_t <= 1.0);
            assert_eq!(row.tau_u, (row.tau_s + row.tau_t) / 2.0);
        }
    }
}
