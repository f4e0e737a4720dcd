//! What a network is made for.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a network is made for: what it reads, and who sees whom in it. The blocks are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// A flow over noisy states, or its flow map.
    #[default]
    Flow,
    /// Masked diffusion: tokens, some of which are masked. It is told no time.
    Mdlm,
    /// Uniform-state diffusion: tokens, some of which are replaced, and how many.
    Duo,
    /// One token after the other: a start token (the mask token) and the tokens so far. It is told no time.
    Autoregressive,
}

impl Family {
    /// Whether a position sees only itself and what stands before it.
    pub fn is_causal(self) -> bool {
        self == Self::Autoregressive
    }

    /// Whether one of its inputs stands for no token: a mask, or the start of a text.
    pub fn has_mask_token(self) -> bool {
        matches!(self, Self::Mdlm | Self::Autoregressive)
    }

    /// Its name in `config.json`.
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
