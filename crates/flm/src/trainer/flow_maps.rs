//! Constructors for the training of flow maps, by distillation from a flow or from scratch.

use super::Trainer;
use super::tokens::{initial, refuse_flow_settings};
use crate::model::Frozen;
use crate::{Error, Model, ModelNetwork, Result, Rows, kind, purpose};
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, DitConfig, Family};
use flm_distill::{
    DistributionConfig, DistributionObjective, FlowMapConfig, FlowMapObjective, ResidualObjective,
    ResidualStudent,
};
use flm_objective::trainable;
use flm_simplex::stream::generator;
use flm_train::TrainConfig;
use rand_chacha::ChaCha8Rng;

impl<'a, B: AutodiffBackend> Trainer<'a, B, FlowMapObjective<B::InnerBackend>> {
    /// Distills a flow map from a flow. The student is initialized with the flow's weights.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is not a flow or a flow map with one network, or a setting
    /// applies only to flows, [`Error::FlowMap`] if the objective is invalid.
    pub fn flow_map(
        teacher: &Model<B::InnerBackend>,
        objective: FlowMapConfig,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Result<Self> {
        objective.validate()?;
        let frozen = flow(teacher)?;
        let mut rng = second_time(&settings)?;
        let config = DitConfig {
            loss_weight: objective.loss_weight,
            ..student_config(teacher.config())
        };
        let network = two_time(frozen, &config, &mut rng, teacher.device());
        let schedule = config.schedule()?;
        let objective = FlowMapObjective::new(schedule, objective, Some(frozen.clone()));
        Ok(Self::new(network, config, objective, rows, settings))
    }

    /// Trains a flow map from scratch, without a teacher.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the configuration is not for a flow, [`Error::Config`] if the sizes are
    /// invalid, [`Error::FlowMap`] if the objective is invalid.
    pub fn flow_map_alone(
        network: DitConfig,
        objective: FlowMapConfig,
        rows: &'a Rows,
        settings: TrainConfig,
        device: &B::Device,
    ) -> Result<Self> {
        objective.validate()?;
        if network.family != Family::Flow || network.residual {
            return Err(Error::Option(format!(
                "the network must be a flow, found {}",
                kind(&network)
            )));
        }
        let config = DitConfig {
            two_time: true,
            loss_weight: objective.loss_weight,
            ..network
        };
        let network = initial(&config, &settings, device)?;
        let objective = FlowMapObjective::new(config.schedule()?, objective, None);
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, DistributionObjective<B::InnerBackend>> {
    /// Distills a flow map by matching the distribution of a flow.
    ///
    /// The student is initialized with the weights of `start`, or of the teacher without one.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is not a flow, or teacher and start have different time
    /// schedules, [`Error::Distribution`] if the objective is invalid.
    pub fn distribution(
        teacher: &Model<B::InnerBackend>,
        start: Option<&Model<B::InnerBackend>>,
        objective: DistributionConfig,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Result<Self> {
        objective.validate()?;
        let start = start.unwrap_or(teacher);
        let (frozen, of_start) = (flow(teacher)?, flow(start)?);
        if teacher.config().two_time {
            return Err(Error::Option(format!(
                "the teacher of distribution matching must be a flow, but {} is a flow map: use it as the student's start instead",
                teacher.name()
            )));
        }
        let time = |config: &DitConfig| {
            [
                ("schedule_vocab", config.schedule_vocab.to_string()),
                ("clock", format!("{:?}", config.clock)),
            ]
        };
        let pairs = time(start.config()).into_iter().zip(time(teacher.config()));
        for ((key, ours), (_, theirs)) in pairs {
            if ours != theirs {
                return Err(Error::Option(format!(
                    "{} and {} have different time schedules: {key} is {ours} and {theirs}",
                    start.name(),
                    teacher.name(),
                )));
            }
        }
        let (config, device) = (student_config(start.config()), teacher.device());
        let network = two_time(of_start, &config, &mut second_time(&settings)?, device);
        let plain = frozen.clone().without_earlier();
        let auxiliary = if objective.levels > 1 {
            let mut rng = generator(settings.seed, purpose::AUXILIARY, 0, 0);
            plain.into_two_time(config.cond_dim, &mut rng, device)
        } else {
            plain
        };
        let schedule = config.schedule()?;
        let objective = DistributionObjective::new(schedule, objective, frozen.clone(), auxiliary);
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, ResidualObjective<B::InnerBackend>> {
    /// Trains the second network of a residual flow map. The flow is its frozen denoiser.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is not a flow.
    pub fn residual(
        teacher: &Model<B::InnerBackend>,
        loss_weight: bool,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Result<Self> {
        let (frozen, device) = (flow(teacher)?, teacher.device());
        if teacher.config().two_time {
            return Err(Error::Option(format!(
                "the teacher of a residual flow map must be a flow, but {} is a flow map",
                teacher.name()
            )));
        }
        let mut rng = second_time(&settings)?;
        let config = DitConfig {
            loss_weight,
            residual: true,
            ..student_config(teacher.config())
        };
        let network = trainable::<B, Dit<B>>(frozen.clone())
            .without_earlier()
            .into_residual(config.cond_dim, &mut rng, device)
            .with_loss_weight_of(&config, &mut rng, device);
        let objective = ResidualObjective::new(config.schedule()?, frozen.clone());
        let mut trainer = Self::new(network, config, objective, rows, settings);
        trainer.denoiser = Some(Frozen {
            network: frozen.clone(),
            config: teacher.config().clone(),
            card: Some(teacher.card().clone()),
        });
        Ok(trainer)
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, ResidualStudent<B::InnerBackend>> {
    /// Distills a flow map with one network from a residual flow map.
    ///
    /// The student is initialized with the weights of the denoiser.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the teacher is not a residual flow map.
    pub fn residual_student(
        teacher: &Model<B::InnerBackend>,
        loss_weight: bool,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Result<Self> {
        let (ModelNetwork::Residual(pair), Some(of_denoiser)) =
            (teacher.network(), teacher.denoiser_config())
        else {
            return Err(Error::Option(format!(
                "the teacher must be a residual flow map, but {} is a {}",
                teacher.name(),
                kind(teacher.config())
            )));
        };
        let mut rng = second_time(&settings)?;
        let config = DitConfig {
            loss_weight,
            ..student_config(of_denoiser)
        };
        let network = two_time(&pair.denoiser, &config, &mut rng, teacher.device());
        let objective = ResidualStudent::new(config.schedule()?, pair.as_ref().clone());
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

/// Returns the generator for the parameters that only the student has.
fn second_time(settings: &TrainConfig) -> Result<ChaCha8Rng> {
    refuse_flow_settings(settings)?;
    Ok(generator(settings.seed, purpose::SECOND_TIME, 0, 0))
}

/// The configuration of a flow map that is initialized from a flow.
fn student_config(flow: &DitConfig) -> DitConfig {
    DitConfig {
        loss_weight: false,
        conditioning: false,
        self_conditioning: false,
        ..flow.clone().with_two_time(true)
    }
}

/// Initializes a flow map from a flow.
fn two_time<B: AutodiffBackend>(
    flow: &Dit<B::InnerBackend>,
    config: &DitConfig,
    rng: &mut ChaCha8Rng,
    device: &B::Device,
) -> Dit<B> {
    trainable::<B, Dit<B>>(flow.clone())
        .without_earlier()
        .into_two_time(config.cond_dim, rng, device)
        .with_loss_weight_of(config, rng, device)
}

/// Returns the network of a flow or a flow map, or an error for another kind.
fn flow<B: Backend>(model: &Model<B>) -> Result<&Dit<B>> {
    match model.network() {
        ModelNetwork::Flow(network, _) => Ok(network),
        _ => Err(Error::Option(format!(
            "a flow map is distilled from a flow, but {} is a {} model",
            model.name(),
            kind(model.config())
        ))),
    }
}
