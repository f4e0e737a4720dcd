//! The Lagrangian objective: ∂_t X_{s,t} = b_t(X_{s,t}).

use crate::{OffDiagonal, Rows, cost};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Belief, Dropout, Dual, Prediction, Score};
use flm_simplex::flow_map::{DISTILLATION_GUARD, transport};

/// Cross-entropy against sparsemax(D_t(X_{s,t}(I_s)) − (1−t)(t−s)/(1−s)·∂_t δ_{s,t}(I_s)), D by the teacher if there is one.
///
/// The end of the jump must move, when the target time does, as the flow moves there. The correction leaves the simplex, and
/// sparsemax brings it back. On a boundary row it is zero: the answer is drawn to what the denoiser says of it.
#[derive(Clone, Copy, Debug)]
pub struct Lagrangian;

impl<A: AutodiffBackend> OffDiagonal<A> for Lagrangian {
    fn losses(
        &self,
        prediction: &Prediction<A>,
        rows: &Rows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        prediction.soft_cross_entropy(&target(rows), weights)
    }

    fn evaluations(&self) -> f64 {
        cost::JVP + 1.0
    }
}

fn target<B: Backend>(rows: &Rows<'_, B>) -> Belief<B> {
    let times = rows.row_times();
    let moving = rows.student.jvp(
        Dual::still(rows.state.clone()),
        Dual::still(times.tau_s.clone()),
        Dual {
            value: times.tau_t.clone(),
            tangent: times.speed_t,
        },
    );
    let (denoiser, state) = rows.denoiser();
    let arrived = transport(
        state,
        moving.belief().mean(denoiser.embed()),
        times.s.clone(),
        times.t.clone(),
    );
    let clean = denoiser
        .forward(
            arrived,
            times.tau_t.clone(),
            times.tau_t,
            &mut Dropout::off(),
        )
        .belief();
    let remaining = |time: Tensor<B, 1>| time.neg().add_scalar(1.0);
    let weight = remaining(times.t.clone()) * (times.s.clone() - times.t)
        / remaining(times.s).add_scalar(DISTILLATION_GUARD);
    clean.moved(moving, weight).projected()
}
