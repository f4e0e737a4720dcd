//! The semigroup objective: X_{s,t} = X_{u,t} ∘ X_{s,u}.

use crate::{Measure, OffDiagonal, Rows};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use flm_denoiser::{Belief, Dropout, Prediction, Score};
use flm_simplex::flow_map::{semigroup_weights, transport};

/// Cross-entropy, or another measure, against γ·δ_{s,u}(I_s) + (1−γ)·δ_{u,t}(X_{s,u}(I_s)), both by the student as it stands.
///
/// A convex combination of distributions, so the target lies on the simplex. On a boundary row γ is zero: the student learns
/// to answer at once what it would answer from the midpoint.
#[derive(Clone, Copy, Debug)]
pub struct Semigroup(pub Measure);

impl<A: AutodiffBackend> OffDiagonal<A> for Semigroup {
    fn losses(
        &self,
        prediction: &Prediction<A>,
        rows: &Rows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        match self.0 {
            Measure::CrossEntropy => prediction.soft_cross_entropy(&target(rows), weights),
            Measure::SquaredError => prediction.squared_error(&target(rows), weights),
        }
    }

    fn evaluations(&self) -> f64 {
        2.0
    }
}

fn target<B: Backend>(rows: &Rows<'_, B>) -> Belief<B> {
    let (student, times) = (rows.student, rows.row_times());
    let state = rows.state.clone();
    let first = student
        .forward(
            state.clone(),
            times.tau_s,
            times.tau_u.clone(),
            &mut Dropout::off(),
        )
        .belief();
    let middle = transport(
        state,
        first.mean(student.embed()),
        times.s.clone(),
        times.u.clone(),
    );
    let second = student
        .forward(middle, times.tau_u, times.tau_t, &mut Dropout::off())
        .belief();
    first.mix(second, semigroup_weights(times.s, times.u, times.t))
}
