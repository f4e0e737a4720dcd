//! One network trained to the endpoints of the two.

use super::jump::Jump;
use super::{BOUNDARY, column, residual_rows};
use crate::losses::mean_of;
use crate::rows::{TimeRow, kinds, on_clock};
use crate::state::RowTimes;
use crate::weighting::Weighting;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise, Prior, Residual, Score, TokenDistribution};
use flm_objective::{Inner, Losses, Objective, StepSize, TRAINED, TrainingStep};
use flm_simplex::{Schedule, interpolant::interpolate};
use rand::Rng;

/// Trains the recipe's second stage: a two-time denoiser δ_{s,t} whose flow map ends where that of
/// a frozen residual one does. The loss is the squared distance of the states.
///
/// ‖X_student − X_teacher‖² = ((t−s)/(1−s))²·Σ_V (δ_{s,t} − D_s − ½(t−s)(1−s)·g_{s,t})², again
/// without the state. The teacher's guard of 1e-5 in its velocity is left out: with it, 1e-5/(1−s)
/// of the state would stay.
#[derive(Clone, Debug)]
pub struct ResidualStudent<B: Backend> {
    schedule: Schedule,
    teacher: Residual<B>,
}

impl<B: Backend> ResidualStudent<B> {
    /// Creates the objective; `schedule` is that of all three networks (`DitConfig::schedule`).
    pub fn new(schedule: Schedule, teacher: Residual<B>) -> Self {
        Self { schedule, teacher }
    }

    /// Draws the times of a whole batch as for the second network, but with half as many boundary
    /// rows.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<TimeRow> {
        on_clock(
            residual_rows(batch, BOUNDARY / 2.0, rng),
            self.schedule.clock(),
        )
    }

    /// Returns the losses of `tokens` `[batch, length]` at the given times.
    ///
    /// # Panics
    ///
    /// Panics if the noise is narrow, because three networks see it.
    pub fn score<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        student: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        noise: &Noise<B>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (shape, plain) = (tokens.dims(), tokens.clone().inner());
        let device = plain.device();
        let times = RowTimes::<A>::of(rows, &self.schedule, &tokens.device());
        let state = noise.interpolate(student.embed(), tokens, times.s);
        let weighting = Weighting::of(student, times.tau_s.clone());
        let answer = student.forward(state, times.tau_s, times.tau_t, dropout);
        let target = self.target(plain, noise, rows);
        let scale = column(
            &Jump::of_rows(rows, &self.schedule),
            |jump| jump.end.powi(2),
            &device,
        );
        let scale = scale.unsqueeze_dim::<2>(1);
        let score = weighting.score(mean_of(shape, shape[0], &device), |weights| {
            let score = answer.squared_error(&target, weights * scale.clone());
            Score {
                loss: score.loss,
                per_token: score.per_token * scale,
            }
        });
        Losses::new(score.loss, score.per_token, kinds(rows))
    }

    /// Returns D_s + ½(t−s)(1−s)·g_{s,t}: δ of the teacher's flow map.
    fn target(
        &self,
        tokens: Tensor<B, 2, Int>,
        noise: &Noise<B>,
        rows: &[TimeRow],
    ) -> TokenDistribution<B> {
        let times = RowTimes::<B>::of(rows, &self.schedule, &tokens.device());
        let seen = |network: &Dit<B>| {
            let embed = network.embed();
            let tokens = embed.tokens(tokens.clone());
            interpolate(noise.seen_by(embed), tokens, times.s.clone())
        };
        let Residual { denoiser, second } = &self.teacher;
        let mut off = Dropout::off();
        let tau_s = times.tau_s.clone();
        let clean = denoiser
            .forward(seen(denoiser), tau_s.clone(), tau_s.clone(), &mut off)
            .distribution();
        let bend = second
            .forward(seen(second), tau_s, times.tau_t, &mut off)
            .outputs();
        let jumps = Jump::of_rows(rows, &self.schedule);
        clean.plus(bend, column(&jumps, |jump| jump.scale, &tokens.device()))
    }
}

impl<B: AutodiffBackend> Objective<B> for ResidualStudent<B::InnerBackend> {
    type Network = Dit<B>;
    type Shared = Prior<B::InnerBackend>;

    /// Three networks see the noise.
    fn shared(&self, network: &Inner<B, Dit<B>>, _: StepSize) -> Self::Shared {
        Prior::wide(network.embed())
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

    /// A forward and a backward pass of the student, and each network of the teacher once.
    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * (TRAINED + 2.0)
    }
}
