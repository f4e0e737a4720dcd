//! The Eulerian property over a finite step: a jump that starts a step later ends at the same
//! point.

use crate::{Answer, DenoiserSource, FlowMapConfig, OffDiagonal, TargetRows};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::{Dropout, Score};
use flm_simplex::flow_map::{semigroup_weights, transport};

/// Cross-entropy against γ·D_s(I_s) + (1−γ)·δ_{u,t}(X_{s,u}(I_s)). The [`DenoiserSource`] makes the
/// short step from s to u, and the student makes the rest.
///
/// This is consistency distillation. The target is a convex combination of distributions, so it
/// stays on the simplex without a projection and without a derivative. As the step goes to zero,
/// its distance to δ becomes the Eulerian residual r times (u−s)/((1−s)(t−s)).
#[derive(Clone, Copy, Debug)]
pub struct Consistency(pub DenoiserSource);

/// The step's share of the way from s to t, in τ. Over a longer step D_s is a poor map of the flow;
/// a shorter one teaches less per evaluation.
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

    /// D at the start, and the student at the end of the step.
    fn evaluations(&self) -> f64 {
        2.0
    }
}
