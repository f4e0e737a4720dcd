//! What guides the samples of a flow or a flow map: a weaker network to be led away from, a reward to be led to.

use super::{Given, weights};
use crate::error::{CliError, Result};
use crate::files;
use crate::stages::inspect;
use flm_denoiser::{DitConfig, Family, folder};
use serde::{Deserialize, Serialize};
use std::path::Path;

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

/// What the user typed about guidance, but for the numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Typed<'a> {
    pub(crate) weak: Option<&'a str>,
    pub(crate) reward: Option<&'a str>,
}

impl Guidance {
    /// The guidance of `model` by η = `eta` and λ = `scale`; an η of 1 and a λ of 0 guide nothing.
    pub(crate) fn new(model: &Path, typed: Typed<'_>, eta: f64, scale: f64) -> Result<Self> {
        for (option, value) in [("--guidance", eta), ("--reward-scale", scale)] {
            if !value.is_finite() {
                return Err(CliError::input(format!(
                    "{option} must be a finite number, found {value}"
                )));
            }
        }
        let auto = if eta == 1.0 {
            None
        } else {
            let weak = weak(model, typed.weak.unwrap_or("dropout"))?;
            Some(Auto { eta, weak })
        };
        let reward = match typed.reward {
            Some(reward) if scale != 0.0 => Some(Rewarded {
                scale,
                of: asked(reward)?,
            }),
            _ => None,
        };
        Ok(Self { auto, reward })
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

    /// Refuses a model that cannot be guided.
    pub(super) fn check(&self, config: &DitConfig, given: &Given, model: &str) -> Result<()> {
        let option = match (&self.auto, &self.reward) {
            (Some(_), _) => "--guidance",
            (_, Some(_)) => "--reward",
            _ => return Ok(()),
        };
        if config.family == Family::Flow && !config.residual {
            if config.conditioning && *given != Given::Nothing {
                // Neither the weaker network nor the look-ahead of a reward is told what is known.
                return Err(CliError::input(format!(
                    "{model} was trained for known positions: with a text given it takes no {option}"
                )));
            }
            return Ok(());
        }
        let kind = inspect::kind(config);
        Err(CliError::input(format!(
            "{model} is of kind {kind}: only a flow or a flow map of one network takes {option}"
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

/// `keyword:WORDS` or `classifier:DIR`.
fn asked(typed: &str) -> Result<Asked> {
    match typed.split_once(':') {
        Some(("keyword", words)) if words.split(',').all(|word| !word.trim().is_empty()) => {
            let words = words.split(',').map(|word| word.trim().to_owned());
            Ok(Asked::Keyword(words.collect()))
        }
        Some(("classifier", path)) => {
            flm_reward::read_config(Path::new(path))?;
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
