//! A batch as flow map losses see it: the student's answer, and the rows that targets are computed
//! from.

use crate::rows::TimeRow;
use crate::state::RowTimes;
use crate::{DenoiserSource, TargetNetwork};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise, Prediction, TokenDistribution};
use flm_simplex::flow_map::transport;
use flm_simplex::{Schedule, interpolant::interpolate};

/// The student's prediction in the graph, and its input.
#[derive(Debug)]
pub struct Answer<'a, A: AutodiffBackend> {
    /// The network in training.
    pub student: &'a Dit<A>,
    /// I_s, `[rows, length, width]`.
    pub state: Tensor<A, 3>,
    /// δ_{s,t}(I_s).
    pub prediction: Prediction<A>,
}

impl<A: AutodiffBackend> Answer<'_, A> {
    /// Returns the answers for `count` rows from `first` on.
    pub(crate) fn narrow(&self, first: usize, count: usize) -> Self {
        Self {
            student: self.student,
            state: self.state.clone().narrow(0, first, count),
            prediction: self.prediction.narrow(first, count),
        }
    }
}

/// Rows of a batch without gradients, from which targets are computed.
pub struct TargetRows<'a, B: Backend> {
    /// The network in training, with its current parameters.
    pub student: &'a Dit<B>,
    /// Its exponential moving average, if a target uses it.
    pub average: Option<&'a Dit<B>>,
    /// The frozen denoiser, if any.
    pub teacher: Option<&'a Dit<B>>,
    /// I_s as the student sees it, `[rows, length, width]`.
    pub state: Tensor<B, 3>,
    /// The data, `[rows, length]`.
    pub tokens: Tensor<B, 2, Int>,
    /// The noise, one draw per row.
    pub noise: Noise<B>,
    /// The time schedule.
    pub schedule: &'a Schedule,
    /// The network times of the rows.
    pub times: &'a [TimeRow],
}

impl<'a, B: Backend> TargetRows<'a, B> {
    /// Returns I_s as the teacher sees it through its own embedding, `[rows, length, width]`.
    pub fn state_of_teacher(&self, teacher: &Dit<B>) -> Tensor<B, 3> {
        self.state_of(teacher, self.noise.seen_by_teacher(teacher.embed()))
    }

    /// Returns I_s as `network` sees it, given the noise it sees, `[rows, length, width]`.
    fn state_of(&self, network: &Dit<B>, noise: Tensor<B, 3>) -> Tensor<B, 3> {
        let tokens = network.embed().tokens(self.tokens.clone());
        interpolate(noise, tokens, self.row_times().s)
    }

    /// Returns the network that predicts D, and I_s as it sees it.
    pub fn denoiser(&self, denoiser: DenoiserSource) -> (&'a Dit<B>, Tensor<B, 3>) {
        match (denoiser, self.teacher) {
            (DenoiserSource::Teacher, Some(teacher)) => (teacher, self.state_of_teacher(teacher)),
            _ => (self.student, self.state.clone()),
        }
    }

    /// Returns the student that computes a target, and I_s as it sees it.
    ///
    /// # Panics
    ///
    /// Panics if the target uses the average and there is none.
    pub fn target(&self, target: TargetNetwork) -> (&'a Dit<B>, Tensor<B, 3>) {
        match target {
            TargetNetwork::Student => (self.student, self.state.clone()),
            TargetNetwork::Average => {
                let average = self.average.expect("the target requires an average");
                let noise = self.noise.seen_by(average.embed());
                (average, self.state_of(average, noise))
            }
        }
    }

    /// Returns D_t(X_{s,t}(I_s)): the prediction of `denoiser` at the end of the jump that `delta`
    /// makes.
    pub fn arrived(
        &self,
        denoiser: DenoiserSource,
        delta: &TokenDistribution<B>,
    ) -> TokenDistribution<B> {
        let times = self.row_times();
        let (denoiser, state) = self.denoiser(denoiser);
        let end = transport(state, delta.mean(denoiser.embed()), times.s, times.t);
        denoiser
            .forward(end, times.tau_t.clone(), times.tau_t, &mut Dropout::off())
            .distribution()
    }

    /// Returns the times as tensors `[rows]`.
    pub(crate) fn row_times(&self) -> RowTimes<B> {
        RowTimes::of(self.times, self.schedule, &self.tokens.device())
    }

    /// Returns [`row_times`](Self::row_times) with the midpoint u at `share` of the way from s to t
    /// in τ.
    pub(crate) fn row_times_by(&self, share: f64) -> RowTimes<B> {
        let cut = |row: &TimeRow| TimeRow {
            tau_u: row.tau_s + share * (row.tau_t - row.tau_s),
            ..*row
        };
        let times: Vec<TimeRow> = self.times.iter().map(cut).collect();
        RowTimes::of(&times, self.schedule, &self.tokens.device())
    }

    /// Returns the rows `first..last`.
    pub(crate) fn range(&self, first: usize, last: usize) -> TargetRows<'a, B> {
        TargetRows {
            state: self.state.clone().narrow(0, first, last - first),
            tokens: self.tokens.clone().narrow(0, first, last - first),
            noise: self.noise.narrow(first, last - first),
            times: &self.times[first..last],
            ..*self
        }
    }
}
