//! Checks of sampling options against a model.

use super::{SampleOptions, Sampler};
use crate::{Conditioning, Error, Guidance, Result, WeakNetwork, kind};
use flm_denoiser::{DitConfig, Family, TemperatureError};
use flm_simplex::SamplerError;

impl SampleOptions {
    /// Checks values that are invalid for every model.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], [`Error::Sampler`] or [`Error::Temperature`].
    pub fn validate(&self) -> Result<()> {
        for (what, value) in [
            ("samples", self.count),
            ("steps", self.steps.unwrap_or(1)),
            ("samples in a batch", self.batch),
        ] {
            if value == 0 {
                return Err(Error::Option(format!(
                    "the number of {what} must be at least 1, found 0"
                )));
            }
        }
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(SamplerError::Gamma { gamma: self.gamma }.into());
        }
        TemperatureError::check(self.temperature)?;
        if !(self.noise_scale.is_finite() && self.noise_scale > 0.0) {
            return Err(Error::Option(format!(
                "the noise scale must be positive and finite, found {}",
                self.noise_scale
            )));
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return Err(Error::Option(format!(
                "top-p must lie between 0 and 1, found {}",
                self.top_p
            )));
        }
        Ok(())
    }

    /// Returns `true` if samples of both options can be drawn in one batch: they differ in seed,
    /// count, batch size and known text only, both or neither have known text, and a dropout
    /// guidance is not used.
    pub fn fits(&self, other: &Self) -> bool {
        let open = |options: &Self| options.conditioning == Conditioning::None;
        let same = Self {
            count: self.count,
            seed: self.seed,
            first: self.first,
            batch: self.batch,
            conditioning: self.conditioning.clone(),
            ..other.clone()
        };
        let dropout = self
            .guidance
            .auto
            .as_ref()
            .is_some_and(|auto| matches!(auto.weak, WeakNetwork::Dropout(_)));
        !dropout && open(self) == open(other) && *self == same
    }

    /// Returns the number of steps for a model.
    ///
    /// The default is 1 for a flow map, 32 for a flow, 64 for a discrete diffusion model, and one
    /// per token for an autoregressive model.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the model is autoregressive and a number is given.
    pub fn steps_of(&self, config: &DitConfig, model: &str) -> Result<usize> {
        match (config.family, self.steps) {
            (Family::Autoregressive, None) => Ok(config.length),
            (Family::Autoregressive, Some(_)) => Err(Error::Unsupported(format!(
                "{model} is autoregressive and takes one step for each of its {} tokens: omit `steps`",
                config.length
            ))),
            (_, Some(steps)) => Ok(steps),
            (Family::Flow, None) if config.two_time => Ok(1),
            (Family::Flow, None) => Ok(32),
            (_, None) => Ok(64),
        }
    }

    /// Checks values that are invalid for every model, and options that this kind of model does
    /// not support.
    ///
    /// # Errors
    ///
    /// The errors of [`validate`](Self::validate), and [`Error::Unsupported`].
    pub fn check(&self, config: &DitConfig, model: &str) -> Result<()> {
        self.validate()?;
        self.steps_of(config, model)?;
        if self.sampler != Sampler::Ode && self.gamma > 0.0 {
            return Err(Error::Option(format!(
                "gamma {} applies only to the sampler `ode`: the others set their own noise level",
                self.gamma
            )));
        }
        if matches!(self.sampler, Sampler::Bridge | Sampler::Renoise)
            && self.guidance.auto.is_some()
        {
            return Err(Error::Option(
                "no tokens can be drawn under guidance, because it leaves the simplex: use the sampler `ode` or `bridge-mean`"
                    .to_owned(),
            ));
        }
        let is_flow = config.family == Family::Flow;
        let one_network = Guidance::is_supported(config);
        let refusal = [
            (
                self.gamma > 0.0 && !(config.two_time && one_network),
                "a flow map with one network",
                format!("supports a gamma above 0, found {}", self.gamma),
            ),
            (
                self.greedy_tail && config.family != Family::Duo,
                "a duo model",
                "supports a greedy tail".to_owned(),
            ),
            (
                !self.sampler.is_default() && !one_network,
                "a flow or a flow map with one network",
                "supports a sampler".to_owned(),
            ),
            (
                self.noise_scale != 1.0 && !is_flow,
                "a flow or a flow map",
                "supports a noise scale".to_owned(),
            ),
            (
                self.top_p < 1.0 && config.residual,
                "a model with one network",
                format!("supports a top-p below 1, found {}", self.top_p),
            ),
            (
                self.temperature != 1.0 && config.residual,
                "a model with one network",
                format!(
                    "supports a temperature other than 1, found {}",
                    self.temperature
                ),
            ),
            (
                self.conditioning != Conditioning::None && config.residual,
                "a model with one network",
                "supports a prompt, suffix or infill".to_owned(),
            ),
        ];
        let refusal = refusal.into_iter().find(|(refused, ..)| *refused);
        refusal.map_or(Ok(()), |(_, who, what)| {
            Err(Error::Unsupported(format!(
                "{model} is {}: only {who} {what}",
                described(config)
            )))
        })
    }
}

/// The kind of a network, as part of a sentence.
fn described(config: &DitConfig) -> String {
    match config.family {
        Family::Flow => format!("a {}", kind(config)),
        _ => format!("of family {}", kind(config)),
    }
}
