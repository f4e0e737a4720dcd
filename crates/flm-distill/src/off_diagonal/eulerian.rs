//! The Eulerian objective: (∂_s + b_s·∇) X_{s,t} = 0.

use crate::{Answer, DenoiserSource, FlowMapConfig, Measure, OffDiagonal, TargetRows, cost};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Dropout, Dual, Score, TokenDistribution};

/// Cross-entropy against the sparsemax of the target D_s(I_s) + (1−s)(t−s)/(1−t)·(∂_s + b_s·∇)
/// δ_{s,t}(I_s), or the squared error against the target itself, as published. D comes from the
/// [`DenoiserSource`].
///
/// A jump that starts a little later along the flow must end at the same point. Multiplied by
/// 1 − t, the condition says that r = (1−t)·(δ − D_s) − (1−s)(t−s)·(∂_s + b_s·∇) δ vanishes. Unlike
/// the quotient, r is finite at t = 1. The target is therefore δ − r/max(1−t, [`FLOOR`]), with the
/// current δ. It equals the published target wherever 1 − t is at least the floor, and is bounded
/// everywhere. On boundary rows D_s drops out and the target still contains the motion of δ along
/// the flow, so the gradient neither vanishes nor explodes.
///
/// The derivative takes the target off the simplex. Projected back, as the Lagrangian target is, it
/// trains better (`docs/results/distillations.md`).
#[derive(Clone, Copy, Debug)]
pub struct Eulerian {
    /// The network that predicts D.
    pub denoiser: DenoiserSource,
    /// The distance to the target; cross-entropy uses its projection.
    pub measure: Measure,
}

/// The smallest 1 − t used as a divisor.
pub const FLOOR: f64 = 0.05;

impl From<&FlowMapConfig> for Eulerian {
    fn from(config: &FlowMapConfig) -> Self {
        Self {
            denoiser: config.denoiser,
            measure: config.measure,
        }
    }
}

impl<A: AutodiffBackend> OffDiagonal<A> for Eulerian {
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let (prediction, target) = (&answer.prediction, target(rows, self.denoiser));
        match self.measure {
            Measure::CrossEntropy => prediction.soft_cross_entropy(&target.projected(), weights),
            Measure::SquaredError => prediction.squared_error(&target, weights),
        }
    }

    fn evaluations(&self) -> f64 {
        cost::JVP + 1.0
    }
}

fn target<B: Backend>(rows: &TargetRows<'_, B>, denoiser: DenoiserSource) -> TokenDistribution<B> {
    let times = rows.row_times();
    let remaining = |time: Tensor<B, 1>| time.neg().add_scalar(1.0);
    let (denoiser, state) = rows.denoiser(denoiser);
    let clean = denoiser
        .forward(
            state,
            times.tau_s.clone(),
            times.tau_s.clone(),
            &mut Dropout::off(),
        )
        .distribution();
    // 1 − s times the direction (b_s, ds), which is finite at s = 1 too.
    let along = clean.mean(rows.student.embed()) - rows.state.clone();
    let moving = rows.student.jvp(
        Dual {
            value: rows.state.clone(),
            tangent: along,
        },
        Dual {
            value: times.tau_s,
            tangent: times.speed_s * remaining(times.s.clone()),
        },
        Dual::still(times.tau_t),
    );
    let divisor = remaining(times.t.clone()).clamp_min(FLOOR);
    let share = remaining(times.t.clone()) / divisor.clone();
    let weight = (times.t - times.s) / divisor;
    clean
        .mix(moving.distribution(), share)
        .moved(moving, weight)
}
