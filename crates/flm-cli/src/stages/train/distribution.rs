//! Matching the distribution of a flow, from the flow itself or from a flow map of it.

use super::{Plan, Request, check_fits};
use crate::config::{Config, ModelSettings};
use crate::device::{Job, Place};
use crate::error::{CliError, Result};
use crate::stages::purpose;
use burn::tensor::backend::AutodiffBackend;
use flm::{Card, ModelFolder};
use flm_data::Dataset;
use flm_denoiser::{DitConfig, Family, folder};
use flm_distill::{DistributionObjective, ObjectiveKind};
use flm_simplex::stream::generator;

/// Where the networks are.
pub(super) struct Folders {
    teacher: ModelFolder,
    /// What the student starts as: the teacher, or a flow map of it.
    start: ModelFolder,
}

/// The folders, if the configuration asks for this objective.
pub(super) fn folders(config: &Config) -> Result<Option<Folders>> {
    let settings = &config.distill;
    if settings.flow_map.objective != ObjectiveKind::Distribution {
        if !settings.start.is_empty() {
            return Err(CliError::input(format!(
                "distill.start is a setting of the distribution objective, found the objective {}",
                settings.flow_map.objective.name()
            )));
        }
        return Ok(None);
    }
    settings.distribution.validate()?;
    if settings.teacher.is_empty() {
        return Err(CliError::input(
            "the distribution objective compares with a frozen flow: name the flow by --teacher",
        ));
    }
    let teacher = ModelFolder::open(&settings.teacher)?;
    let start = match settings.start.as_str() {
        "" => teacher.clone(),
        path => ModelFolder::open(path)?,
    };
    Ok(Some(Folders { teacher, start }))
}

/// Distribution matching, once it is known from where.
pub(super) struct DistributionJob<'a> {
    pub(super) request: Request<'a>,
    pub(super) dataset: &'a Dataset,
    pub(super) folders: Folders,
}

impl Job for DistributionJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self {
            mut request,
            dataset,
            folders: Folders { teacher, start },
        } = self;
        let device = &place.device;
        check_fits(&teacher, dataset, request.data)?;
        check_fits(&start, dataset, request.data)?;
        let (teacher, start) = (teacher.path(), start.path());
        let (denoiser, of_flow) = folder::load::<B::InnerBackend>(teacher, device)?;
        let (student, of_start) = folder::load::<B>(start, device)?;
        if of_start.family != Family::Flow {
            return Err(CliError::input(format!(
                "distill.start {} is of family {}: only a flow map can become one of one step",
                start.display(),
                of_start.family
            )));
        }
        if of_flow.two_time {
            return Err(CliError::input(format!(
                "the distribution objective compares with a flow, but the teacher {} is a flow map: name it by distill.start",
                teacher.display()
            )));
        }
        for (key, of_start, of_flow) in [
            (
                "schedule_vocab",
                of_start.schedule_vocab.to_string(),
                of_flow.schedule_vocab.to_string(),
            ),
            (
                "clock",
                format!("{:?}", of_start.clock),
                format!("{:?}", of_flow.clock),
            ),
        ] {
            if of_start != of_flow {
                return Err(CliError::input(format!(
                    "{} and {} count time differently: {key} is {of_start} and {of_flow}",
                    start.display(),
                    teacher.display(),
                )));
            }
        }
        request.config.model = ModelSettings::of(&of_start);
        let network = DitConfig {
            loss_weight: false,
            conditioning: false,
            self_conditioning: false,
            ..of_start.with_two_time(true)
        };
        let mut rng = generator(
            request.config.distill.train.seed,
            purpose::SECOND_TIME,
            0,
            0,
        );
        let student = student
            .without_earlier()
            .into_two_time(network.cond_dim, &mut rng, device)
            .with_loss_weight_of(&network, &mut rng, device);
        let settings = request.config.distill.distribution.clone();
        let plan = Plan::new(request, dataset, network, "flow map", true)?;
        let denoiser = denoiser.with_execution(place.execution);
        let plain = denoiser.clone().without_earlier();
        let auxiliary = if settings.levels > 1 {
            let mut rng = generator(plan.settings.seed, purpose::AUXILIARY, 0, 0);
            let cond_dim = plan.network.cond_dim;
            plain.into_two_time(cond_dim, &mut rng, device)
        } else {
            plain
        };
        let schedule = plan.schedule.clone();
        let objective = DistributionObjective::new(schedule, settings, denoiser, auxiliary);
        plan.train(place, student, &objective)
    }
}
