//! Constructors for the training and distillation of discrete models.

use super::Trainer;
use crate::{Error, Model, ModelNetwork, Result, Rows, purpose};
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, DitConfig, Family};
use flm_discrete::autoregressive::AutoregressiveObjective;
use flm_discrete::dcd::DcdObjective;
use flm_discrete::duo::DuoObjective;
use flm_discrete::mdlm::MdlmObjective;
use flm_discrete::sdtt::{Divergence, SdttObjective};
use flm_discrete::{CurriculumConfig, DcdConfig, LogLinear};
use flm_objective::trainable;
use flm_simplex::stream::generator;
use flm_train::TrainConfig;

impl<'a, B: AutodiffBackend> Trainer<'a, B, MdlmObjective> {
    /// Trains a masked diffusion model from scratch.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the sizes are invalid, [`Error::Option`] if a setting applies only
    /// to flows.
    pub fn masked(
        network: DitConfig,
        rows: &'a Rows,
        settings: TrainConfig,
        device: &B::Device,
    ) -> Result<Self> {
        let config = network.with_family(Family::Mdlm);
        let network = initial(&config, &settings, device)?;
        let objective = MdlmObjective::default();
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, DuoObjective> {
    /// Trains a uniform-state diffusion model from scratch.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the sizes are invalid, [`Error::Option`] if a setting applies only to
    /// flows, [`Error::Discrete`] if the curriculum is invalid.
    pub fn uniform_state(
        network: DitConfig,
        curriculum: CurriculumConfig,
        rows: &'a Rows,
        settings: TrainConfig,
        device: &B::Device,
    ) -> Result<Self> {
        let config = network.with_family(Family::Duo);
        let curriculum = curriculum.curriculum(config.vocab_size, settings.steps)?;
        let network = initial(&config, &settings, device)?;
        let objective = DuoObjective::new(LogLinear::default(), curriculum);
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, AutoregressiveObjective> {
    /// Trains an autoregressive model from scratch.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the sizes are invalid, [`Error::Option`] if a setting applies only
    /// to flows.
    pub fn autoregressive(
        network: DitConfig,
        rows: &'a Rows,
        settings: TrainConfig,
        device: &B::Device,
    ) -> Result<Self> {
        let config = network.with_family(Family::Autoregressive);
        let network = initial(&config, &settings, device)?;
        Ok(Self::new(
            network,
            config,
            AutoregressiveObjective,
            rows,
            settings,
        ))
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, SdttObjective<B::InnerBackend>> {
    /// Distills a masked diffusion model for one round.
    ///
    /// The student learns to take two of the teacher's steps of time `step` in one.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is not a masked diffusion model or a setting applies only
    /// to flows.
    pub fn sdtt(
        teacher: &Model<B::InnerBackend>,
        step: f64,
        divergence: Divergence,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Result<Self> {
        refuse_flow_settings(&settings)?;
        let frozen = of_family(teacher, Family::Mdlm)?;
        let objective = SdttObjective::new(LogLinear::default(), frozen.clone(), step, divergence);
        let (network, config) = (trainable(frozen.clone()), teacher.config().clone());
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, DcdObjective<B::InnerBackend>> {
    /// Distills a uniform-state diffusion model for one round.
    ///
    /// The student at time t learns to predict what the teacher predicts at t − `step`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is not a uniform-state diffusion model or a setting applies
    /// only to flows, [`Error::Discrete`] if the noise is invalid.
    pub fn dcd(
        teacher: &Model<B::InnerBackend>,
        step: f64,
        noise: &DcdConfig,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Result<Self> {
        refuse_flow_settings(&settings)?;
        let frozen = of_family(teacher, Family::Duo)?;
        let noise = noise.noise(teacher.config().vocab_size)?;
        let objective = DcdObjective::new(noise, frozen.clone(), step);
        let (network, config) = (trainable(frozen.clone()), teacher.config().clone());
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

/// Initializes a network for training.
pub(super) fn initial<B: AutodiffBackend>(
    config: &DitConfig,
    settings: &TrainConfig,
    device: &B::Device,
) -> Result<Dit<B>> {
    refuse_flow_settings(settings)?;
    let mut rng = generator(settings.seed, purpose::INITIALIZATION, 0, 0);
    Ok(config.init(&mut rng, device)?)
}

/// Returns an error if a setting is given that applies only to the training of flows.
pub(super) fn refuse_flow_settings(settings: &TrainConfig) -> Result<()> {
    match settings.of_flows() {
        None => Ok(()),
        Some((key, plain)) => Err(Error::Option(format!(
            "the setting {key} applies only to the training of a flow: set it to {plain}"
        ))),
    }
}

/// Returns the teacher's network, or an error if it is of another family.
fn of_family<B: Backend>(teacher: &Model<B>, family: Family) -> Result<&Dit<B>> {
    match teacher.network() {
        ModelNetwork::Tokens(network) if teacher.config().family == family => Ok(network),
        _ => Err(Error::Option(format!(
            "the teacher {} is of family {}, expected {family}",
            teacher.name(),
            teacher.config().family
        ))),
    }
}
