//! The residual recipe: a second network beside a frozen flow, then one network after both.

use super::{Plan, Request, check_fits};
use crate::config::{Config, ModelSettings};
use crate::device::{Job, Place};
use crate::error::{CliError, Result};
use crate::stages::purpose;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm::{CARD_FILE, Card, ModelFolder};
use flm_data::{Dataset, TOKENIZER_FILE};
use flm_denoiser::folder::{self, Content, DENOISER_FOLDER, Existing};
use flm_denoiser::{Dit, DitConfig};
use flm_distill::{FlowMapConfig, ObjectiveKind, ResidualObjective, ResidualStudent};
use flm_simplex::stream::generator;
use std::path::{Path, PathBuf};

/// What of the recipe a distillation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Training the second network, g.
    Second,
    /// Training one network after a teacher of two.
    Student,
}

/// The stage of the recipe that the configuration asks for, with the teacher's folder; nothing if it asks for another distillation.
pub(super) fn stage(config: &Config) -> Result<Option<(Stage, PathBuf)>> {
    let settings = &config.distill;
    let asked = settings.flow_map.objective == ObjectiveKind::Residual;
    if settings.teacher.is_empty() {
        return if asked {
            Err(CliError::input(
                "the residual objective trains a second network beside a frozen flow: name the flow by --teacher",
            ))
        } else {
            Ok(None)
        };
    }
    let folder = ModelFolder::open(&settings.teacher)?;
    let (path, teacher) = (folder.path().to_path_buf(), folder.config());
    if asked && teacher.two_time && !teacher.residual {
        return Err(CliError::input(format!(
            "the residual objective trains a second network beside a flow, but {} is a flow map: choose another distill.flow_map.objective",
            path.display()
        )));
    }
    if teacher.residual {
        check_settings(&settings.flow_map, &path)?;
        return Ok(Some((Stage::Student, path)));
    }
    Ok(asked.then_some((Stage::Second, path)))
}

/// Refuses settings that the second stage does not look at: it is told where to go by its teacher alone.
fn check_settings(settings: &FlowMapConfig, teacher: &Path) -> Result<()> {
    // Whatever objective a preset names: the run is of the residual recipe, and is recorded as such.
    let plain = FlowMapConfig {
        objective: settings.objective,
        loss_weight: settings.loss_weight,
        ..FlowMapConfig::default()
    };
    if *settings == plain {
        return Ok(());
    }
    Err(CliError::input(format!(
        "{} is a residual flow map: a student regresses onto it, and of distill.flow_map only loss_weight applies",
        teacher.display()
    )))
}

/// Either stage, once it is known which.
pub(super) struct ResidualJob<'a> {
    pub(super) request: Request<'a>,
    pub(super) dataset: &'a Dataset,
    pub(super) stage: Stage,
    /// The teacher's folder.
    pub(super) teacher: PathBuf,
}

impl Job for ResidualJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self {
            mut request,
            dataset,
            stage,
            teacher,
        } = self;
        request.config.distill.flow_map.objective = ObjectiveKind::Residual;
        let (device, seed) = (&place.device, request.config.distill.train.seed);
        let loss_weight = request.config.distill.flow_map.loss_weight;
        let mut rng = generator(seed, purpose::SECOND_TIME, 0, 0);
        let frozen = match stage {
            Stage::Second => teacher.clone(),
            Stage::Student => teacher.join(DENOISER_FOLDER),
        };
        let (model, of_flow) = folder::load::<B>(&frozen, device)?;
        check_fits(&ModelFolder::open(&teacher)?, dataset, request.data)?;
        request.config.model = ModelSettings::of(&of_flow);
        let network = DitConfig {
            two_time: true,
            loss_weight,
            residual: stage == Stage::Second,
            conditioning: false,
            self_conditioning: false,
            ..of_flow.clone()
        };
        let cond_dim = network.cond_dim;
        let model = model.without_earlier();
        let model = match stage {
            Stage::Second => model.into_residual(cond_dim, &mut rng, device),
            Stage::Student => model.into_two_time(cond_dim, &mut rng, device),
        };
        let model = model.with_loss_weight_of(&network, &mut rng, device);
        match stage {
            Stage::Second => {
                let mut plan = Plan::new(request, dataset, network, "residual flow map", true)?;
                let (denoiser, _) = folder::load::<B::InnerBackend>(&frozen, device)?;
                let denoiser = denoiser.with_execution(place.execution);
                plan.beside = Some(Beside::read(&frozen, of_flow)?);
                let objective = ResidualObjective::new(plan.schedule.clone(), denoiser);
                plan.train(place, model, &objective)
            }
            Stage::Student => {
                let plan = Plan::new(request, dataset, network, "flow map", true)?;
                let (teacher, _) = folder::load_residual::<B::InnerBackend>(&teacher, device)?;
                let teacher = teacher.with_execution(place.execution);
                let objective = ResidualStudent::new(plan.schedule.clone(), teacher);
                plan.train(place, model, &objective)
            }
        }
    }
}

/// What is saved of the frozen denoiser beside the network in training, but for its weights.
pub(super) struct Beside {
    config: DitConfig,
    /// Its tokenizer and, where it has one, its card: the folder inside the folder is a model like any other.
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Beside {
    fn read(model: &Path, config: DitConfig) -> Result<Self> {
        let mut files = Vec::new();
        for name in [TOKENIZER_FILE, CARD_FILE, "README.md"] {
            let path = model.join(name);
            if path.is_file() {
                let content = std::fs::read(&path).map_err(CliError::io("read", &path))?;
                files.push((name, content));
            }
        }
        Ok(Self { config, files })
    }

    /// Its parameters.
    pub(super) fn parameters(&self) -> usize {
        usize::try_from(self.config.parameter_count()).unwrap_or(usize::MAX)
    }

    /// Saves `second` and the denoiser as one model folder.
    pub(super) fn save<B: Backend>(
        &self,
        dir: &Path,
        second: Content<'_, B>,
        denoiser: &Dit<B>,
    ) -> Result<()> {
        let extra: Vec<(&str, &[u8])> = self
            .files
            .iter()
            .map(|(name, content)| (*name, content.as_slice()))
            .collect();
        let denoiser = Content {
            model: denoiser,
            config: &self.config,
            extra: &extra,
        };
        folder::save_residual(dir, second, denoiser, Existing::Replace)?;
        Ok(())
    }
}
