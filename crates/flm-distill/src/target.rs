//! The seam between the ways of distilling a flow map.

use crate::Rows;
use crate::semigroup::Semigroup;
use burn::tensor::backend::Backend;
use flm_denoiser::Belief;
use serde::{Deserialize, Serialize};

/// Where δ_{s,t}(I_s) is drawn to, off the diagonal, by cross-entropy.
///
/// A new objective is a new implementation in a file of its own and a line in [`ObjectiveKind`].
pub trait FlowMapTarget<B: Backend>: Send + Sync {
    /// The target of each row, a distribution for each position.
    fn target(&self, rows: &Rows<'_, B>) -> Belief<B>;
}

/// Which objective distills the flow map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveKind {
    /// Two half jumps make a whole one (progressive self-distillation, PSD).
    #[default]
    Semigroup,
}

impl ObjectiveKind {
    /// The objective itself.
    pub(crate) fn target<B: Backend>(self) -> Box<dyn FlowMapTarget<B>> {
        match self {
            Self::Semigroup => Box::new(Semigroup),
        }
    }
}
