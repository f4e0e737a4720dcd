//! Guidance of a flow or a flow map, away from a weaker network and towards a reward.

mod networks;

pub(crate) use networks::{Guides, Strong, WeakModel};

use crate::{Conditioning, Error, ModelFolder, Result};
use burn::tensor::backend::Backend;
use flm_data::TextTokenizer;
use flm_denoiser::{DitConfig, Family, TokenDistribution};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest absolute value of η or λ. Squares of states guided at this scale still fit into f32,
/// and useful scales are far smaller.
const FARTHEST: f64 = 1e6;

/// The largest dropout rate. Beyond it, dropout removes nearly all activations.
const LARGEST_RATE: f64 = 0.99;

/// Guidance of samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// Autoguidance: away from a weaker network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoguidanceOptions>,
    /// Reward guidance: towards a higher reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardOptions>,
}

/// Guidance away from a weaker network; costs one more evaluation per step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoguidanceOptions {
    /// The scale η; 1 is the model without guidance.
    pub eta: f64,
    /// The weaker network.
    pub weak: WeakNetwork,
}

/// A weaker network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeakNetwork {
    /// The same network with dropout at this rate.
    Dropout(f64),
    /// Another model of the same kind with the same tokenizer; see [`WeakNetwork::model`].
    Model {
        /// The folder.
        path: String,
        /// The first digits of the SHA-256 of the weights.
        weights: String,
    },
}

/// Guidance along the gradient of a reward; costs three more evaluations per step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardOptions {
    /// The scale λ; 0 is no guidance.
    pub scale: f64,
    /// The reward.
    pub of: RewardSource,
}

/// A reward for texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardSource {
    /// The log-probability that these words occur. Each word must be one token.
    Keyword(Vec<String>),
    /// The log-probability that a classifier assigns to the text being real; see
    /// [`RewardSource::classifier`].
    Classifier {
        /// The folder.
        path: String,
        /// The first digits of the SHA-256 of the weights.
        weights: String,
    },
}

impl WeakNetwork {
    /// Creates the weaker network from a model folder.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::NotAModel`] or [`Error::Io`].
    pub fn model(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self::Model {
            weights: crate::folder::weights(&ModelFolder::find(path)?)?,
            path: path.display().to_string(),
        })
    }

    /// Checks that the dropout rate is above 0 and at most 0.99.
    ///
    /// # Errors
    ///
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Dropout(rate) if !(*rate > 0.0 && *rate <= LARGEST_RATE) => {
                Err(Error::Option(format!(
                    "the dropout rate must be above 0 and at most {LARGEST_RATE}, found {rate}"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl RewardOptions {
    /// The default scale λ: the best of four for a flow in 4 and in 16 steps
    /// (`docs/results/guidance.md`).
    pub const SCALE: f64 = 0.3;
}

impl RewardSource {
    /// Creates the reward from a classifier's folder.
    ///
    /// # Errors
    ///
    /// [`Error::Reward`] or [`Error::Io`].
    pub fn classifier(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        flm_reward::read_config(path)?;
        Ok(Self::Classifier {
            weights: crate::folder::weights(path)?,
            path: path.display().to_string(),
        })
    }

    /// Checks that each word is one token, or that the classifier has the model's tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], [`Error::Data`] or [`Error::Reward`].
    pub fn check(&self, tokenizer: &TextTokenizer, model: &str) -> Result<()> {
        match self {
            Self::Keyword(words) if words.is_empty() => {
                return Err(Error::Option(
                    "reward keyword: expected at least one word, found none".to_owned(),
                ));
            }
            Self::Keyword(words) => {
                for word in words {
                    one_token(word, tokenizer)?;
                }
            }
            Self::Classifier { path, .. } => {
                let found = flm_reward::read_config(Path::new(path))?.tokenizer_hash;
                if found != tokenizer.hash() {
                    return Err(Error::Option(format!(
                        "the reward {path} was trained on the tokenizer {found:.12}, but that of {model} is {:.12}",
                        tokenizer.hash()
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Guidance {
    /// Returns `true` if there is no guidance.
    pub fn is_none(&self) -> bool {
        self.auto.is_none() && self.reward.is_none()
    }

    /// Returns `true` if a model supports guidance: a flow or a flow map with one network.
    pub fn is_supported(config: &DitConfig) -> bool {
        config.family == Family::Flow && !config.residual
    }

    /// The number of network evaluations in `steps` steps.
    ///
    /// Each step takes one evaluation, one more for a weaker network, and three more for a reward.
    pub fn evaluations(&self, steps: usize) -> usize {
        let (auto, reward) = (self.auto.is_some(), self.reward.is_some());
        steps * (1 + usize::from(auto) + 3 * usize::from(reward))
    }

    /// Checks that the absolute value of a scale is at most 1e6.
    ///
    /// # Errors
    ///
    /// [`Error::Option`].
    pub fn check_scale(name: &str, scale: f64) -> Result<()> {
        if (-FARTHEST..=FARTHEST).contains(&scale) {
            return Ok(());
        }
        Err(Error::Option(format!(
            "{name} must lie between {} and {FARTHEST}, found {scale:?}",
            -FARTHEST
        )))
    }

    /// Checks that the guidance fits the model.
    ///
    /// Neither a weaker network nor the look-ahead of a reward takes known positions as input. A
    /// model that was trained with them therefore supports no guidance around known text.
    pub(crate) fn check(
        &self,
        config: &DitConfig,
        conditioning: &Conditioning,
        (tokenizer, model): (&TextTokenizer, &str),
    ) -> Result<()> {
        let option = match (&self.auto, &self.reward) {
            (Some(_), _) => "guidance",
            (_, Some(_)) => "reward",
            _ => return Ok(()),
        };
        if !Self::is_supported(config) {
            return Err(Error::Unsupported(format!(
                "{model} is of kind {}: only a flow or a flow map with one network supports the option {option}",
                crate::kind(config)
            )));
        }
        if config.conditioning && *conditioning != Conditioning::None {
            return Err(Error::Unsupported(format!(
                "{model} was trained with conditioning: it does not support the option {option} with known text"
            )));
        }
        if let Some(auto) = &self.auto {
            Self::check_scale("guidance", auto.eta)?;
            auto.weak.check()?;
        }
        if let Some(reward) = &self.reward {
            Self::check_scale("reward scale", reward.scale)?;
            reward.of.check(tokenizer, model)?;
        }
        Ok(())
    }

    /// Checks that distributions are finite.
    pub(crate) fn check_finite<B: Backend>(&self, denoised: &TokenDistribution<B>) -> Result<()> {
        let guidance = match (&self.auto, &self.reward) {
            (None, None) => return Ok(()),
            (Some(auto), None) => format!("guidance {:?}", auto.eta),
            (None, Some(reward)) => format!("reward scale {:?}", reward.scale),
            (Some(auto), Some(reward)) => {
                format!("guidance {:?} or reward scale {:?}", auto.eta, reward.scale)
            }
        };
        if denoised.is_finite() {
            return Ok(());
        }
        Err(Error::NotFinite { guidance })
    }
}

/// Returns the token of a word, with a leading space unless the bare word takes fewer tokens.
fn one_token(word: &str, tokenizer: &TextTokenizer) -> Result<u32> {
    let spaced = format!(" {word}");
    let mut found = [spaced.as_str(), word]
        .into_iter()
        .map(|text| tokenizer.encode(text))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    found.sort_by_key(Vec::len);
    match found[0][..] {
        [token] => Ok(token),
        _ => Err(Error::Option(format!(
            "reward keyword:{word}: the tokenizer makes {} tokens of the word, expected one",
            found[0].len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Flex;
    use burn::tensor::Tensor;

    #[test]
    fn guidance_that_is_too_far_is_named() {
        let auto = Some(AutoguidanceOptions {
            eta: 4.0,
            weak: WeakNetwork::Dropout(0.1),
        });
        let reward = Some(RewardOptions {
            scale: 0.5,
            of: RewardSource::Keyword(vec!["happy".to_owned()]),
        });
        let denoised = |of: f32| {
            let probabilities = [[[0.5, 0.5], [of, 0.0]]];
            TokenDistribution::<Flex>::pinned(Tensor::from_floats(
                probabilities,
                &Default::default(),
            ))
        };
        for (auto, reward, expected) in [
            (auto.clone(), None, "guidance 4.0 is"),
            (None, reward.clone(), "reward scale 0.5 is"),
            (auto, reward, "guidance 4.0 or reward scale 0.5 is"),
        ] {
            let guidance = Guidance { auto, reward };
            guidance.check_finite(&denoised(1.0)).unwrap();
            for of in [f32::NAN, f32::INFINITY] {
                let error = guidance.check_finite(&denoised(of)).unwrap_err();
                let rest = "too large: the model's last distributions are not finite";
                assert_eq!(error.to_string(), format!("{expected} {rest}"));
            }
        }
    }
}
