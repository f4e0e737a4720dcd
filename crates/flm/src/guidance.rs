//! Guidance of a flow or a flow map: away from a weaker network, towards a reward.

mod networks;

pub(crate) use networks::{Guides, Strong, WeakModel};

use crate::{Conditioning, Error, ModelFolder, Result};
use burn::tensor::backend::Backend;
use flm_data::TextTokenizer;
use flm_denoiser::{DitConfig, Family, TokenDistribution};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest η or λ by its amount. Squares of states that were led so far still are numbers of f32; nothing is gained long before.
const FARTHEST: f64 = 1e6;

/// The largest rate of a dropout: beyond, hardly anything is left to multiply.
const LARGEST_RATE: f64 = 0.99;

/// What guides samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// Away from a weaker network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoguidanceOptions>,
    /// Towards a reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardOptions>,
}

/// Guidance away from a weaker network; one more evaluation a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoguidanceOptions {
    /// The scale: 1 is the model itself.
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
    /// Another model of the same kind, on the same tokens: [`WeakNetwork::model`].
    Model {
        /// Its folder.
        path: String,
        /// The beginning of the SHA-256 of its weights.
        weights: String,
    },
}

/// Guidance along the gradient of a reward; three more evaluations a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardOptions {
    /// The scale λ: 0 does not guide.
    pub scale: f64,
    /// The reward.
    pub of: RewardSource,
}

/// A reward of texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardSource {
    /// That these words occur. Each must be one token.
    Keyword(Vec<String>),
    /// That a classifier takes the text for a real one: [`RewardSource::classifier`].
    Classifier {
        /// Its folder.
        path: String,
        /// The beginning of the SHA-256 of its weights.
        weights: String,
    },
}

impl WeakNetwork {
    /// The model in a folder.
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

    /// Refuses a rate of dropout that drops nothing or nearly everything.
    ///
    /// # Errors
    ///
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Dropout(rate) if !(*rate > 0.0 && *rate <= LARGEST_RATE) => {
                Err(Error::Option(format!(
                    "the rate of dropout must lie above 0 and up to {LARGEST_RATE}, found {rate}"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl RewardOptions {
    /// The scale λ that is used where none is given: the best of four for a flow in 4 and in 16 steps (`docs/results/guidance.md`).
    pub const SCALE: f64 = 0.3;
}

impl RewardSource {
    /// The classifier in a folder.
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

    /// Refuses words that are not tokens of the model, and a classifier of other tokens.
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
    /// Whether nothing guides.
    pub fn is_none(&self) -> bool {
        self.auto.is_none() && self.reward.is_none()
    }

    /// Whether a model can be guided: it is a flow or a flow map of one network.
    pub fn is_supported(config: &DitConfig) -> bool {
        config.family == Family::Flow && !config.residual
    }

    /// Network evaluations of so many steps: in each one, one more of a weaker network, three more for a reward.
    pub fn evaluations(&self, steps: usize) -> usize {
        let (auto, reward) = (self.auto.is_some(), self.reward.is_some());
        steps * (1 + usize::from(auto) + 3 * usize::from(reward))
    }

    /// Refuses scales that cannot be.
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

    /// Refuses what does not fit the model.
    ///
    /// Neither a weaker network nor the look-ahead of a reward is given the known positions, so a model that was trained for those
    /// cannot be guided around them.
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
                "{model} is of kind {}: only a flow or a flow map of one network takes a {option}",
                crate::kind(config)
            )));
        }
        if config.conditioning && *conditioning != Conditioning::None {
            return Err(Error::Unsupported(format!(
                "{model} was trained for known positions: with a text given it takes no {option}"
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

    /// Refuses distributions that are not finite.
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

/// The token of a word, with a space before it if the vocabulary has it so.
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
                let rest = "too far: the model's last distributions are not finite";
                assert_eq!(error.to_string(), format!("{expected} {rest}"));
            }
        }
    }
}
