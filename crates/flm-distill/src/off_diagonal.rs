//! The interface that all off-diagonal objectives of a flow map implement.

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

/// The loss and the target of δ_{s,t}(I_s) off the diagonal.
///
/// The objective scores the student's answer itself, because not every objective uses
/// cross-entropy. The Eulerian one can take squared errors against a target off the simplex, and
/// ECLD adds a term of its own. Targets are computed from `rows`, where no gradient flows. An
/// objective that differentiates a derivative evaluates the student of `answer` again.
///
/// A new objective is a new file and a line in the list at the end of this one.
pub trait OffDiagonal<A: AutodiffBackend> {
    /// Returns the losses of the student's `answer` for these rows. Each token's loss is weighted
    /// by its entry of `weights` `[rows, length]`.
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A>;

    /// Returns the cost of a row in evaluations of the network, apart from the student's answer and
    /// its gradient (see [`cost`](crate::cost)).
    fn evaluations(&self) -> f64;
}

macro_rules! objectives {
    ($($(#[$about:meta])* $module:ident::$name:ident,)*) => {
        $(pub use $module::$name;)*

        /// The objective that distills the flow map.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectiveKind {
            $($(#[$about])* $name,)*
            /// A second network added to a frozen denoiser; its outputs add to the velocity of the
            /// denoiser's flow (the residual recipe).
            Residual,
            /// Distribution matching, without trajectories: the student's texts follow the same
            /// distribution as the teacher's
            /// ([`DistributionObjective`](crate::DistributionObjective)).
            Distribution,
        }

        impl ObjectiveKind {
            /// Returns the name in a configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($module),)*
                    Self::Residual => "residual",
                    Self::Distribution => "distribution",
                }
            }
        }

        impl FlowMapConfig {
            /// Returns the objective itself.
            pub(crate) fn off_diagonal<A: AutodiffBackend>(&self) -> Box<dyn OffDiagonal<A>> {
                match self.objective {
                    $(ObjectiveKind::$name => Box::new($name::from(self)),)*
                    ObjectiveKind::Residual | ObjectiveKind::Distribution => {
                        panic!("{} has its own objective type", self.objective.name())
                    }
                }
            }
        }
    };
}

// Each objective is a line here and a file with `OffDiagonal` and `From<&FlowMapConfig>`.
objectives! {
    /// Two half jumps equal a whole one (progressive self-distillation, PSD).
    semigroup::Semigroup,
    /// The end of a jump moves with the target time as the flow does (LSD).
    lagrangian::Lagrangian,
    /// The end of a jump does not move when its start moves along the flow (ESD). The default: at
    /// equal cost it is ahead of the semigroup on every seed in 2, 4 and 8 steps on the grammar, at
    /// the same entropy and share of distinct samples (`docs/results/distillations.md`).
    #[default]
    eulerian::Eulerian,
    /// The answer equals the denoiser's prediction at the end of the jump, and does not move with
    /// the target time (ECLD).
    ecld::Ecld,
    /// A jump that starts one denoiser step later ends at the same point: consistency distillation.
    consistency::Consistency,
    /// A jump ends where the teacher's own steps lead: paired trajectories and progressive
    /// distillation.
    path::Path,
}
