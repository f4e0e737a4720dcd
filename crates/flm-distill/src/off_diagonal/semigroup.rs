//! The semigroup objective: X_{s,t} = X_{u,t} ∘ X_{s,u}.

use crate::{Answer, FlowMapConfig, Measure, OffDiagonal, TargetNetwork, TargetRows};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Dropout, Score, TokenDistribution};
use flm_simplex::flow_map::{semigroup_weights, transport};

/// Cross-entropy, or another measure, against γ·δ_{s,u}(I_s) + (1−γ)·δ_{u,t}(X_{s,u}(I_s)). Both
/// parts come from the current student or from its average.
///
/// The target is a convex combination of distributions, so it lies on the simplex. On a boundary
/// row γ is zero: the student learns to answer at once what it would answer from the midpoint.
#[derive(Clone, Copy, Debug)]
pub struct Semigroup {
    /// The distance to the target.
    pub measure: Measure,
    /// The network that computes the target.
    pub target: TargetNetwork,
}

impl From<&FlowMapConfig> for Semigroup {
    fn from(config: &FlowMapConfig) -> Self {
        Self {
            measure: config.measure,
            target: config.target,
        }
    }
}

impl<A: AutodiffBackend> OffDiagonal<A> for Semigroup {
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let (prediction, target) = (&answer.prediction, target(rows, self.target));
        match self.measure {
            Measure::CrossEntropy => prediction.soft_cross_entropy(&target, weights),
            Measure::SquaredError => prediction.squared_error(&target, weights),
        }
    }

    fn evaluations(&self) -> f64 {
        2.0
    }
}

fn target<B: Backend>(rows: &TargetRows<'_, B>, target: TargetNetwork) -> TokenDistribution<B> {
    let (student, state) = rows.target(target);
    let times = rows.row_times();
    let first = student
        .forward(
            state.clone(),
            times.tau_s,
            times.tau_u.clone(),
            &mut Dropout::off(),
        )
        .distribution();
    let middle = transport(
        state,
        first.mean(student.embed()),
        times.s.clone(),
        times.u.clone(),
    );
    let second = student
        .forward(middle, times.tau_u, times.tau_t, &mut Dropout::off())
        .distribution();
    first.mix(second, semigroup_weights(times.s, times.u, times.t))
}
