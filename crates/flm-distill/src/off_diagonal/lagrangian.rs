//! The Lagrangian objective: ∂_t X_{s,t} = b_t(X_{s,t}).

use crate::{Answer, DenoiserSource, FlowMapConfig, OffDiagonal, TargetRows, cost};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Dual, Score, TokenDistribution};
use flm_simplex::flow_map::DISTILLATION_GUARD;

/// Cross-entropy against sparsemax(D_t(X_{s,t}(I_s)) − (1−t)(t−s)/(1−s)·∂_t δ_{s,t}(I_s)), with D
/// from the [`DenoiserSource`].
///
/// When the target time moves, the end of the jump must move as the flow does there. The correction
/// leaves the simplex, and sparsemax projects back to it. On a boundary row the correction is zero,
/// and the target is the denoiser's prediction at the end of the jump.
#[derive(Clone, Copy, Debug)]
pub struct Lagrangian(pub DenoiserSource);

impl From<&FlowMapConfig> for Lagrangian {
    fn from(config: &FlowMapConfig) -> Self {
        Self(config.denoiser)
    }
}

impl<A: AutodiffBackend> OffDiagonal<A> for Lagrangian {
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let target = target(rows, self.0);
        answer.prediction.soft_cross_entropy(&target, weights)
    }

    fn evaluations(&self) -> f64 {
        cost::JVP + 1.0
    }
}

fn target<B: Backend>(rows: &TargetRows<'_, B>, denoiser: DenoiserSource) -> TokenDistribution<B> {
    let times = rows.row_times();
    let moving = rows.student.jvp(
        Dual::still(rows.state.clone()),
        Dual::still(times.tau_s.clone()),
        Dual {
            value: times.tau_t,
            tangent: times.speed_t,
        },
    );
    let clean = rows.arrived(denoiser, &moving.distribution());
    let remaining = |time: Tensor<B, 1>| time.neg().add_scalar(1.0);
    let weight = remaining(times.t.clone()) * (times.s.clone() - times.t)
        / remaining(times.s).add_scalar(DISTILLATION_GUARD);
    clean.moved(moving, weight).projected()
}
