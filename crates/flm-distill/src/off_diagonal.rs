//! The seam between the ways of distilling a flow map.

use crate::{Eulerian, FlowMapConfig, Lagrangian, Rows, Semigroup};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::{Prediction, Score};
use serde::{Deserialize, Serialize};

/// What δ_{s,t}(I_s) is drawn to off the diagonal, and by which loss.
///
/// The objective scores the student's answer itself, because not all of them do so by cross-entropy: the Eulerian one
/// takes squared errors against a target off the simplex. What it compares with comes from `rows`, where no gradient flows.
///
/// A new objective is a new implementation in a file of its own and a line in [`ObjectiveKind`].
pub trait OffDiagonal<A: AutodiffBackend> {
    /// Losses of the student's `prediction` for these rows, each token's with its entry of `weights` `[rows, length]`.
    fn losses(
        &self,
        prediction: &Prediction<A>,
        rows: &Rows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A>;

    /// What a row costs beside the student's answer and its gradient, in evaluations of the network (see [`cost`](crate::cost)).
    fn evaluations(&self) -> f64;
}

/// Which objective distills the flow map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveKind {
    /// Two half jumps make a whole one (progressive self-distillation, PSD).
    #[default]
    Semigroup,
    /// The end of a jump moves with its time as the flow does (LSD).
    Lagrangian,
    /// The end of a jump stays when its start moves along the flow (ESD).
    Eulerian,
}

impl FlowMapConfig {
    /// The objective itself.
    pub(crate) fn off_diagonal<A: AutodiffBackend>(&self) -> Box<dyn OffDiagonal<A>> {
        match self.objective {
            ObjectiveKind::Semigroup => Box::new(Semigroup(self.measure)),
            ObjectiveKind::Lagrangian => Box::new(Lagrangian),
            ObjectiveKind::Eulerian => Box::new(Eulerian),
        }
    }
}
