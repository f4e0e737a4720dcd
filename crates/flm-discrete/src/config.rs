//! Settings in presets.

use crate::dcd;
use crate::duo::curriculum::{Curriculum, Gamma, Transform};
use crate::sdtt::{self, Divergence};
use serde::{Deserialize, Serialize};

/// The curriculum at the start of training a uniform-state diffusion model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurriculumConfig {
    /// Share of the training steps with softened noise; 0 for none.
    pub share: f64,
    /// Temperature of the softmax, from 1e-6 to 1e3.
    pub temperature: f64,
    /// The noise, as `[first, last]`; if empty, from almost no noise to almost pure noise
    /// ([`Transform::covering`]).
    #[serde(with = "ends")]
    pub gamma: Option<Gamma>,
}

impl Default for CurriculumConfig {
    /// The published share and temperature. The published noise suits only vocabularies of tens of
    /// thousands of tokens.
    fn default() -> Self {
        Self {
            share: 0.5,
            temperature: 1e-3,
            gamma: None,
        }
    }
}

impl CurriculumConfig {
    /// Creates the curriculum of a run of `steps` steps; `None` if it has no steps.
    ///
    /// # Errors
    ///
    /// [`DiscreteConfigError`] if a setting is invalid.
    pub fn curriculum(
        &self,
        vocab_size: usize,
        steps: u64,
    ) -> Result<Option<Curriculum>, DiscreteConfigError> {
        check("curriculum.share", self.share, 0.0, 1.0)?;
        check("curriculum.temperature", self.temperature, 1e-6, 1e3)?;
        let gamma = noise("curriculum.gamma", self.gamma, vocab_size)?;
        let steps = (steps as f64 * self.share).round() as u64;
        let curriculum = || Curriculum::new(vocab_size, gamma, self.temperature, steps);
        Ok((steps > 0).then(curriculum))
    }
}

/// The rounds of a self-distillation through time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SdttConfig {
    /// The teacher's step in the first round.
    pub first: f64,
    /// Number of rounds.
    pub rounds: u32,
    /// The divergence between student and target.
    pub divergence: Divergence,
}

impl Default for SdttConfig {
    /// The published values: seven rounds.
    fn default() -> Self {
        Self {
            first: sdtt::FIRST_STEP,
            rounds: 7,
            divergence: Divergence::default(),
        }
    }
}

impl SdttConfig {
    /// Returns the teacher's step in each round.
    ///
    /// # Errors
    ///
    /// [`DiscreteConfigError::Rounds`] if there are no rounds, or two steps of the last round
    /// exceed 1.
    pub fn steps(&self) -> Result<Vec<f64>, DiscreteConfigError> {
        steps("sdtt", self.first, self.rounds, 0.5)
    }
}

/// The rounds of a discrete consistency distillation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DcdConfig {
    /// The step in the first round.
    pub first: f64,
    /// Number of rounds.
    pub rounds: u32,
    /// The noise, as `[first, last]`; if empty, from almost no noise to almost pure noise
    /// ([`Transform::covering`]).
    #[serde(with = "ends")]
    pub gamma: Option<Gamma>,
}

impl Default for DcdConfig {
    /// The published five rounds. The published noise suits only vocabularies of tens of thousands
    /// of tokens.
    fn default() -> Self {
        Self {
            first: dcd::FIRST_STEP,
            rounds: 5,
            gamma: None,
        }
    }
}

impl DcdConfig {
    /// Returns the step in each round.
    ///
    /// # Errors
    ///
    /// [`DiscreteConfigError::Rounds`] if there are no rounds, or the step of the last round
    /// exceeds 1.
    pub fn steps(&self) -> Result<Vec<f64>, DiscreteConfigError> {
        steps("dcd", self.first, self.rounds, 1.0)
    }

    /// Returns the noise for a vocabulary size.
    ///
    /// # Errors
    ///
    /// [`DiscreteConfigError::Gamma`] if the noise does not grow.
    pub fn noise(&self, vocab_size: usize) -> Result<Gamma, DiscreteConfigError> {
        noise("dcd.gamma", self.gamma, vocab_size)
    }
}

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DiscreteConfigError {
    /// A number out of its range.
    #[error("{key} must lie between {least} and {most}, found {found:?}")]
    Range {
        /// The key.
        key: &'static str,
        /// The smallest allowed value.
        least: f64,
        /// The largest allowed value.
        most: f64,
        /// The value given.
        found: f64,
    },
    /// Noise that does not grow with time.
    #[error("{key} must grow from first to last, found {first} and {last}")]
    Gamma {
        /// The key.
        key: &'static str,
        /// g at time 0.
        first: f64,
        /// g at time 1.
        last: f64,
    },
    /// The number of rounds or a step is out of range.
    #[error(
        "{rounds} rounds of {key} with a first step of {first} are invalid: at least 1 round is needed, and the last step must be at most {most}"
    )]
    Rounds {
        /// The distillation.
        key: &'static str,
        /// The number of rounds.
        rounds: u32,
        /// The first step.
        first: f64,
        /// The largest allowed step.
        most: f64,
    },
}

fn check(key: &'static str, found: f64, least: f64, most: f64) -> Result<(), DiscreteConfigError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(DiscreteConfigError::Range {
        key,
        least,
        most,
        found,
    })
}

fn noise(
    key: &'static str,
    gamma: Option<Gamma>,
    vocab_size: usize,
) -> Result<Gamma, DiscreteConfigError> {
    let Some(Gamma { first, last }) = gamma else {
        return Ok(Transform::new(vocab_size).covering());
    };
    if first.is_finite() && last.is_finite() && first < last {
        return Ok(Gamma { first, last });
    }
    Err(DiscreteConfigError::Gamma { key, first, last })
}

/// Serializes noise as a list of two numbers, or as an empty list, so that the key is
/// always present.
mod ends {
    use super::Gamma;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        gamma: &Option<Gamma>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let ends = gamma.map(|gamma| vec![gamma.first, gamma.last]);
        ends.unwrap_or_default().serialize(serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Option<Gamma>, D::Error> {
        match Vec::<f64>::deserialize(deserializer)?.as_slice() {
            [] => Ok(None),
            &[first, last] => Ok(Some(Gamma { first, last })),
            found => Err(D::Error::custom(format!(
                "gamma must be two numbers or none, found {}",
                found.len()
            ))),
        }
    }
}

fn steps(
    key: &'static str,
    first: f64,
    rounds: u32,
    most: f64,
) -> Result<Vec<f64>, DiscreteConfigError> {
    let steps: Vec<f64> = sdtt::rounds(first, rounds.min(64)).collect();
    match steps.last() {
        Some(&last) if first > 0.0 && last <= most && rounds <= 64 => Ok(steps),
        _ => Err(DiscreteConfigError::Rounds {
            key,
            rounds,
            first,
            most,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_rounds_fit_and_double() {
        let steps = SdttConfig::default().steps().unwrap();
        assert_eq!((steps[0], steps[6]), (1.0 / 1024.0, 1.0 / 16.0));
        let steps = DcdConfig::default().steps().unwrap();
        assert_eq!((steps[0], steps[4]), (1.0 / 512.0, 1.0 / 32.0));
    }

    #[test]
    fn impossible_settings_are_named() {
        let long = SdttConfig {
            rounds: 11,
            ..SdttConfig::default()
        };
        assert_eq!(
            long.steps().unwrap_err().to_string(),
            "11 rounds of sdtt with a first step of 0.0009765625 are invalid: at least 1 round is needed, and the last step must be at most 0.5"
        );
        let none = DcdConfig {
            rounds: 0,
            ..DcdConfig::default()
        };
        assert!(none.steps().is_err());
        let back = DcdConfig {
            gamma: Some(Gamma {
                first: 1.0,
                last: 0.0,
            }),
            ..DcdConfig::default()
        };
        assert_eq!(
            back.noise(9).unwrap_err().to_string(),
            "dcd.gamma must grow from first to last, found 1 and 0"
        );
        let much = CurriculumConfig {
            share: 1.5,
            ..CurriculumConfig::default()
        };
        assert_eq!(
            much.curriculum(9, 10).unwrap_err().to_string(),
            "curriculum.share must lie between 0 and 1, found 1.5"
        );
        let cold = CurriculumConfig {
            temperature: 1e-300,
            ..CurriculumConfig::default()
        };
        assert_eq!(
            cold.curriculum(9, 10).unwrap_err().to_string(),
            "curriculum.temperature must lie between 0.000001 and 1000, found 1e-300"
        );
    }

    #[test]
    fn a_curriculum_takes_its_share_of_the_steps() {
        let half = CurriculumConfig::default();
        let curriculum = half.curriculum(9, 100).unwrap().unwrap();
        assert!(curriculum.lasts(49) && !curriculum.lasts(50));
        let none = CurriculumConfig { share: 0.0, ..half };
        assert!(none.curriculum(9, 100).unwrap().is_none());
    }
}
