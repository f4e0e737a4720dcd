//! The configuration of flow map distillation, as in a preset.

use crate::{Midpoint, ObjectiveKind};
use serde::{Deserialize, Serialize};

/// Settings of a [`FlowMapObjective`](crate::FlowMapObjective).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowMapConfig {
    /// The objective of rows off the diagonal.
    pub objective: ObjectiveKind,
    /// Share of rows with s = t.
    pub diagonal: f64,
    /// Share of rows from 0 to 1 among those off the diagonal.
    pub boundary: f64,
    /// Where the semigroup objective cuts a jump in two.
    pub midpoint: Midpoint,
    /// The distance to the target in the semigroup and the Eulerian objective.
    pub measure: Measure,
    /// The network that computes the semigroup's target.
    pub target: TargetNetwork,
    /// The network that predicts D in the Lagrangian, Eulerian, ECLD and consistency objectives.
    pub denoiser: DenoiserSource,
    /// Weight of a row off the diagonal; a row on it has weight 1.
    pub off_diagonal_weight: f64,
    /// Euler steps of the teacher's path from 0 to 1.
    pub path_steps: usize,
    /// Number of equal parts of τ that a jump of the path objective can span, a power of two. The
    /// number is halved until it is one; each value gets an equal share of the training.
    pub segments: usize,
    /// Whether to learn a weight of the loss at each time together with the student
    /// ([`flm_denoiser::LossWeight`]).
    pub loss_weight: bool,
}

/// The distance of an answer to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// −Σ target·log p, in nats; a target off the simplex is projected onto it.
    #[default]
    CrossEntropy,
    /// Σ (p − target)², the published distance of the Eulerian objective.
    SquaredError,
}

/// The network that computes a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetNetwork {
    /// The current student.
    #[default]
    Student,
    /// Its exponential moving average.
    Average,
}

/// The network that predicts D off the diagonal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenoiserSource {
    /// The frozen denoiser or, without one, the student.
    #[default]
    Teacher,
    /// The current student's diagonal, even if there is a teacher.
    Student,
}

impl Default for FlowMapConfig {
    /// The published shares, and the objective that beat the published one
    /// (`docs/results/distillations.md`).
    fn default() -> Self {
        Self {
            objective: ObjectiveKind::default(),
            diagonal: 0.5,
            boundary: 1.0 / 32.0,
            midpoint: Midpoint::default(),
            measure: Measure::default(),
            target: TargetNetwork::default(),
            denoiser: DenoiserSource::default(),
            off_diagonal_weight: 1.0,
            path_steps: 8,
            segments: 1,
            loss_weight: false,
        }
    }
}

impl FlowMapConfig {
    /// Checks the shares, the weight and the path, and that every changed setting has an effect.
    ///
    /// # Errors
    ///
    /// Returns the first invalid setting.
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
        if self.path_steps == 0 || !self.segments.is_power_of_two() {
            return Err(FlowMapConfigError::Path {
                path_steps: self.path_steps,
                segments: self.segments,
            });
        }
        let default = Self::default();
        let path = self.objective == ObjectiveKind::Path;
        let semigroup = self.objective == ObjectiveKind::Semigroup;
        let measured = semigroup || self.objective == ObjectiveKind::Eulerian;
        let trajectory = !matches!(
            self.objective,
            ObjectiveKind::Residual | ObjectiveKind::Distribution
        );
        for (key, set, heard, whose) in [
            (
                "diagonal",
                self.diagonal != default.diagonal,
                trajectory,
                OTHERS,
            ),
            (
                "boundary",
                self.boundary != default.boundary,
                trajectory && !path,
                BOUNDED,
            ),
            (
                "off_diagonal_weight",
                weight != default.off_diagonal_weight,
                trajectory,
                OTHERS,
            ),
            (
                "path_steps",
                self.path_steps != default.path_steps,
                path,
                PATH,
            ),
            ("segments", self.segments != default.segments, path, PATH),
            (
                "midpoint",
                self.midpoint != default.midpoint,
                semigroup,
                SEMIGROUP,
            ),
            (
                "measure",
                self.measure != default.measure,
                measured,
                MEASURED,
            ),
            (
                "target",
                self.target != default.target,
                semigroup,
                SEMIGROUP,
            ),
            (
                "denoiser",
                self.denoiser != default.denoiser,
                !semigroup && !path && trajectory,
                DENOISED,
            ),
        ] {
            if set && !heard {
                return Err(FlowMapConfigError::Unheard {
                    key,
                    whose,
                    found: self.objective.name(),
                });
            }
        }
        Ok(())
    }
}

const OTHERS: &str = "the objectives with a diagonal";
const BOUNDED: &str = "the objectives with random jumps";
const PATH: &str = "the path objective";
const SEMIGROUP: &str = "the semigroup objective";
const MEASURED: &str = "the semigroup and the Eulerian objective";
const DENOISED: &str = "the objectives that use a denoiser";

/// Invalid settings of flow map distillation.
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
    /// A weight that is not positive and finite.
    #[error("flow map off_diagonal_weight must be positive and finite, found {found}")]
    Weight {
        /// The value found.
        found: f64,
    },
    /// A path without steps, or a number of parts that is not a power of two.
    #[error(
        "flow map path_steps must be at least 1 and segments a power of two, found {path_steps} and {segments}"
    )]
    Path {
        /// Steps found.
        path_steps: usize,
        /// Parts found.
        segments: usize,
    },
    /// A setting that the chosen objective does not use.
    #[error("flow map {key} is a setting of {whose}, found the objective {found}")]
    Unheard {
        /// The configuration key.
        key: &'static str,
        /// The objectives that use it.
        whose: &'static str,
        /// The objective found.
        found: &'static str,
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
            "flow map measure is a setting of the semigroup and the Eulerian objective, found the objective lagrangian"
        );
        assert_eq!(
            message(FlowMapConfig {
                objective: ObjectiveKind::Semigroup,
                denoiser: DenoiserSource::Student,
                ..default()
            }),
            "flow map denoiser is a setting of the objectives that use a denoiser, found the objective semigroup"
        );
        let residual = FlowMapConfig {
            objective: ObjectiveKind::Residual,
            loss_weight: true,
            ..default()
        };
        assert_eq!(residual.validate(), Ok(()));
        for (key, whose, config) in [
            (
                "diagonal",
                "the objectives with a diagonal",
                FlowMapConfig {
                    diagonal: 0.25,
                    ..residual.clone()
                },
            ),
            (
                "boundary",
                "the objectives with random jumps",
                FlowMapConfig {
                    boundary: 0.25,
                    ..residual.clone()
                },
            ),
            (
                "off_diagonal_weight",
                "the objectives with a diagonal",
                FlowMapConfig {
                    off_diagonal_weight: 2.0,
                    ..residual.clone()
                },
            ),
            (
                "denoiser",
                "the objectives that use a denoiser",
                FlowMapConfig {
                    denoiser: DenoiserSource::Student,
                    ..residual
                },
            ),
        ] {
            assert_eq!(
                message(config),
                format!("flow map {key} is a setting of {whose}, found the objective residual")
            );
        }
    }
}
