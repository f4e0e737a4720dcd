//! A run folder around `flm::Trainer`, shared by training and distillation.

mod card;

use crate::args::{DeviceArgs, SettingsArgs, reject_section, settings};
use crate::command_line::CommandLine;
use crate::config::{Config, first_difference};
use crate::device::{Compute, Place};
use crate::error::{CliError, Result};
use crate::files::{self, Kind, RunFolder};
use crate::progress::{Progress, thousands};
use crate::stop;
use crate::{curve, plot};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm::{Card, Existing, Rows, Trainer, Training};
use flm_denoiser::{Dit, DitConfig, Family};
use flm_distill::ObjectiveKind;
use flm_objective::Objective;
use flm_train::{MetricsFile, TrainConfig, latest_checkpoint};
use std::path::{Path, PathBuf};

/// Options of training and distillation.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Output run folder
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Budget in network evaluations, instead of a number of steps
    ///
    /// A backward pass counts as two. Rounds of a distillation share the budget evenly.
    #[arg(long, value_name = "N")]
    pub(crate) evaluations: Option<u64>,
    /// Continue from the newest checkpoint
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace an existing run
    #[arg(long, conflicts_with = "resume")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What to do if the run folder exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Return an error.
    Fresh,
    /// Replace the run.
    Replace,
    /// Resume from the newest checkpoint.
    Resume,
}

impl From<&RunArgs> for Start {
    fn from(args: &RunArgs) -> Self {
        match (args.resume, args.force) {
            (true, _) => Self::Resume,
            (_, true) => Self::Replace,
            _ => Self::Fresh,
        }
    }
}

/// A request to train a model.
pub(crate) struct Request<'a> {
    pub(crate) config: Config,
    pub(crate) data: &'a Path,
    pub(crate) out: RunFolder,
    pub(crate) start: Start,
    /// Budget in network evaluations, instead of a number of steps.
    pub(crate) evaluations: Option<u64>,
    pub(crate) compute: Compute,
    /// The command line, for the model card.
    pub(crate) command: CommandLine,
    /// Whether the run is only timed and prints nothing.
    pub(crate) silent: bool,
}

/// The cost of earlier rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    pub(crate) evaluations: u64,
    pub(crate) seconds: f64,
}

/// A run whose settings and folder are checked.
pub(crate) struct RunPlan<'a> {
    pub(crate) request: Request<'a>,
    /// Whether the model is distilled, by the settings of `[distill]`.
    distilled: bool,
    /// The cost of the rounds before this one.
    pub(crate) spent: Spent,
    /// The step of the checkpoint to resume from.
    resume_at: Option<u64>,
}

impl<'a> RunPlan<'a> {
    /// Checks everything that can be checked before the run folder is touched.
    pub(crate) fn new(request: Request<'a>, distilled: bool) -> Result<Self> {
        request.config.training(distilled).validate()?;
        let resume_at = match request.start {
            Start::Resume => {
                check_same(&request.config, &request.out)?;
                let at = latest_checkpoint(&request.out.checkpoints())?.map(|(step, _)| step);
                let steps = request.config.training(distilled).steps;
                if let Some(at) = at.filter(|at| *at > steps) {
                    return Err(CliError::input(format!(
                        "{} is at step {at}, but train.steps is {steps}: raise it, or start again with --force",
                        request.out.root().display()
                    )));
                }
                at
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

    /// Returns the settings of the training loop.
    pub(crate) fn settings(&self) -> &TrainConfig {
        self.request.config.training(self.distilled)
    }

    /// Sets the number of steps from the budget, if there is one; `step` is the number of network
    /// evaluations per step.
    pub(crate) fn spending(mut self, step: f64) -> Result<Self> {
        if let Some(budget) = self.request.evaluations {
            self.request.config.training_mut(self.distilled).steps = paid(budget, step)?;
        }
        Ok(self)
    }

    /// Prepares the folder; nothing is written before.
    fn begin(&self) -> Result<MetricsFile> {
        let out = &self.request.out;
        if self.request.start != Start::Resume {
            out.create()?;
        }
        out.save(&self.request.config.of_run()?)?;
        Ok(MetricsFile::open(out.metrics(), self.resume_at)?)
    }

    /// Locks the run folder, and checks again what another process may have changed before.
    fn lock(&mut self) -> Result<flm_files::Lock> {
        let out = &self.request.out;
        let (root, is_new) = (out.root(), !out.config().exists());
        std::fs::create_dir_all(root).map_err(CliError::io("create", root))?;
        let lock = flm_files::Lock::folder(root).map_err(|error| match error {
            flm_files::StagingError::Locked { .. } => CliError::input(format!(
                "{} is being written by another flm: wait for it, or choose another folder",
                root.display()
            )),
            other => CliError::input(other.to_string()),
        })?;
        if is_new && out.config().exists() {
            out.check_free(self.request.start == Start::Replace, Kind::Run)?;
        }
        if self.request.start == Start::Resume {
            self.resume_at = latest_checkpoint(&out.checkpoints())?.map(|(step, _)| step);
        }
        Ok(lock)
    }

    /// Trains, and saves the model in the run folder.
    pub(crate) fn train<B: AutodiffBackend, O: Objective<B, Network = Dit<B>>>(
        self,
        place: &Place<B>,
        trainer: Trainer<'_, B, O>,
    ) -> Result<Card> {
        let mut plan = self.spending(trainer.evaluations())?;
        let lock = plan.lock()?;
        let (out, settings) = (&plan.request.out, plan.settings().clone());
        let network = trainer.config();
        let (label, colour) = (flm::kind(network), plan.colour(network));
        let tokens = (settings.batch * network.length) as u64;
        if let Some(card) = plan.done(trainer.rows())? {
            eprintln!(
                "{label} is already at step {}: nothing to train",
                settings.steps
            );
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
        let run = match run.start() {
            Ok(run) => run,
            Err(error) => {
                drop(lock);
                // An empty folder is of no use; another one stays.
                let _ = std::fs::remove_dir(out.root());
                return Err(error.into());
            }
        };
        if plan.learns_badly_alone() {
            progress.note(
                "the Eulerian objective rarely learns without a teacher: use --set flow_map.objective=lagrangian (docs/results/distillations.md)",
            );
        }
        let mut metrics = plan.begin()?;
        if settings.optimizer.warmup >= settings.steps {
            progress.note(&format!(
                "the warm-up of {} steps is as long as the run: the learning rate never reaches its value",
                settings.optimizer.warmup
            ));
        }
        if plan.request.start == Start::Resume && plan.resume_at.is_none() {
            progress.note("there is no checkpoint yet: the run starts from step 0");
        }
        let mut written = Ok(());
        let trained = run
            .on_event(|event| {
                progress.training(&event, tokens);
                if written.is_ok() {
                    written = metrics.write(&event);
                    if written.is_err() {
                        stop::ask();
                    }
                }
            })
            .train()?;
        written?;
        let mut model = trained.model;
        let training = model.card_mut().training.get_or_insert_default();
        if !trained.finished {
            return Err(CliError::interrupted(format!(
                "stopped at step {} of {}; nothing is lost",
                training.steps, settings.steps
            )));
        }
        let speed = training.steps as f64 * tokens as f64 / training.seconds;
        training.evaluations += plan.spent.evaluations;
        training.seconds += plan.spent.seconds;
        // Read from the file, because a run that was stopped after its last step has nothing left
        // to validate.
        let losses = curve::read(&out.metrics());
        training.validation_loss = losses.validation.last().map(|(_, loss)| *loss);
        let loss = training
            .validation_loss
            .or(losses.training.last().map(|(_, loss)| *loss));
        model.card_mut().command = plan.request.command.shown();
        let readme = card::readme(model.card(), model.config(), &plan.request.config)?;
        let readme = ("README.md", readme.as_bytes());
        model.save_with(out.model(), Existing::Replace, &[readme])?;
        // The run is complete; a failed plot is ignored.
        if let Ok(picture) = plot::losses(&[(&losses, colour)]) {
            let _ = files::write(&out.losses(), plot::standalone(&picture).as_bytes());
        }
        progress.finish(&format!(
            "{} steps  loss {:.3}  {} tok/s",
            settings.steps,
            loss.unwrap_or(f64::NAN),
            thousands(speed)
        ));
        if let (Some(loss), Some(guess)) = (loss, plan.guess(model.config()))
            && loss > guess
        {
            eprintln!(
                "warning: the loss {loss:.2} is above {guess:.2}, that of a uniform guess over {} tokens: the model learned nothing; start again with lower learning rates",
                model.config().vocab_size
            );
        }
        Ok(model.card().clone())
    }

    /// The cross-entropy of a uniform guess, where the loss is a cross-entropy.
    fn guess(&self, network: &DitConfig) -> Option<f64> {
        let is_matched = network.two_time
            && self.request.config.distill.flow_map.objective == ObjectiveKind::Distribution;
        let is_other = is_matched || network.residual || network.family == Family::Duo;
        (!is_other).then(|| (network.vocab_size as f64).ln())
    }

    fn colour(&self, network: &DitConfig) -> plotters::style::RGBColor {
        if network.two_time {
            plot::FLOW_MAP
        } else {
            plot::FLOW
        }
    }

    /// Returns the card of a finished run, if no step is left.
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

    /// Whether this is the Eulerian objective without a teacher; it needs the velocity of an
    /// existing flow.
    fn learns_badly_alone(&self) -> bool {
        let settings = &self.request.config.distill;
        self.distilled
            && settings.teacher.is_empty()
            && settings.flow_map.objective == ObjectiveKind::Eulerian
    }
}

/// Returns the number of steps that a budget allows, at `step` network evaluations per step.
pub(crate) fn paid(budget: u64, step: f64) -> Result<u64> {
    match (budget as f64 / step).floor() as u64 {
        0 => Err(CliError::input(format!(
            "--evaluations {budget} is too small: one step takes {step:.0} network evaluations"
        ))),
        steps => Ok(steps),
    }
}

/// Checks that a resumed run keeps its settings; only the number of steps may change.
pub(crate) fn check_same(config: &Config, out: &RunFolder) -> Result<()> {
    let path = out.config();
    if !path.is_file() {
        return Err(CliError::input(format!(
            "there is no run to resume in {}",
            out.root().display()
        )));
    }
    let mut saved = out.saved()?;
    saved.data.clone_from(&config.data);
    // A curriculum lasts a share of the steps, so its length may not change.
    if config.model.family != Family::Duo {
        saved.train.steps = config.train.steps;
    }
    // The same holds for segments that are halved.
    if config.distill.flow_map.segments == 1 {
        saved.distill.train.steps = config.distill.train.steps;
    }
    // Different paths can name the same model.
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

/// Returns the settings of a run. A resumed run starts from its own, and a distillation from its
/// teacher's, unless a preset is given.
pub(crate) fn run_settings(
    args: &SettingsArgs,
    run: &RunArgs,
    teacher: Option<&Path>,
    sections: &[&str],
) -> Result<Config> {
    reject_section(
        args,
        "data",
        "decided when data is prepared (`flm data prepare --set`)",
    )?;
    if teacher.is_some() {
        reject_section(args, "model", "decided by the teacher")?;
    }
    let saved = RunFolder::new(&run.out).config();
    let before = if run.resume && saved.is_file() {
        Some(saved)
    } else {
        teacher.map(config_of_run)
    };
    let default = before
        .filter(|path| path.is_file())
        .map(|path| path.display().to_string());
    settings(args, default.as_deref(), sections)
}

/// Returns the configuration of the run that made a model: next to the model, or in the run itself.
fn config_of_run(model: &Path) -> PathBuf {
    let own = RunFolder::new(model).config();
    let beside = model.parent().map(|run| RunFolder::new(run).config());
    beside.filter(|_| !own.is_file()).unwrap_or(own)
}

/// Formats the path of the model and the next command.
pub(crate) fn next(run: &Path) -> String {
    let (model, run) = (run.join("model"), run.display());
    format!(
        "model      {}\nnext       flm sample --model {run}\n",
        model.display()
    )
}
