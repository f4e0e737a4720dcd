//! How a flow map is distilled, as it stands in a preset.

use crate::{Midpoint, ObjectiveKind};
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
    /// Where the semigroup cuts a jump in two.
    pub midpoint: Midpoint,
    /// By which the semigroup measures the distance to its target.
    pub measure: Measure,
    /// Weight of a row off the diagonal; one on it has 1.
    pub off_diagonal_weight: f64,
}

/// The distance of an answer to a target on the simplex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// −Σ target·log p, in nats.
    #[default]
    CrossEntropy,
    /// Σ (p − target)².
    SquaredError,
}

impl Default for FlowMapConfig {
    /// The published shares.
    fn default() -> Self {
        Self {
            objective: ObjectiveKind::default(),
            diagonal: 0.5,
            boundary: 1.0 / 32.0,
            midpoint: Midpoint::default(),
            measure: Measure::default(),
            off_diagonal_weight: 1.0,
        }
    }
}

impl FlowMapConfig {
    /// Checks that the shares are shares and the weight a weight, and that no setting is without effect.
    pub fn validate(&self) -> Result<(), FlowMapConfigError> {
        for (key, found) in [("diagonal", self.diagonal), ("boundary", self.boundary)] {
            if !(0.0..=1.0).contains(&found) {
                return Err(FlowMapConfigError::Share { key, found });
            }
        }
        let weight = self.off_diagonal_weight;
        if !(weight.is_finite() && weight > 0.0) {
            return Err(FlowMapConfigError::Weight { found: weight });
        }
        let default = Self::default();
        for (key, set) in [
            ("midpoint", self.midpoint != default.midpoint),
            ("measure", self.measure != default.measure),
        ] {
            if set && self.objective != ObjectiveKind::Semigroup {
                return Err(FlowMapConfigError::SemigroupOnly { key });
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
    /// A weight that is none.
    #[error("flow map off_diagonal_weight must be positive and finite, found {found}")]
    Weight {
        /// The value found.
        found: f64,
    },
    /// A setting that the chosen objective does not look at.
    #[error("flow map {key} is a setting of the semigroup objective, found another objective")]
    SemigroupOnly {
        /// The configuration key.
        key: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_distilled_is_refused_in_a_sentence() {
        let message = |config: FlowMapConfig| config.validate().unwrap_err().to_string();
        let default = FlowMapConfig::default;
        assert_eq!(default().validate(), Ok(()));
        assert_eq!(
            message(FlowMapConfig {
                boundary: 1.5,
                ..default()
            }),
            "flow map boundary must be a share between 0 and 1, found 1.5"
        );
        assert_eq!(
            message(FlowMapConfig {
                off_diagonal_weight: 0.0,
                ..default()
            }),
            "flow map off_diagonal_weight must be positive and finite, found 0"
        );
        let squared = FlowMapConfig {
            measure: Measure::SquaredError,
            ..default()
        };
        assert_eq!(squared.validate(), Ok(()));
        assert_eq!(
            message(FlowMapConfig {
                objective: ObjectiveKind::Lagrangian,
                ..squared
            }),
            "flow map measure is a setting of the semigroup objective, found another objective"
        );
    }
}
