//! What guides the samples of a flow or a flow map: a weaker network to be led away from, a reward to be led to.

use super::guides::one_token;
use super::{Given, weights};
use crate::error::{CliError, Result};
use crate::files;
use crate::stages::inspect;
use crate::stages::origin::Origin;
use burn::tensor::backend::Backend;
use flm_denoiser::{Belief, DitConfig, Family, folder};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The λ of a reward where none is given: of the four that were swept, the best for a flow in 4 and in 16 steps (`docs/results/guidance.md`).
const REWARD_SCALE: f64 = 0.3;

/// The largest η or λ by its amount. Squares of states that were led so far still are numbers of f32; nothing is gained long before.
const FARTHEST: f64 = 1e6;

/// The largest rate of a dropout: beyond, hardly anything is left to multiply.
const LARGEST_RATE: f64 = 0.99;

/// What guides samples, as their lines say it; nothing of it where nothing does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guidance {
    /// Autoguidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auto: Option<Auto>,
    /// Reward guidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reward: Option<Rewarded>,
}

/// A weaker network, and how far from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Auto {
    pub(crate) eta: f64,
    pub(crate) weak: Weak,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weak {
    /// The same network, at this rate.
    Dropout(f64),
    /// Another one, with the beginning of its weights' hash.
    Model { path: String, weights: String },
}

/// A reward, and how far along its gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rewarded {
    pub(crate) scale: f64,
    pub(crate) of: Asked,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    /// That these words occur.
    Keyword(Vec<String>),
    /// That a classifier takes the text for a real one.
    Classifier { path: String, weights: String },
}

/// What the user typed about guidance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Typed<'a> {
    /// Values of η, none where it is not asked for.
    pub(crate) etas: &'a [f64],
    pub(crate) weak: Option<&'a str>,
    pub(crate) reward: Option<&'a str>,
    /// Values of λ.
    pub(crate) scales: &'a [f64],
}

impl Typed<'_> {
    /// Which option asks for guidance, if one does, however little it weighs.
    pub(crate) fn option(&self) -> Option<&'static str> {
        match (self.etas, self.reward) {
            ([_, ..], _) => Some("--guidance"),
            (_, Some(_)) => Some("--reward"),
            _ => None,
        }
    }

    /// Refuses numbers that no η or λ can be.
    pub(crate) fn check(&self) -> Result<()> {
        for (option, values) in [("--guidance", self.etas), ("--reward-scale", self.scales)] {
            let mut values = values.iter();
            if let Some(value) = values.find(|value| !(-FARTHEST..=FARTHEST).contains(*value)) {
                return Err(CliError::input(format!(
                    "{option} must lie between {} and {FARTHEST}, found {value:?}",
                    -FARTHEST
                )));
            }
        }
        Ok(())
    }
}

/// Whether a model can be guided.
pub(crate) fn is_guided(config: &DitConfig) -> bool {
    config.family == Family::Flow && !config.residual
}

impl Guidance {
    /// The guidance of `model` by every η with every λ; an η of 1 and a λ of 0 guide nothing. What is named is looked for even where it weighs nothing.
    pub(crate) fn all(model: &Path, typed: Typed<'_>) -> Result<Vec<Self>> {
        typed.check()?;
        let Some(option) = typed.option() else {
            return Ok(vec![Self::default()]);
        };
        let folder = files::model_folder(model)?;
        let config = folder::read_config(&folder)?;
        if !is_guided(&config) {
            return Err(CliError::input(format!(
                "{} is of kind {}: only a flow or a flow map of one network takes {option}",
                model.display(),
                inspect::kind(&config)
            )));
        }
        let or = |values: &[f64], usual: f64| match values {
            [] => vec![usual],
            _ => values.to_vec(),
        };
        let (etas, scales) = (or(typed.etas, 1.0), or(typed.scales, REWARD_SCALE));
        let guides = etas.iter().any(|eta| *eta != 1.0);
        let weak = (typed.weak.or(guides.then_some("dropout")))
            .map(|typed| weak(model, typed))
            .transpose()?;
        let reward = (typed.reward)
            .map(|reward| asked(reward, &folder, model))
            .transpose()?;
        let by = |eta: f64, scale: f64| Self {
            auto: (weak.clone().filter(|_| eta != 1.0)).map(|weak| Auto { eta, weak }),
            reward: (reward.clone().filter(|_| scale != 0.0)).map(|of| Rewarded { scale, of }),
        };
        let pairs = (etas.iter()).flat_map(|eta| scales.iter().map(|scale| by(*eta, *scale)));
        Ok(pairs.collect())
    }

    /// Whether a weaker network guides.
    pub(super) fn is_auto(&self) -> bool {
        self.auto.is_some()
    }

    /// Whether nothing guides.
    pub(crate) fn is_none(&self) -> bool {
        self.auto.is_none() && self.reward.is_none()
    }

    /// What so many steps cost: of each an evaluation, one of the weaker network, and for a reward one forward and a pass back, which counts two.
    pub(crate) fn evaluations(&self, steps: usize) -> usize {
        let (auto, reward) = (self.auto.is_some(), self.reward.is_some());
        steps * (1 + usize::from(auto) + 3 * usize::from(reward))
    }

    /// Refuses to guide what a network that was trained for known positions is given: neither a weaker one nor the look-ahead of a reward is told
    /// what is known.
    pub(super) fn check(&self, config: &DitConfig, given: &Given, model: &str) -> Result<()> {
        let option = match (&self.auto, &self.reward) {
            (Some(_), _) => "--guidance",
            (_, Some(_)) => "--reward",
            _ => return Ok(()),
        };
        if config.conditioning && *given != Given::Nothing {
            return Err(CliError::input(format!(
                "{model} was trained for known positions: with a text given it takes no {option}"
            )));
        }
        Ok(())
    }

    /// Refuses a belief that the guidance has driven out of all numbers.
    pub(super) fn check_finite<B: Backend>(&self, belief: &Belief<B>) -> Result<()> {
        let too_far = match (&self.auto, &self.reward) {
            (None, None) => return Ok(()),
            (Some(auto), None) => format!("--guidance {:?} is too far", auto.eta),
            (None, Some(reward)) => format!("--reward-scale {:?} is too far", reward.scale),
            (Some(auto), Some(reward)) => format!(
                "--guidance {:?} or --reward-scale {:?} is too far",
                auto.eta, reward.scale
            ),
        };
        if belief.is_finite() {
            return Ok(());
        }
        Err(CliError::input(format!(
            "{too_far}: what the model believes in the end is not finite"
        )))
    }
}

/// `dropout`, `dropout:P` or a model.
fn weak(model: &Path, typed: &str) -> Result<Weak> {
    let rate = match typed.split_once(':') {
        Some(("dropout", rate)) => rate.parse().ok().filter(|rate| (0.0..=LARGEST_RATE).contains(rate)).ok_or_else(|| {
            CliError::input(format!(
                "--weak {typed}: the rate of dropout must lie above 0 and up to {LARGEST_RATE}, found {rate}"
            ))
        })?,
        _ if typed == "dropout" => folder::read_config(&files::model_folder(model)?)?.dropout,
        _ => {
            let folder = files::model_folder(Path::new(typed))?;
            return Ok(Weak::Model {
                path: typed.to_owned(),
                weights: weights(&folder)?,
            });
        }
    };
    if rate > 0.0 {
        return Ok(Weak::Dropout(rate));
    }
    Err(CliError::input(format!(
        "--weak {typed} drops nothing: {} was trained without dropout, so name a rate, as in dropout:0.1",
        model.display()
    )))
}

/// `keyword:WORDS` or `classifier:DIR`, of the tokens of the model in `folder`.
fn asked(typed: &str, folder: &Path, model: &Path) -> Result<Asked> {
    let tokenizer = || Origin::read(folder)?.tokenizer(folder);
    match typed.split_once(':') {
        Some(("keyword", words)) if words.split(',').all(|word| !word.trim().is_empty()) => {
            let words: Vec<_> = words
                .split(',')
                .map(|word| word.trim().to_owned())
                .collect();
            let tokenizer = tokenizer()?;
            for word in &words {
                one_token(word, &tokenizer)?;
            }
            Ok(Asked::Keyword(words))
        }
        Some(("classifier", path)) => {
            let found = flm_reward::read_config(Path::new(path))?.tokenizer_hash;
            let tokenizer = tokenizer()?;
            if found != tokenizer.hash() {
                return Err(CliError::input(format!(
                    "the reward {path} was trained on the tokenizer {found:.12}, but that of {} is {:.12}",
                    model.display(),
                    tokenizer.hash()
                )));
            }
            Ok(Asked::Classifier {
                path: path.to_owned(),
                weights: weights(Path::new(path))?,
            })
        }
        _ => Err(CliError::input(format!(
            "--reward {typed}: expected keyword:WORD,WORD or classifier:DIR"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tensor;
    use burn_flex::Flex;

    #[test]
    fn what_led_too_far_is_named() {
        let auto = Some(Auto {
            eta: 4.0,
            weak: Weak::Dropout(0.1),
        });
        let reward = Some(Rewarded {
            scale: 0.5,
            of: Asked::Keyword(vec!["happy".to_owned()]),
        });
        let belief = |of: f32| {
            let probabilities = [[[0.5, 0.5], [of, 0.0]]];
            Belief::<Flex>::pinned(Tensor::from_floats(probabilities, &Default::default()))
        };
        for (auto, reward, expected) in [
            (auto.clone(), None, "--guidance 4.0 is"),
            (None, reward.clone(), "--reward-scale 0.5 is"),
            (auto, reward, "--guidance 4.0 or --reward-scale 0.5 is"),
        ] {
            let guidance = Guidance { auto, reward };
            guidance.check_finite(&belief(1.0)).unwrap();
            for of in [f32::NAN, f32::INFINITY] {
                let error = guidance.check_finite(&belief(of)).unwrap_err();
                let rest = "too far: what the model believes in the end is not finite";
                assert_eq!(error.to_string(), format!("{expected} {rest}"));
            }
        }
    }
}
