//! Training a model and distilling one: a run folder around `flm::Trainer`.

mod card;
mod distill;
mod rounds;

pub(crate) use distill::distill;

use super::curve;
use crate::command_line::CommandLine;
use crate::config::{Config, first_difference};
use crate::device::{self, Compute, Job, Place};
use crate::error::{CliError, Result};
use crate::files::{self, Kind, RunFolder};
use crate::plot;
use crate::progress::{Progress, thousands};
use crate::stop;
use burn::tensor::backend::AutodiffBackend;
use flm::{Card, Existing, Rows, Trainer, Training};
use flm_denoiser::{Dit, DitConfig, Family};
use flm_discrete::duo::DuoObjective;
use flm_distill::ObjectiveKind;
use flm_objective::Objective;
use flm_train::{MetricsFile, TrainConfig, latest_checkpoint};
use rounds::Spent;
use std::path::Path;

/// What to do where a run's folder is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Refuse.
    Fresh,
    /// Replace it.
    Replace,
    /// Go on from its newest checkpoint.
    Resume,
}

/// A model to be trained.
pub(crate) struct Request<'a> {
    pub(crate) config: Config,
    pub(crate) data: &'a Path,
    pub(crate) out: RunFolder,
    pub(crate) start: Start,
    /// How many evaluations of the network to spend, in the place of a number of steps.
    pub(crate) evaluations: Option<u64>,
    pub(crate) compute: Compute,
    /// What was typed, for the model card.
    pub(crate) command: CommandLine,
    /// Whether it is only to be timed, and prints nothing.
    pub(crate) silent: bool,
}

/// Trains a flow, or a model of the family that the configuration names.
pub(crate) fn train(request: Request<'_>) -> Result<Card> {
    let rows = Rows::open(request.data)?;
    let network =
        (request.config.model).network(rows.tokenizer().vocab_size(), rows.length(), false)?;
    if let (Some((key, plain)), false) = (
        request.config.train.of_flows(),
        network.family == Family::Flow,
    ) {
        return Err(CliError::input(format!(
            "train.{key} is for flows, but model.family is {}: set it to {plain}",
            network.family
        )));
    }
    let run = RunPlan::new(request, false)?;
    device::run(
        run.request.compute,
        TrainJob {
            run,
            network,
            rows: &rows,
        },
    )
}

struct TrainJob<'a> {
    run: RunPlan<'a>,
    network: DitConfig,
    rows: &'a Rows,
}

impl Job for TrainJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self { run, network, rows } = self;
        let (settings, device) = (run.settings().clone(), &place.device);
        match network.family {
            Family::Flow => run.train(place, Trainer::flow(network, rows, settings, device)?),
            Family::Mdlm => run.train(place, Trainer::masked(network, rows, settings, device)?),
            Family::Duo => {
                // The curriculum lasts a share of the steps, which --evaluations may decide.
                let step = Objective::<B>::evaluations(&DuoObjective::default(), settings.batch);
                let run = run.spending(step)?;
                let (curriculum, settings) =
                    (run.request.config.curriculum, run.settings().clone());
                let trainer = Trainer::uniform_state(network, curriculum, rows, settings, device)?;
                run.train(place, trainer)
            }
            Family::Autoregressive => run.train(
                place,
                Trainer::autoregressive(network, rows, settings, device)?,
            ),
        }
    }
}

/// A run whose settings and folder are checked.
struct RunPlan<'a> {
    request: Request<'a>,
    /// Whether the model is made of another, by the settings of `[distill]`.
    distilled: bool,
    /// What rounds before this one took.
    spent: Spent,
    /// The step of the checkpoint to go on from.
    resume_at: Option<u64>,
}

impl<'a> RunPlan<'a> {
    /// Checks everything that can be checked before the run's folder is touched.
    fn new(request: Request<'a>, distilled: bool) -> Result<Self> {
        request.config.training(distilled).validate()?;
        let resume_at = match request.start {
            Start::Resume => {
                check_same(&request.config, &request.out)?;
                latest_checkpoint(&request.out.checkpoints())?.map(|(step, _)| step)
            }
            start => {
                request.out.check_free(start == Start::Replace, Kind::Run)?;
                None
            }
        };
        Ok(Self {
            request,
            distilled,
            spent: Spent::default(),
            resume_at,
        })
    }

    /// The settings of the loop.
    fn settings(&self) -> &TrainConfig {
        self.request.config.training(self.distilled)
    }

    /// With as many steps, of so many evaluations of the network each, as were paid for.
    fn spending(mut self, step: f64) -> Result<Self> {
        if let Some(budget) = self.request.evaluations {
            self.request.config.training_mut(self.distilled).steps = paid(budget, step)?;
        }
        Ok(self)
    }

    /// Makes the folder ready: only now is anything written.
    fn begin(&self) -> Result<MetricsFile> {
        let out = &self.request.out;
        if self.request.start != Start::Resume {
            out.create()?;
        }
        out.save(&self.request.config.of_run()?)?;
        Ok(MetricsFile::open(out.metrics(), self.resume_at)?)
    }

    /// Trains, and saves the model in the run's folder.
    fn train<B: AutodiffBackend, O: Objective<B, Network = Dit<B>>>(
        self,
        place: &Place<B>,
        trainer: Trainer<'_, B, O>,
    ) -> Result<Card> {
        let plan = self.spending(trainer.evaluations())?;
        let (out, settings) = (&plan.request.out, plan.settings().clone());
        let network = trainer.config();
        let (label, colour) = (flm::kind(network), plan.colour(network));
        let tokens = (settings.batch * network.length) as u64;
        if let Some(card) = plan.done(trainer.rows())? {
            return Ok(card);
        }
        let run = trainer
            .steps(settings.steps)
            .execution(place.execution)
            .checkpoints(out.checkpoints())
            .stop(stop::flag());
        let run = match plan.resume_at {
            Some(_) => run.resume(),
            None => run.replace(),
        };
        let progress = if plan.request.silent {
            Progress::silent()
        } else {
            Progress::new(label, settings.steps)
        };
        let run = run.start()?;
        if plan.learns_badly_alone() {
            progress.note(
                "without a teacher the Eulerian objective seldom learns: --set flow_map.objective=lagrangian does (docs/results/distillations.md)",
            );
        }
        let mut metrics = plan.begin()?;
        let mut written = Ok(());
        let trained = run
            .on_event(|event| {
                progress.training(&event, tokens);
                if written.is_ok() {
                    written = metrics.write(&event);
                }
            })
            .train()?;
        written?;
        let mut model = trained.model;
        let training = model.card_mut().training.get_or_insert_default();
        if !trained.finished {
            return Err(CliError::interrupted(format!(
                "stopped at step {} of {}, nothing is lost",
                training.steps, settings.steps
            )));
        }
        let speed = training.steps as f64 * tokens as f64 / training.seconds;
        training.evaluations += plan.spent.evaluations;
        training.seconds += plan.spent.seconds;
        // From the file, because a run that was stopped after its last step has nothing left to validate.
        let losses = curve::read(&out.metrics());
        training.validation_loss = losses.validation.last().map(|(_, loss)| *loss);
        let loss = training
            .validation_loss
            .or(losses.training.last().map(|(_, loss)| *loss));
        model.card_mut().command = plan.request.command.shown();
        let readme = card::readme(model.card(), model.config(), &plan.request.config)?;
        let readme = ("README.md", readme.as_bytes());
        model.save_with(out.model(), Existing::Replace, &[readme])?;
        // The run is done; a picture of it is no reason to fail.
        if let Ok(picture) = plot::losses(&[(&losses, colour)]) {
            let _ = files::write(&out.losses(), plot::standalone(&picture).as_bytes());
        }
        progress.finish(&format!(
            "{} steps  loss {:.3}  {} tok/s",
            settings.steps,
            loss.unwrap_or(f64::NAN),
            thousands(speed)
        ));
        Ok(model.card().clone())
    }

    fn colour(&self, network: &DitConfig) -> plotters::style::RGBColor {
        if network.two_time {
            plot::FLOW_MAP
        } else {
            plot::FLOW
        }
    }

    /// The model of a run that has no step left to do.
    fn done(&self, rows: &Rows) -> Result<Option<Card>> {
        let steps = self.settings().steps;
        let card = match self.resume_at {
            Some(step) if step >= steps => Card::read(&self.request.out.model())?,
            _ => None,
        };
        let is_this = |card: &Card| {
            let done = |run: &Training| run.steps >= steps && run.data_hash == rows.hash();
            card.training.as_ref().is_some_and(done)
        };
        Ok(card.filter(is_this))
    }

    /// Whether this is the objective that needs the velocity of a flow that is there, and no flow is.
    fn learns_badly_alone(&self) -> bool {
        let settings = &self.request.config.distill;
        self.distilled
            && settings.teacher.is_empty()
            && settings.flow_map.objective == ObjectiveKind::Eulerian
    }
}

/// How many steps, of so many evaluations of the network each, a budget pays for.
fn paid(budget: u64, step: f64) -> Result<u64> {
    match (budget as f64 / step).floor() as u64 {
        0 => Err(CliError::input(format!(
            "--evaluations {budget} pays for no step: one takes {step:.0} evaluations of the network"
        ))),
        steps => Ok(steps),
    }
}

/// A resumed run keeps its settings; only the number of steps may change.
fn check_same(config: &Config, out: &RunFolder) -> Result<()> {
    let path = out.config();
    if !path.is_file() {
        return Err(CliError::input(format!(
            "there is no run to resume in {}",
            out.root().display()
        )));
    }
    let mut saved = out.saved()?;
    saved.data.clone_from(&config.data);
    // A curriculum lasts a share of the steps: others would begin it again.
    if config.model.family != Family::Duo {
        saved.train.steps = config.train.steps;
    }
    // And so are segments that are halved.
    if config.distill.flow_map.segments == 1 {
        saved.distill.train.steps = config.distill.train.steps;
    }
    // One model may be reached by several paths.
    let (then, now) = (&mut saved.distill, &config.distill);
    for (then, now) in [
        (&mut then.teacher, &now.teacher),
        (&mut then.start, &now.start),
    ] {
        let place = |path: &String| std::fs::canonicalize(path).ok();
        if place(then).is_some() && place(then) == place(now) {
            then.clone_from(now);
        }
    }
    match first_difference(&saved, config) {
        None => Ok(()),
        Some((key, then, now)) => Err(CliError::input(format!(
            "{} cannot be resumed with other settings: {key} was {then}, now {now}",
            out.root().display()
        ))),
    }
}
