//! The `flm distill` command: the recipe that the configuration selects, and its networks.

mod rounds;

use super::print;
use crate::args::{SettingsArgs, reject_section};
use crate::command_line::CommandLine;
use crate::config::{Config, ModelSettings};
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::files::RunFolder;
use crate::run::{Request, RunArgs, RunPlan, Start, next, run_settings};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm::{Card, Model, ModelFolder, Rows, Trainer};
use flm_denoiser::Family;
use flm_distill::{FlowMapConfig, ObjectiveKind};
use rounds::RoundsJob;
use std::path::PathBuf;

/// Distill a flow into a flow map, which samples in one or a few steps
///
/// Without a preset the teacher's settings apply. With --self the flow map learns from the tokens
/// and from itself. A masked (mdlm) or uniform-state (duo) teacher is distilled to fewer steps by
/// SDTT or DCD, in rounds of `distill.train.steps`; each round doubles the step size.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm distill --teacher runs/flow --data data --preset grammar-tiny --out runs/flow-map
  flm distill --teacher runs/mdlm --data data --set sdtt.rounds=5 --out runs/sdtt")]
pub(crate) struct DistillArgs {
    /// Teacher: a model folder or a finished run
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["no_teacher", "resume"])]
    pub(crate) teacher: Option<PathBuf>,
    /// Distill without a teacher
    #[arg(long = "self", conflicts_with = "teacher")]
    pub(crate) no_teacher: bool,
    /// Data folder of the teacher
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

pub(crate) fn run(args: DistillArgs) -> Result<()> {
    let mut config = run_settings(
        &args.settings,
        &args.run,
        args.teacher.as_deref(),
        &["distill", "distill.train"],
    )?;
    if let Some(teacher) = &args.teacher {
        config.distill.teacher = teacher.display().to_string();
    } else if args.no_teacher {
        config.distill.teacher.clear();
    }
    let names_start = |set: &String| set.contains("start");
    if args.settings.preset.is_none()
        && !args.run.resume
        && !args.settings.set.iter().any(names_start)
    {
        // The settings are those of the teacher's own run, which may name a start of its own.
        config.distill.start.clear();
    }
    check_sections(&args.settings.set, &config.distill.teacher)?;
    reject_section(&args.settings, "curriculum", "only for `flm train`")?;
    let out = args.run.out.clone();
    distill(Request {
        config,
        data: &args.data,
        start: Start::from(&args.run),
        evaluations: args.run.evaluations,
        compute: args.run.device.into(),
        out: RunFolder::new(args.run.out),
        command: CommandLine::current(),
        silent: false,
    })?;
    print(&next(&out))
}

/// Warns of a teacher that is no better than a uniform guess.
fn warn_of(teacher: &ModelFolder) {
    let guess = (teacher.config().vocab_size as f64).ln();
    let training = teacher.card().and_then(|card| card.training.as_ref());
    let loss = training.and_then(|training| training.validation_loss);
    if let Some(loss) = loss.filter(|loss| *loss > guess && !teacher.config().two_time) {
        eprintln!(
            "warning: the teacher {} has validation loss {loss:.2}, above {guess:.2} of a uniform guess: train it again",
            teacher.name()
        );
    }
}

/// Returns an error for settings of a distillation method that does not fit the teacher's family.
fn check_sections(set: &[String], teacher: &str) -> Result<()> {
    let ways = [
        ("flow_map", Family::Flow),
        ("distribution", Family::Flow),
        ("sdtt", Family::Mdlm),
        ("dcd", Family::Duo),
    ];
    for assignment in set {
        let key = assignment.split('=').next().unwrap_or_default();
        let of = |section: &str| key.split('.').any(|part| part.trim() == section);
        let Some((section, of)) = ways.iter().find(|(section, _)| of(section)) else {
            continue;
        };
        let family = if teacher.is_empty() {
            Family::Flow
        } else {
            ModelFolder::open(teacher)?.config().family
        };
        if family != *of {
            return Err(CliError::input(format!(
                "--set {assignment}: [{section}] is for teachers of family {of}, found {family}"
            )));
        }
    }
    Ok(())
}

/// Distills a flow map, from the teacher that the configuration names or from the tokens. A teacher
/// of another family gives a student of its family.
pub(crate) fn distill(request: Request<'_>) -> Result<Card> {
    let rows = &Rows::open(request.data)?;
    let settings = &request.config.distill;
    settings.flow_map.validate()?;
    if let Some((key, plain)) = settings.train.of_flows() {
        return Err(CliError::input(format!(
            "distill.train.{key} must be {plain}: it is a setting of a flow's training, train.{key}"
        )));
    }
    let compute = request.compute;
    if let Some(teacher) = rounds::teacher(&request.config)? {
        let job = RoundsJob {
            request,
            rows,
            teacher,
        };
        return device::run(compute, job);
    }
    let recipe = Recipe::of(&request.config)?;
    let data = request.data;
    let fits = |folder: &ModelFolder| folder.check_fits(rows.tokenizer(), rows.length(), data);
    recipe.folders().into_iter().try_for_each(fits)?;
    let run = RunPlan::new(recipe.recorded(request), true)?;
    device::run(compute, DistillJob { run, rows, recipe })
}

/// A way to make a flow map.
enum Recipe {
    /// Self-distillation, without a teacher.
    Alone,
    /// A trajectory objective, from a flow or a flow map.
    Trajectory(ModelFolder),
    /// Distribution matching with a flow, starting from the flow itself or from a flow map.
    Distribution {
        teacher: ModelFolder,
        start: Option<Box<ModelFolder>>,
    },
    /// A second network for a frozen flow.
    Residual(ModelFolder),
    /// A single network distilled from a residual flow map.
    ResidualStudent(ModelFolder),
}

impl Recipe {
    /// Selects the recipe from the configuration.
    fn of(config: &Config) -> Result<Self> {
        let settings = &config.distill;
        let objective = settings.flow_map.objective;
        if objective != ObjectiveKind::Distribution && !settings.start.is_empty() {
            return Err(CliError::input(format!(
                "distill.start is a setting of the distribution objective, found the objective {}",
                objective.name()
            )));
        }
        if settings.teacher.is_empty() {
            return match objective {
                ObjectiveKind::Residual => Err(CliError::input(
                    "the residual objective trains a second network for a frozen flow: pass the flow with --teacher",
                )),
                ObjectiveKind::Path => Err(CliError::input(
                    "the path objective follows a frozen flow: pass the flow with --teacher",
                )),
                ObjectiveKind::Distribution => Err(CliError::input(
                    "the distribution objective compares with a frozen flow: pass the flow with --teacher",
                )),
                _ => Ok(Self::Alone),
            };
        }
        let teacher = ModelFolder::open(&settings.teacher)?;
        warn_of(&teacher);
        let (residual, two_time) = (teacher.config().residual, teacher.config().two_time);
        match objective {
            _ if residual => {
                check_settings(&settings.flow_map, &teacher)?;
                Ok(Self::ResidualStudent(teacher))
            }
            ObjectiveKind::Residual if two_time => Err(CliError::input(format!(
                "the residual objective trains a second network for a flow, but {} is a flow map: choose another distill.flow_map.objective",
                teacher.path().display()
            ))),
            ObjectiveKind::Residual => Ok(Self::Residual(teacher)),
            ObjectiveKind::Distribution => Self::distribution(config, teacher),
            _ => Ok(Self::Trajectory(teacher)),
        }
    }

    fn distribution(config: &Config, teacher: ModelFolder) -> Result<Self> {
        config.distill.distribution.validate()?;
        let start = match config.distill.start.as_str() {
            "" => None,
            path => Some(Box::new(ModelFolder::open(path)?)),
        };
        if let Some(start) = &start
            && start.config().family != Family::Flow
        {
            return Err(CliError::input(format!(
                "distill.start {} is of family {}: the student must start as a flow or a flow map",
                start.path().display(),
                start.config().family
            )));
        }
        if teacher.config().two_time {
            return Err(CliError::input(format!(
                "the distribution objective compares with a flow, but the teacher {} is a flow map: set it as distill.start",
                teacher.path().display()
            )));
        }
        Ok(Self::Distribution { teacher, start })
    }

    /// Returns the models that the recipe reads.
    fn folders(&self) -> Vec<&ModelFolder> {
        match self {
            Self::Alone => Vec::new(),
            Self::Trajectory(teacher)
            | Self::Residual(teacher)
            | Self::ResidualStudent(teacher) => {
                vec![teacher]
            }
            Self::Distribution { teacher, start } => {
                (start.iter().map(Box::as_ref)).chain([teacher]).collect()
            }
        }
    }

    /// Returns the request as the run records it: with the settings of the network that the student
    /// starts from.
    fn recorded<'a>(&self, mut request: Request<'a>) -> Request<'a> {
        if let Some(first) = self.folders().first() {
            request.config.model = ModelSettings::of(first.config());
        }
        if let Self::Residual(_) | Self::ResidualStudent(_) = self {
            request.config.distill.flow_map.objective = ObjectiveKind::Residual;
        }
        request
    }
}

/// Returns an error for settings without effect: the only target of the student is the residual
/// flow map.
fn check_settings(settings: &FlowMapConfig, teacher: &ModelFolder) -> Result<()> {
    // The objective of a preset is ignored: the run is recorded as residual.
    let plain = FlowMapConfig {
        objective: settings.objective,
        loss_weight: settings.loss_weight,
        ..FlowMapConfig::default()
    };
    if *settings == plain {
        return Ok(());
    }
    Err(CliError::input(format!(
        "{} is a residual flow map: its student regresses onto it, so only loss_weight of distill.flow_map applies",
        teacher.path().display()
    )))
}

struct DistillJob<'a> {
    run: RunPlan<'a>,
    rows: &'a Rows,
    recipe: Recipe,
}

impl Job for DistillJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self { run, rows, recipe } = self;
        let load = |folder: ModelFolder| -> Result<Model<B::InnerBackend>> {
            let model = folder.load(&place.device)?;
            Ok(model.with_execution(place.execution))
        };
        let settings = run.settings().clone();
        let objective = run.request.config.distill.flow_map.clone();
        let loss_weight = objective.loss_weight;
        match recipe {
            Recipe::Alone => {
                let network = &run.request.config.model;
                let network =
                    network.network(rows.tokenizer().vocab_size(), rows.length(), true)?;
                let device = &place.device;
                let trainer = Trainer::flow_map_alone(network, objective, rows, settings, device)?;
                run.train(place, trainer)
            }
            Recipe::Trajectory(teacher) => {
                let trainer = Trainer::flow_map(&load(teacher)?, objective, rows, settings)?;
                run.train(place, trainer)
            }
            Recipe::Distribution { teacher, start } => {
                let (teacher, start) =
                    (load(teacher)?, start.map(|start| load(*start)).transpose()?);
                let objective = run.request.config.distill.distribution.clone();
                let trainer =
                    Trainer::distribution(&teacher, start.as_ref(), objective, rows, settings)?;
                run.train(place, trainer)
            }
            Recipe::Residual(teacher) => {
                let trainer = Trainer::residual(&load(teacher)?, loss_weight, rows, settings)?;
                run.train(place, trainer)
            }
            Recipe::ResidualStudent(teacher) => {
                let teacher = load(teacher)?;
                let trainer = Trainer::residual_student(&teacher, loss_weight, rows, settings)?;
                run.train(place, trainer)
            }
        }
    }
}
