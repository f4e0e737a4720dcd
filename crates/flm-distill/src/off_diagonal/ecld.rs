//! The Lagrangian property without a projection: endpoint-consistent Lagrangian distillation (ECLD)
//! of Categorical Flow Maps, arXiv 2602.12233.

use crate::{Answer, DenoiserSource, FlowMapConfig, OffDiagonal, TargetRows, cost};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::{Dual, Score};
use flm_objective::TRAINED;
use flm_simplex::flow_map::endpoint_weights;

/// Cross-entropy against D_t(X_{s,t}(I_s)), with D from the [`DenoiserSource`], plus
/// ‖(t−s)/(1−s)·∂_t δ_{s,t}(I_s)‖².
///
/// The end of the jump moves as the flow does exactly if δ equals the denoiser's prediction there,
/// up to the motion of δ in t. The two terms ask for both: equality with a target that is on the
/// simplex by itself, and an answer that does not move. The gradient of the second term is *not*
/// stopped. It goes back through a derivative, which makes a row expensive
/// ([`evaluations`](OffDiagonal::evaluations)). The student runs without dropout in that term.
#[derive(Clone, Copy, Debug)]
pub struct Ecld(pub DenoiserSource);

impl From<&FlowMapConfig> for Ecld {
    fn from(config: &FlowMapConfig) -> Self {
        Self(config.denoiser)
    }
}

impl<A: AutodiffBackend> OffDiagonal<A> for Ecld {
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let times = rows.row_times();
        let target = rows.arrived(self.0, &answer.prediction.inner().distribution());
        let agreement = answer
            .prediction
            .soft_cross_entropy(&target, weights.clone());
        let in_graph = Tensor::<A, 1>::from_inner;
        let moving = answer.student.jvp(
            Dual::still(answer.state.clone()),
            Dual::still(in_graph(times.tau_s)),
            Dual {
                value: in_graph(times.tau_t),
                tangent: in_graph(times.speed_t),
            },
        );
        let scale = endpoint_weights(times.s, times.t)
            .powi_scalar(2)
            .unsqueeze_dim::<2>(1);
        let motion = moving.squared_tangent(weights * scale.clone());
        Score {
            loss: agreement.loss + motion.loss,
            per_token: agreement.per_token + motion.per_token * scale,
        }
    }

    /// A forward and a backward pass of the derivative, and the denoiser at the end of the jump.
    fn evaluations(&self) -> f64 {
        cost::JVP * TRAINED + 1.0
    }
}
