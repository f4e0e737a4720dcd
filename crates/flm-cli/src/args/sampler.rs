//! Names of samplers, and checks of settings for several models.

use crate::error::{CliError, Result};
use flm::{ModelFolder, SampleOptions, Sampler};

/// Sampler of flows and flow maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SamplerName {
    /// Euler steps of a flow, jumps of a flow map
    Ode,
    /// Draw clean tokens at each step, then follow the Gaussian bridge towards them
    Bridge,
    /// The bridge towards the mean of the tokens
    BridgeMean,
    /// Draw clean tokens at each step, then replace all noise
    Renoise,
}

impl From<SamplerName> for Sampler {
    fn from(name: SamplerName) -> Self {
        match name {
            SamplerName::Ode => Self::Ode,
            SamplerName::Bridge => Self::Bridge,
            SamplerName::BridgeMean => Self::BridgeMean,
            SamplerName::Renoise => Self::Renoise,
        }
    }
}

/// Returns an error for an invalid gamma, or for a gamma above 0 if no model is a flow map.
pub(crate) fn check_gammas(gammas: &[f64], models: &[ModelFolder]) -> Result<()> {
    for &gamma in gammas {
        SampleOptions::default().gamma(gamma).validate()?;
    }
    match gammas.iter().find(|gamma| **gamma > 0.0) {
        Some(gamma) if !models.iter().any(|model| model.config().two_time) => Err(CliError::input(
            format!("--gamma {gamma} needs a flow map, and no model here is one"),
        )),
        _ => Ok(()),
    }
}
