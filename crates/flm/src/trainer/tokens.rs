//! Models of tokens, and their distillation.

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
    /// Trains a masked diffusion model from the beginning.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if no network has these sizes, [`Error::Option`] if a setting is for flows alone.
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
    /// Trains a uniform-state diffusion model from the beginning.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if no network has these sizes, [`Error::Discrete`] if the curriculum is impossible.
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
    /// Trains an autoregressive model from the beginning.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if no network has these sizes, [`Error::Option`] if a setting is for flows alone.
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
    /// One round of distilling a masked diffusion model: the student learns to do two of the teacher's steps of time `step` in one.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is another model.
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
    /// One round of distilling a uniform-state diffusion model: the student learns to answer at a time as the teacher does a `step` earlier.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is another model, [`Error::Discrete`] if the noise is impossible.
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

/// The network at the beginning of a training.
pub(super) fn initial<B: AutodiffBackend>(
    config: &DitConfig,
    settings: &TrainConfig,
    device: &B::Device,
) -> Result<Dit<B>> {
    refuse_flow_settings(settings)?;
    let mut rng = generator(settings.seed, purpose::INITIALIZATION, 0, 0);
    Ok(config.init(&mut rng, device)?)
}

/// Refuses settings that only the training of a flow reads.
pub(super) fn refuse_flow_settings(settings: &TrainConfig) -> Result<()> {
    match settings.of_flows() {
        None => Ok(()),
        Some((key, plain)) => Err(Error::Option(format!(
            "the setting {key} is for the training of a flow: set it to {plain}"
        ))),
    }
}

/// The network of a teacher of this family.
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
