//! What a model's kind supports.

use super::{SampleOptions, Sampler};
use crate::{Conditioning, Error, Guidance, Result, kind};
use flm_denoiser::{DitConfig, Family, TemperatureError};
use flm_simplex::SamplerError;

impl SampleOptions {
    /// Refuses values that no model takes.
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

    /// The number of steps of a model: the given one, or by default 1 for a flow map, 32 for a flow, 64 for a diffusion of tokens, and one a
    /// token for an autoregressive model.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if an autoregressive model is given a number.
    pub fn steps_of(&self, config: &DitConfig, model: &str) -> Result<usize> {
        match (config.family, self.steps) {
            (Family::Autoregressive, None) => Ok(config.length),
            (Family::Autoregressive, Some(_)) => Err(Error::Unsupported(format!(
                "{model} is autoregressive and takes a step for each of its {} tokens: leave `steps` out",
                config.length
            ))),
            (_, Some(steps)) => Ok(steps),
            (Family::Flow, None) if config.two_time => Ok(1),
            (Family::Flow, None) => Ok(32),
            (_, None) => Ok(64),
        }
    }

    /// Refuses values that no model takes, and what the kind of this model does not support.
    ///
    /// # Errors
    ///
    /// As those of [`validate`](Self::validate), and [`Error::Unsupported`].
    pub fn check(&self, config: &DitConfig, model: &str) -> Result<()> {
        self.validate()?;
        self.steps_of(config, model)?;
        if self.sampler != Sampler::Ode && self.gamma > 0.0 {
            return Err(Error::Option(format!(
                "gamma {} is for the sampler `ode`: the others decide how much noise they add back",
                self.gamma
            )));
        }
        if matches!(self.sampler, Sampler::Bridge | Sampler::Renoise)
            && self.guidance.auto.is_some()
        {
            return Err(Error::Option(
                "guidance leaves the simplex, so no tokens can be drawn: use the sampler `ode` or `bridge-mean`"
                    .to_owned(),
            ));
        }
        let is_flow = config.family == Family::Flow;
        let one_network = Guidance::is_supported(config);
        let refusal = [
            (
                self.gamma > 0.0 && !(config.two_time && one_network),
                "a flow map of one network",
                format!("takes a gamma above 0, found {}", self.gamma),
            ),
            (
                self.greedy_tail && config.family != Family::Duo,
                "a duo model",
                "takes a greedy tail".to_owned(),
            ),
            (
                !self.sampler.is_default() && !one_network,
                "a flow or a flow map of one network",
                "takes a sampler".to_owned(),
            ),
            (
                self.noise_scale != 1.0 && !is_flow,
                "a flow or a flow map",
                "takes a noise scale".to_owned(),
            ),
            (
                self.top_p < 1.0 && config.residual,
                "a model of one network",
                format!("takes a top-p below 1, found {}", self.top_p),
            ),
            (
                self.temperature != 1.0 && config.residual,
                "a model of one network",
                format!(
                    "takes a temperature other than 1, found {}",
                    self.temperature
                ),
            ),
            (
                self.conditioning != Conditioning::None && config.residual,
                "a model of one network",
                "takes a prompt, suffix or infill".to_owned(),
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

/// The kind of a network, in a sentence.
fn described(config: &DitConfig) -> String {
    match config.family {
        Family::Flow => format!("a {}", kind(config)),
        _ => format!("of family {}", kind(config)),
    }
}
