//! How a flow map is distilled, as it stands in a preset.

use crate::ObjectiveKind;
use serde::{Deserialize, Serialize};

/// Settings of a [`FlowMapObjective`](crate::FlowMapObjective).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowMapConfig {
    /// Where rows off the diagonal are drawn to.
    pub objective: ObjectiveKind,
    /// Share of rows with s = t.
    pub diagonal: f64,
    /// Share of rows from 0 to 1 among those off the diagonal.
    pub boundary: f64,
}

impl Default for FlowMapConfig {
    /// The published shares.
    fn default() -> Self {
        Self {
            objective: ObjectiveKind::default(),
            diagonal: 0.5,
            boundary: 1.0 / 32.0,
        }
    }
}

impl FlowMapConfig {
    /// Checks that the shares are shares.
    pub fn validate(&self) -> Result<(), FlowMapConfigError> {
        for (key, found) in [("diagonal", self.diagonal), ("boundary", self.boundary)] {
            if !(0.0..=1.0).contains(&found) {
                return Err(FlowMapConfigError::Share { key, found });
            }
        }
        Ok(())
    }
}

/// Settings with which nothing can be distilled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FlowMapConfigError {
    /// A share outside [0, 1].
    #[error("flow map {key} must be a share between 0 and 1, found {found}")]
    Share {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
}
