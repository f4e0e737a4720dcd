//! Distilling a flow map: what all the ways of doing it share.

use crate::FlowMapConfig;
use crate::losses::RowLosses;
use crate::rows::{RowKind, TimeRow, flow_map_rows};
use crate::state::RowTimes;
use burn::module::AutodiffModule;
use burn::tensor::{
    Int, Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Dit, Dropout, Noise, Prediction};
use flm_simplex::{Schedule, interpolant::interpolate};
use rand::Rng;

/// Trains a two-time denoiser δ_{s,t}: on the diagonal towards the denoiser, off it by an
/// [`OffDiagonal`](crate::OffDiagonal) loss.
///
/// The teacher is frozen. Without one the diagonal learns from the tokens, which is self-distillation.
pub struct FlowMapObjective<B: Backend> {
    schedule: Schedule,
    config: FlowMapConfig,
    teacher: Option<Dit<B>>,
}

/// Rows of a batch without gradients: what targets are made of.
///
/// The state I_s is not given in any coordinates: student and teacher each project it by their own embedding.
pub struct Rows<'a, B: Backend> {
    /// The network in training, as it stands.
    pub student: &'a Dit<B>,
    /// The frozen denoiser, if there is one.
    pub teacher: Option<&'a Dit<B>>,
    /// The data, `[rows, length]`.
    pub tokens: Tensor<B, 2, Int>,
    /// The noise, one draw for each row.
    pub noise: Noise<B>,
    /// The time schedule.
    pub schedule: &'a Schedule,
    /// Their network times.
    pub times: &'a [TimeRow],
}

impl<'a, B: Backend> Rows<'a, B> {
    /// I_s as `model` sees it, `[rows, length, width]`.
    pub fn state(&self, model: &Dit<B>) -> Tensor<B, 3> {
        let s = self.row_times().s;
        let embed = model.embed();
        interpolate(
            embed.noise(self.noise.clone()),
            embed.tokens(self.tokens.clone()),
            s,
        )
    }

    /// The times as tensors `[rows]`.
    pub(crate) fn row_times(&self) -> RowTimes<B> {
        RowTimes::of(self.times, self.schedule, &self.tokens.device())
    }

    /// The rows `first..last`.
    fn range(&self, first: usize, last: usize) -> Rows<'a, B> {
        Rows {
            tokens: self.tokens.clone().narrow(0, first, last - first),
            noise: self.noise.clone().narrow(first, last - first),
            times: &self.times[first..last],
            ..*self
        }
    }
}

impl<B: Backend> FlowMapObjective<B> {
    /// `config` must have been validated; `schedule` is the student's (`DitConfig::schedule`), and the teacher has the same.
    pub fn new(schedule: Schedule, config: FlowMapConfig, teacher: Option<Dit<B>>) -> Self {
        Self {
            schedule,
            config,
            teacher,
        }
    }

    /// Times for a whole batch, in the configured shares, diagonal rows first.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<TimeRow> {
        flow_map_rows(batch, self.config.diagonal, self.config.boundary, rng)
    }

    /// Losses of `tokens` `[batch, length]` at the given times, one for each sequence, diagonal rows first.
    ///
    /// # Panics
    ///
    /// If there are no rows.
    pub fn losses<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        student: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        noise: Noise<A>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> RowLosses<A> {
        let plain = Rows {
            student: &student.valid(),
            teacher: self.teacher.as_ref(),
            tokens: tokens.clone().inner(),
            noise: noise.clone().inner(),
            schedule: &self.schedule,
            times: rows,
        };
        let times = RowTimes::<A>::of(rows, &self.schedule, &tokens.device());
        let state = interpolate(
            student.embed().noise(noise),
            student.embed().tokens(tokens.clone()),
            times.s,
        );
        let prediction = student.forward(state, times.tau_s, times.tau_t, dropout);
        RowLosses {
            per_token: self.score(&prediction, tokens, &plain),
            kinds: rows.iter().map(|row| row.kind).collect(),
        }
    }

    /// Losses on the diagonal, then off it.
    fn score<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        prediction: &Prediction<A>,
        tokens: Tensor<A, 2, Int>,
        rows: &Rows<'_, B>,
    ) -> Tensor<A, 2> {
        let is_diagonal = |row: &TimeRow| row.kind == RowKind::Diagonal;
        let count = rows.times.len();
        let on = rows.times.partition_point(is_diagonal);
        debug_assert!(
            !rows.times[on..].iter().any(is_diagonal),
            "diagonal rows come first"
        );
        let mut losses = Vec::new();
        if on > 0 {
            losses.push(diagonal(
                &prediction.narrow(0, on),
                tokens.narrow(0, 0, on),
                &rows.range(0, on),
            ));
        }
        if on < count {
            let off_diagonal = self.config.objective.off_diagonal();
            losses.push(
                off_diagonal.losses(&prediction.narrow(on, count - on), &rows.range(on, count)),
            );
        }
        Tensor::cat(losses, 0)
    }
}

/// Losses on the diagonal: against the teacher's D_t(I_t), or against the tokens themselves.
fn diagonal<A: AutodiffBackend>(
    prediction: &Prediction<A>,
    tokens: Tensor<A, 2, Int>,
    rows: &Rows<'_, A::InnerBackend>,
) -> Tensor<A, 2> {
    let Some(teacher) = rows.teacher else {
        return prediction.cross_entropy(tokens);
    };
    let times = rows.row_times();
    let target = teacher.forward(
        rows.state(teacher),
        times.tau_s,
        times.tau_t,
        &mut Dropout::off(),
    );
    prediction.soft_cross_entropy(target.belief().lift())
}
