//! Options for guidance.

use crate::error::{CliError, Result};
use clap::Args;
use flm::{AutoguidanceOptions, Guidance, ModelFolder, RewardOptions, RewardSource, WeakNetwork};

/// Options for the weak network of autoguidance and for the reward.
#[derive(Debug, Args)]
pub(crate) struct GuidesArgs {
    /// Weaker network for --guidance: dropout, dropout:P or a model [default: dropout]
    ///
    /// The model with dropout, at its own rate or P, or another model with the same tokenizer.
    #[arg(
        long,
        value_name = "NET",
        requires = "guidance",
        hide_short_help = true
    )]
    pub(crate) weak: Option<String>,
    /// Reward guidance: keyword:WORDS or classifier:DIR
    ///
    /// Words that should occur, or a classifier from `flm train-reward`. Costs three more
    /// evaluations per step.
    #[arg(long, value_name = "REWARD")]
    pub(crate) reward: Option<String>,
}

impl GuidesArgs {
    /// Returns the option that asks for guidance, if one is given, even at a neutral strength.
    pub(crate) fn option(&self, etas: &[f64]) -> Option<&'static str> {
        match (etas, &self.reward) {
            ([_, ..], _) => Some("--guidance"),
            (_, Some(_)) => Some("--reward"),
            _ => None,
        }
    }

    /// Returns the guidance for every pair of η and λ; η = 1 and λ = 0 are neutral. The weak
    /// network and the reward are opened even if every strength is neutral.
    pub(crate) fn guidances(
        &self,
        model: &ModelFolder,
        etas: &[f64],
        scales: &[f64],
    ) -> Result<Vec<Guidance>> {
        check_scales(etas, scales)?;
        let Some(option) = self.option(etas) else {
            return Ok(vec![Guidance::default()]);
        };
        if !Guidance::is_supported(model.config()) {
            return Err(CliError::input(format!(
                "{} is of kind {}: only a flow or a flow map of one network takes {option}",
                model.name(),
                model.kind()
            )));
        }
        let or = |values: &[f64], usual: f64| match values {
            [] => vec![usual],
            _ => values.to_vec(),
        };
        let (etas, scales) = (or(etas, 1.0), or(scales, RewardOptions::SCALE));
        let guides = etas.iter().any(|eta| *eta != 1.0);
        let weak = (self.weak.as_deref().or(guides.then_some("dropout")))
            .map(|written| weak(model, written))
            .transpose()?;
        let reward = (self.reward.as_deref())
            .map(|written| reward(model, written))
            .transpose()?;
        let by = |eta: f64, scale: f64| Guidance {
            auto: (weak.clone().filter(|_| eta != 1.0))
                .map(|weak| AutoguidanceOptions { eta, weak }),
            reward: (reward.clone().filter(|_| scale != 0.0)).map(|of| RewardOptions { scale, of }),
        };
        let pairs = (etas.iter()).flat_map(|eta| scales.iter().map(|scale| by(*eta, *scale)));
        Ok(pairs.collect())
    }
}

/// Returns an error for an invalid η or λ.
pub(crate) fn check_scales(etas: &[f64], scales: &[f64]) -> Result<()> {
    for (option, values) in [("--guidance", etas), ("--reward-scale", scales)] {
        for value in values {
            Guidance::check_scale(option, *value)?;
        }
    }
    Ok(())
}

/// Parses `dropout`, `dropout:P` or a model path.
fn weak(model: &ModelFolder, written: &str) -> Result<WeakNetwork> {
    let rate = match written.split_once(':') {
        Some(("dropout", rate)) => rate.parse().unwrap_or(f64::NAN),
        _ if written == "dropout" => model.config().dropout,
        _ => return Ok(WeakNetwork::model(written)?),
    };
    if rate == 0.0 && written == "dropout" {
        return Err(CliError::input(format!(
            "--weak dropout has no effect: {} was trained without dropout, so give a rate, as in dropout:0.1",
            model.name()
        )));
    }
    let weak = WeakNetwork::Dropout(rate);
    weak.check()
        .map_err(|error| CliError::input(format!("--weak {written}: {error}")))?;
    Ok(weak)
}

/// Parses `keyword:WORDS` or `classifier:DIR`.
fn reward(model: &ModelFolder, written: &str) -> Result<RewardSource> {
    let reward = match written.split_once(':') {
        Some(("keyword", words)) if words.split(',').all(|word| !word.trim().is_empty()) => {
            let words = words.split(',').map(|word| word.trim().to_owned());
            RewardSource::Keyword(words.collect())
        }
        Some(("classifier", path)) => RewardSource::classifier(path)?,
        _ => {
            return Err(CliError::input(format!(
                "--reward {written}: expected keyword:WORD,WORD or classifier:DIR"
            )));
        }
    };
    reward.check(&model.tokenizer()?, model.name())?;
    Ok(reward)
}
