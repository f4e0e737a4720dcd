//! The Eulerian property over a step and not in the limit: who starts a step later ends at the same place.

use crate::{Answer, DenoiserSource, FlowMapConfig, OffDiagonal, TargetRows};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::{Dropout, Score};
use flm_simplex::flow_map::{semigroup_weights, transport};

/// Cross-entropy against γ·D_s(I_s) + (1−γ)·δ_{u,t}(X_{s,u}(I_s)), the short step from s to u made by the [`DenoiserSource`], the rest by the student.
///
/// As in consistency distillation. The target is a convex combination of distributions, so it stays on the simplex without a
/// projection and without a derivative; in the limit of no step its distance to δ is the Eulerian residual r times (u−s)/((1−s)(t−s)).
#[derive(Clone, Copy, Debug)]
pub struct Consistency(pub DenoiserSource);

/// The step's share of the way from s to t, in τ. Over a longer one D_s is no map of the flow; a shorter one teaches less at a time.
const STEP: f64 = 1.0 / 8.0;

impl From<&FlowMapConfig> for Consistency {
    fn from(config: &FlowMapConfig) -> Self {
        Self(config.denoiser)
    }
}

impl<A: AutodiffBackend> OffDiagonal<A> for Consistency {
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let times = rows.row_times_by(STEP);
        let (denoiser, state) = rows.denoiser(self.0);
        let clean = denoiser
            .forward(state, times.tau_s.clone(), times.tau_s, &mut Dropout::off())
            .distribution();
        let mean = clean.mean(rows.student.embed());
        let later = transport(rows.state.clone(), mean, times.s.clone(), times.u.clone());
        let rest = rows
            .student
            .forward(later, times.tau_u, times.tau_t, &mut Dropout::off())
            .distribution();
        let target = clean.mix(rest, semigroup_weights(times.s, times.u, times.t));
        answer.prediction.soft_cross_entropy(&target, weights)
    }

    /// D at the start, the student at the step's end.
    fn evaluations(&self) -> f64 {
        2.0
    }
}
