//! Model families.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of model: its input and its attention pattern. The blocks are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// A flow over noisy states, or its flow map.
    #[default]
    Flow,
    /// Masked diffusion over tokens, some of them masked. The network gets no time.
    Mdlm,
    /// Uniform-state diffusion over tokens, some of them replaced. The network also gets the
    /// noise level.
    Duo,
    /// Autoregressive: a start token (the mask token), then the preceding tokens. The network gets
    /// no time.
    Autoregressive,
}

impl Family {
    /// Returns whether a position sees only itself and earlier positions.
    pub fn is_causal(self) -> bool {
        self == Self::Autoregressive
    }

    /// Returns whether the network has a mask token as an extra input, for masked positions or the
    /// start of a text.
    pub fn has_mask_token(self) -> bool {
        matches!(self, Self::Mdlm | Self::Autoregressive)
    }

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Mdlm => "mdlm",
            Self::Duo => "duo",
            Self::Autoregressive => "autoregressive",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
