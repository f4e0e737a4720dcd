//! Flow map distillation: the parts that all objectives share.

use crate::losses::mean_of;
use crate::off_diagonal::path::rounds;
use crate::rows::{RowKind, TimeRow, diagonal_count, flow_map_rows, kinds, on_clock, segment_rows};
use crate::state::RowTimes;
use crate::weighting::Weighting;
use crate::{Answer, FlowMapConfig, ObjectiveKind, TargetNetwork, TargetRows};
use burn::module::AutodiffModule;
use burn::tensor::{
    Int, Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Dit, Dropout, Noise, Prediction, Prior, Score};
use flm_objective::{Inner, Losses, Objective, StepSize, TRAINED, TrainingStep};
use flm_simplex::Schedule;
use rand::Rng;

/// Trains a two-time denoiser δ_{s,t}: on the diagonal towards the denoiser, off it by an
/// [`OffDiagonal`](crate::OffDiagonal) loss.
///
/// The teacher is frozen. Without a teacher the diagonal learns from the tokens, which is
/// self-distillation.
#[derive(Clone, Debug)]
pub struct FlowMapObjective<B: Backend> {
    schedule: Schedule,
    config: FlowMapConfig,
    teacher: Option<Dit<B>>,
}

impl<B: Backend> FlowMapObjective<B> {
    /// Creates the objective from a validated `config`. `schedule` is the student's
    /// (`DitConfig::schedule`), and the teacher has the same.
    ///
    /// # Panics
    ///
    /// Panics if the objective is `path` and there is no teacher, or if the objective has its own
    /// type: the [residual recipe](crate::ResidualObjective) or [distribution
    /// matching](crate::DistributionObjective).
    pub fn new(schedule: Schedule, config: FlowMapConfig, teacher: Option<Dit<B>>) -> Self {
        assert!(
            !matches!(
                config.objective,
                ObjectiveKind::Residual | ObjectiveKind::Distribution
            ),
            "{} has its own objective type",
            config.objective.name()
        );
        assert!(
            config.objective != ObjectiveKind::Path || teacher.is_some(),
            "the path objective requires a teacher"
        );
        Self {
            schedule,
            config,
            teacher,
        }
    }

    /// Draws the times of the whole batch for `step` of `steps`, counted from 0, in the configured
    /// shares, diagonal rows first.
    pub fn rows<R: Rng + ?Sized>(
        &self,
        batch: usize,
        [step, steps]: [u64; 2],
        rng: &mut R,
    ) -> Vec<TimeRow> {
        let config = &self.config;
        let rows = if config.objective == ObjectiveKind::Path {
            let rounds = u64::from(rounds(config.segments));
            // Validation draws as in the last round.
            let round = (step.saturating_mul(rounds) / steps.max(1)).min(rounds - 1);
            let segments = config.segments >> round;
            segment_rows(batch, config.diagonal, segments, rng)
        } else {
            flow_map_rows(
                batch,
                config.diagonal,
                config.boundary,
                config.midpoint,
                rng,
            )
        };
        on_clock(rows, self.schedule.clock())
    }

    /// Returns the losses of `tokens` `[batch, length]` at the given times, diagonal rows first.
    /// `average` is the student with averaged weights, needed for [`TargetNetwork::Average`].
    ///
    /// # Panics
    ///
    /// Panics if there are no rows, or if the target uses the average and `average` is `None` or
    /// the noise is narrow.
    pub fn score<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        student: &Dit<A>,
        average: Option<&Dit<B>>,
        tokens: Tensor<A, 2, Int>,
        noise: &Noise<B>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let times = RowTimes::<A>::of(rows, &self.schedule, &tokens.device());
        let state = noise.interpolate(student.embed(), tokens.clone(), times.s);
        let plain = TargetRows {
            student: &student.valid(),
            average,
            teacher: self.teacher.as_ref(),
            state: state.clone().inner(),
            tokens: tokens.clone().inner(),
            noise: noise.clone(),
            schedule: &self.schedule,
            times: rows,
        };
        let weighting = Weighting::of(student, times.tau_s.clone());
        let answer = Answer {
            student,
            prediction: student.forward(state.clone(), times.tau_s, times.tau_t, dropout),
            state,
        };
        let scores = self.weighted_scores(&answer, tokens, &plain, &weighting);
        let (losses, per_token): (Vec<_>, Vec<_>) = scores
            .into_iter()
            .map(|score| (score.loss, score.per_token))
            .unzip();
        Losses::new(
            losses.into_iter().reduce(|a, b| a + b).expect("a row"),
            Tensor::cat(per_token, 0),
            kinds(rows),
        )
    }

    /// Returns the losses on the diagonal, then off it, each weighted as its part of the mean over
    /// all rows.
    fn weighted_scores<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        answer: &Answer<'_, A>,
        tokens: Tensor<A, 2, Int>,
        rows: &TargetRows<'_, B>,
        weighting: &Weighting<A>,
    ) -> Vec<Score<A>> {
        let is_diagonal = |row: &TimeRow| row.kind == RowKind::Diagonal;
        let ([count, length], device) = (tokens.dims(), rows.tokens.device());
        let on = rows.times.partition_point(is_diagonal);
        debug_assert!(
            !rows.times[on..].iter().any(is_diagonal),
            "diagonal rows come first"
        );
        let weights = |rows| mean_of([rows, length], count, &device);
        let mut scores = Vec::new();
        if on > 0 {
            scores.push(weighting.narrow(0, on).score(weights(on), |weights| {
                diagonal(
                    &answer.prediction.narrow(0, on),
                    tokens.narrow(0, 0, on),
                    &rows.range(0, on),
                    weights,
                )
            }));
        }
        if on < count {
            let off_diagonal = self.config.off_diagonal();
            let weights = weights(count - on).mul_scalar(self.config.off_diagonal_weight);
            scores.push(weighting.narrow(on, count - on).score(weights, |weights| {
                off_diagonal.losses(
                    &answer.narrow(on, count - on),
                    &rows.range(on, count),
                    weights,
                )
            }));
        }
        scores
    }
}

impl<B: AutodiffBackend> Objective<B> for FlowMapObjective<B::InnerBackend> {
    type Network = Dit<B>;
    type Shared = Prior<B::InnerBackend>;

    /// Only V-wide noise can be seen by the average too.
    fn shared(&self, network: &Inner<B, Dit<B>>, size: StepSize) -> Self::Shared {
        if self.config.target == TargetNetwork::Average {
            return Prior::wide(network.embed());
        }
        let teacher = self.teacher.as_ref().map(Dit::embed);
        Prior::for_training(network.embed(), teacher, size.tokens, size.parts)
    }

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let at = [step.stream.step, step.steps];
        let rows = self.rows(step.batch, at, &mut step.times());
        let (rows, noise) = (step.share(&rows), step.noise(tokens.dims()));
        step.with_dropout(|dropout| {
            self.score(network, Some(step.average), tokens, &noise, &rows, dropout)
        })
    }

    fn evaluations(&self, batch: usize) -> f64 {
        let on = diagonal_count(batch, self.config.diagonal);
        let teacher = if self.teacher.is_some() { 1.0 } else { 0.0 };
        let off = self.config.off_diagonal::<B>().evaluations();
        batch as f64 * TRAINED + on as f64 * teacher + (batch - on) as f64 * off
    }
}

/// Returns the losses on the diagonal, against the teacher's D_t(I_t) or against the tokens.
fn diagonal<A: AutodiffBackend>(
    prediction: &Prediction<A>,
    tokens: Tensor<A, 2, Int>,
    rows: &TargetRows<'_, A::InnerBackend>,
    weights: Tensor<A::InnerBackend, 2>,
) -> Score<A> {
    let Some(teacher) = rows.teacher else {
        return prediction.cross_entropy(tokens, weights);
    };
    let times = rows.row_times();
    let target = teacher.forward(
        rows.state_of_teacher(teacher),
        times.tau_s,
        times.tau_t,
        &mut Dropout::off(),
    );
    prediction.soft_cross_entropy(&target.distribution(), weights)
}
