//! The seam between the ways of distilling a flow map.

mod consistency;
mod ecld;
pub mod eulerian;
mod lagrangian;
pub(crate) mod path;
mod semigroup;

use crate::{Answer, FlowMapConfig, TargetRows};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::Score;
use serde::{Deserialize, Serialize};

/// What δ_{s,t}(I_s) is drawn to off the diagonal, and by which loss.
///
/// The objective scores the student's answer itself, because not all of them do so by cross-entropy: the Eulerian one
/// may take squared errors against a target off the simplex, and ECLD adds a term of its own. What it compares with comes from `rows`, where no gradient flows; an
/// objective that differentiates a derivative asks the student of `answer` again.
///
/// A new objective is a new file and a line in the list at the end of this one.
pub trait OffDiagonal<A: AutodiffBackend> {
    /// Losses of the student's `answer` for these rows, each token's with its entry of `weights` `[rows, length]`.
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A>;

    /// What a row costs beside the student's answer and its gradient, in evaluations of the network (see [`cost`](crate::cost)).
    fn evaluations(&self) -> f64;
}

macro_rules! objectives {
    ($($(#[$about:meta])* $module:ident::$name:ident,)*) => {
        $(pub use $module::$name;)*

        /// Which objective distills the flow map.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectiveKind {
            $($(#[$about])* $name,)*
            /// A second network beside a frozen denoiser, whose outputs are added to its flow's velocity: the residual recipe.
            Residual,
            /// No trajectory: what the student writes is distributed as what the teacher writes
            /// ([`DistributionObjective`](crate::DistributionObjective)).
            Distribution,
        }

        impl ObjectiveKind {
            /// As it stands in a configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($module),)*
                    Self::Residual => "residual",
                    Self::Distribution => "distribution",
                }
            }
        }

        impl FlowMapConfig {
            /// The objective itself.
            pub(crate) fn off_diagonal<A: AutodiffBackend>(&self) -> Box<dyn OffDiagonal<A>> {
                match self.objective {
                    $(ObjectiveKind::$name => Box::new($name::from(self)),)*
                    ObjectiveKind::Residual | ObjectiveKind::Distribution => {
                        panic!("{} has an objective of its own", self.objective.name())
                    }
                }
            }
        }
    };
}

// Each is a line here and a file, with `OffDiagonal` and `From<&FlowMapConfig>`.
objectives! {
    /// Two half jumps make a whole one (progressive self-distillation, PSD).
    semigroup::Semigroup,
    /// The end of a jump moves with its time as the flow does (LSD).
    lagrangian::Lagrangian,
    /// The end of a jump stays when its start moves along the flow (ESD). The default: at equal cost ahead of the semigroup on every seed in 2, 4 and 8
    /// steps on the grammar, at the same entropy and share of distinct samples (`docs/results/distillations.md`).
    #[default]
    eulerian::Eulerian,
    /// The answer is the denoiser's about the end of the jump, and does not move with the target time (ECLD).
    ecld::Ecld,
    /// Who starts a step later, by the denoiser, ends at the same place: consistency distillation.
    consistency::Consistency,
    /// The end of a jump is where the teacher's own steps lead: paired trajectories and progressive distillation.
    path::Path,
}
