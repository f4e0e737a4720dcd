//! Training a model and distilling one: everything around `flm_train::Run`.

pub(super) mod card;
mod distribution;
mod residual;
mod rounds;

use super::{curve, purpose};
use crate::command_line::CommandLine;
use crate::config::{Config, ModelSettings, first_difference};
use crate::device::{self, Compute, Job, Place};
use crate::error::{CliError, Result};
use crate::files::{self, Kind, RunFolder};
use crate::plot;
use crate::progress::{Progress, thousands};
use crate::stop;
use burn::tensor::backend::AutodiffBackend;
use distribution::DistributionJob;
use flm::{CARD_FILE, Card, ModelFolder, Training};
use flm_data::{Dataset, TOKENIZER_FILE};
use flm_denoiser::folder::{self, Content, Existing};
use flm_denoiser::{Dit, DitConfig, Family, NoiseWidth};
use flm_discrete::LogLinear;
use flm_discrete::autoregressive::AutoregressiveObjective;
use flm_discrete::duo::DuoObjective;
use flm_discrete::mdlm::MdlmObjective;
use flm_distill::{FlowMapObjective, ObjectiveKind};
use flm_simplex::stream::generator;
use flm_simplex::{Clock, Schedule};
use flm_train::{MetricsFile, Objective, Run, TrainConfig, latest_checkpoint};
use residual::{Beside, ResidualJob};
use rounds::{RoundsJob, Spent};
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
    let dataset = Dataset::open(request.data)?;
    let network = request.config.model.network(
        dataset.tokenizer().vocab_size(),
        dataset.meta().length,
        false,
    )?;
    check_flow_only(&request.config.train, network.family)?;
    let network = DitConfig {
        conditioning: request.config.train.conditioning > 0.0,
        self_conditioning: request.config.train.self_conditioning > 0.0,
        ..network
    };
    let label = flm::kind(&network);
    let plan = Plan::new(request, &dataset, network, label, false)?;
    device::run(plan.request.compute, TrainJob(plan))
}

/// Distills a flow map, from the teacher that the configuration names or from the tokens; or, of a teacher of another family, a model of that.
pub(crate) fn distill(request: Request<'_>) -> Result<Card> {
    let dataset = Dataset::open(request.data)?;
    request.config.distill.flow_map.validate()?;
    if let Some((key, plain)) = of_flows(&request.config.distill.train) {
        return Err(CliError::input(format!(
            "distill.train.{key} must be {plain}: it is a setting of a flow's training, train.{key}"
        )));
    }
    if let Some(teacher) = rounds::teacher(&request.config)? {
        let dataset = &dataset;
        return device::run(
            request.compute,
            RoundsJob {
                request,
                dataset,
                teacher,
            },
        );
    }
    if let Some((stage, teacher)) = residual::stage(&request.config)? {
        return device::run(
            request.compute,
            ResidualJob {
                dataset: &dataset,
                request,
                stage,
                teacher,
            },
        );
    }
    if let Some(folders) = distribution::folders(&request.config)? {
        return device::run(
            request.compute,
            DistributionJob {
                dataset: &dataset,
                request,
                folders,
            },
        );
    }
    device::run(
        request.compute,
        FlowMapJob {
            dataset: &dataset,
            request,
        },
    )
}

/// A setting that only flows are trained by and that is not as it is without, with the value it has then.
fn of_flows(settings: &TrainConfig) -> Option<(&'static str, u8)> {
    [
        ("conditioning", settings.conditioning > 0.0, 0),
        ("references", settings.references > 0, 0),
        ("self_conditioning", settings.self_conditioning > 0.0, 0),
        ("clock_every", settings.clock_every > 0, 0),
        ("padding_loss", settings.padding_loss != 1.0, 1),
    ]
    .into_iter()
    .find_map(|(key, set, plain)| set.then_some((key, plain)))
}

/// Refuses settings that the family is not trained by, or that exclude each other.
fn check_flow_only(settings: &TrainConfig, family: Family) -> Result<()> {
    if let (Some((key, plain)), false) = (of_flows(settings), family == Family::Flow) {
        return Err(CliError::input(format!(
            "train.{key} is for flows, but model.family is {family}: set it to {plain}"
        )));
    }
    for (key, set) in [
        ("references", settings.references > 0),
        ("self_conditioning", settings.self_conditioning > 0.0),
    ] {
        if set && settings.conditioning > 0.0 {
            return Err(CliError::input(format!(
                "train.{key} is for flows that are trained without known positions: set it or train.conditioning to 0"
            )));
        }
    }
    Ok(())
}

/// Refuses a model that does not fit the data.
pub(crate) fn check_fits(model: &ModelFolder, dataset: &Dataset, data: &Path) -> Result<()> {
    let (ours, path, network) = (dataset.tokenizer(), model.path(), model.config());
    let found = model.tokenizer()?;
    if found.hash() != ours.hash() {
        return Err(CliError::input(format!(
            "the tokenizer of the model {} ({} tokens, hash {:.12}) is not that of the data {} ({} tokens, hash {:.12})",
            path.display(),
            found.vocab_size(),
            found.hash(),
            data.display(),
            ours.vocab_size(),
            ours.hash(),
        )));
    }
    let length = dataset.meta().length;
    for (what, found, expected) in [
        (
            "tokens in its vocabulary",
            network.vocab_size,
            ours.vocab_size(),
        ),
        ("tokens in a sequence", network.length, length),
    ] {
        if found != expected {
            return Err(CliError::input(format!(
                "the model {} has {found} {what}, but the data {} has {expected}",
                path.display(),
                data.display()
            )));
        }
    }
    Ok(())
}

struct Plan<'a> {
    request: Request<'a>,
    dataset: &'a Dataset,
    network: DitConfig,
    settings: TrainConfig,
    label: &'static str,
    data_hash: String,
    schedule: Schedule,
    /// Whether the model is made of another, by the settings of `[distill]`.
    distilled: bool,
    /// What rounds before this one took.
    spent: Spent,
    /// Of a residual flow map: what is saved beside the network in training.
    beside: Option<Beside>,
    /// The step of the checkpoint to go on from.
    resume_at: Option<u64>,
}

impl<'a> Plan<'a> {
    /// Checks everything that can be checked before the run's folder is touched.
    fn new(
        request: Request<'a>,
        dataset: &'a Dataset,
        network: DitConfig,
        label: &'static str,
        distilled: bool,
    ) -> Result<Self> {
        let settings = request.config.training(distilled).clone();
        settings.validate()?;
        network.validate()?;
        dataset.verify()?;
        let schedule = network.schedule()?;
        let data_hash = dataset.meta().identity(request.data)?;
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
            dataset,
            network,
            settings,
            label,
            data_hash,
            schedule,
            distilled,
            spent: Spent::default(),
            beside: None,
            resume_at,
        })
    }

    /// With as many steps, of so many evaluations of the network each, as were paid for.
    fn spending(mut self, step: f64) -> Result<Self> {
        let Some(budget) = self.request.evaluations else {
            return Ok(self);
        };
        let steps = paid(budget, step)?;
        self.settings.steps = steps;
        self.request.config.training_mut(self.distilled).steps = steps;
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

    fn train<B: AutodiffBackend, O: Objective<B>>(
        self,
        place: &Place<B>,
        model: Dit<B>,
        objective: &O,
    ) -> Result<Card> {
        let evaluations = objective.evaluations(self.settings.batch);
        let mut plan = self.spending(evaluations)?;
        if let Some(card) = plan.done()? {
            return Ok(card);
        }
        let (out, settings) = (&plan.request.out, &plan.settings);
        let progress = if plan.request.silent {
            Progress::silent()
        } else {
            Progress::new(plan.label, settings.steps)
        };
        let tokens = (settings.batch * plan.network.length) as u64;
        let mut written = Ok(());
        let parameters = burn::module::Module::num_params(&model)
            + plan.beside.as_ref().map_or(0, Beside::parameters);
        let run = Run {
            model: model.with_execution(place.execution),
            objective,
            train: plan.dataset.train(),
            validation: plan.dataset.validation(),
            data: plan.data_hash.clone(),
            config: settings,
            dropout: plan.network.dropout,
            workers: place.side_by_side.min(settings.parts()),
            checkpoints: Some(out.checkpoints()),
            resume: plan.resume_at.is_some(),
            stop: stop::flag(),
            device: place.device.clone(),
        };
        let run = run.start()?;
        if plan.network.family == Family::Flow {
            progress.note(&noise_line(
                run.noise(),
                &plan.network,
                objective.wide_noise(),
            ));
        }
        if plan.network.two_time && plan.learns_badly_alone() {
            progress.note(
                "without a teacher the Eulerian objective seldom learns: --set flow_map.objective=lagrangian does (docs/results/distillations.md)",
            );
        }
        let mut metrics = plan.begin()?;
        let outcome = run.train(&mut |event| {
            progress.training(&event, tokens);
            if written.is_ok() {
                written = metrics.write(&event);
            }
        })?;
        written?;
        if !outcome.finished {
            return Err(CliError::interrupted(format!(
                "stopped at step {} of {}, nothing is lost",
                outcome.steps, settings.steps
            )));
        }
        // From the file, because a run that was stopped after its last step has nothing left to validate.
        let losses = curve::read(&out.metrics());
        let validation_loss = losses.validation.last().map(|(_, loss)| *loss);
        let training = Training {
            seed: settings.seed,
            data_hash: plan.data_hash.clone(),
            data_source: plan.dataset.meta().source.clone(),
            steps: outcome.steps,
            evaluations: plan.spent.evaluations
                + (outcome.steps as f64 * evaluations).round() as u64,
            seconds: plan.spent.seconds + outcome.seconds,
            dtype: place.execution.precision.to_string(),
            validation_loss,
        };
        let layout = plan.dataset.meta().layout;
        let card = Card {
            command: plan.request.command.shown(),
            tokenizer_hash: Some(plan.dataset.meta().tokenizer_hash.clone()),
            training: Some(training),
            ..Card::new(plan.label, layout, parameters as u64)
        };
        if let Some(clock) = outcome.clock.filter(|clock| *clock != Clock::even()) {
            plan.network.clock = clock.taus().to_vec();
        }
        plan.save(&outcome.ema, objective.teacher(), &card)?;
        // The run is done; a picture of it is no reason to fail.
        if let Ok(picture) = plot::losses(&[(&losses, plan.colour())]) {
            let _ = files::write(&out.losses(), plot::standalone(&picture).as_bytes());
        }
        let loss = validation_loss.or(losses.training.last().map(|(_, loss)| *loss));
        let speed = outcome.steps as f64 * tokens as f64 / outcome.seconds;
        progress.finish(&format!(
            "{} steps  loss {:.3}  {} tok/s",
            outcome.steps,
            loss.unwrap_or(f64::NAN),
            thousands(speed)
        ));
        Ok(card)
    }

    fn colour(&self) -> plotters::style::RGBColor {
        if self.network.two_time {
            plot::FLOW_MAP
        } else {
            plot::FLOW
        }
    }

    /// The model of a run that has no step left to do.
    fn done(&self) -> Result<Option<Card>> {
        let card = match self.resume_at {
            Some(step) if step >= self.settings.steps => Card::read(&self.request.out.model())?,
            _ => None,
        };
        let is_this = |card: &Card| {
            let done = |run: &Training| {
                run.steps >= self.settings.steps && run.data_hash == self.data_hash
            };
            card.training.as_ref().is_some_and(done)
        };
        Ok(card.filter(is_this))
    }

    /// Whether this is the objective that needs the velocity of a flow that is there, and no flow is.
    fn learns_badly_alone(&self) -> bool {
        let settings = &self.request.config.distill;
        settings.teacher.is_empty() && settings.flow_map.objective == ObjectiveKind::Eulerian
    }

    fn save<B: burn::tensor::backend::Backend>(
        &self,
        ema: &Dit<B>,
        teacher: Option<&Dit<B>>,
        card: &Card,
    ) -> Result<()> {
        let tokenizer_path = self.request.data.join(TOKENIZER_FILE);
        let tokenizer =
            std::fs::read(&tokenizer_path).map_err(CliError::io("read", &tokenizer_path))?;
        let readme = card::readme(card, &self.network, &self.request.config)?;
        let run = card.to_json();
        let extra: [(&str, &[u8]); 3] = [
            (TOKENIZER_FILE, &tokenizer),
            ("README.md", readme.as_bytes()),
            (CARD_FILE, run.as_bytes()),
        ];
        let place = self.request.out.model();
        if let (Some(beside), Some(denoiser)) = (&self.beside, teacher) {
            let second = Content {
                model: ema,
                config: &self.network,
                extra: &extra,
            };
            return beside.save(&place, second, denoiser);
        }
        folder::save(&place, ema, &self.network, &extra, Existing::Replace)?;
        Ok(())
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

/// How the noise of a run is drawn, for people.
fn noise_line(noise: NoiseWidth, network: &DitConfig, wide: bool) -> String {
    if wide {
        let drawn = network.vocab_size;
        return format!("noise of {drawn} numbers a position, for every network to see");
    }
    let (drawn, other) = match noise {
        NoiseWidth::Network => (network.width, network.vocab_size),
        NoiseWidth::Vocabulary => (network.vocab_size, network.width),
    };
    format!("noise of {drawn} numbers a position, cheaper than of {other}")
}

struct TrainJob<'a>(Plan<'a>);

impl Job for TrainJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let plan = self.0;
        let mut rng = generator(plan.settings.seed, purpose::INITIALIZATION, 0, 0);
        let model = plan.network.init::<B>(&mut rng, &place.device)?;
        match plan.network.family {
            Family::Flow => {
                let schedule = plan.schedule.clone();
                let tokenizer = plan.dataset.tokenizer();
                let objective = flm::flow_objective(schedule, &plan.settings, tokenizer);
                plan.train(place, model, &objective)
            }
            Family::Mdlm => plan.train(place, model, &MdlmObjective::default()),
            Family::Duo => {
                // The curriculum lasts a share of the steps, which --evaluations may decide.
                let step = DuoObjective::default().evaluations(plan.settings.batch);
                let plan = plan.spending(step)?;
                let curriculum = plan
                    .request
                    .config
                    .curriculum
                    .curriculum(plan.network.vocab_size, plan.settings.steps)?;
                let objective = DuoObjective::new(LogLinear::default(), curriculum);
                plan.train(place, model, &objective)
            }
            Family::Autoregressive => plan.train(place, model, &AutoregressiveObjective),
        }
    }
}

struct FlowMapJob<'a> {
    request: Request<'a>,
    dataset: &'a Dataset,
}

impl Job for FlowMapJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self {
            mut request,
            dataset,
        } = self;
        let seed = request.config.distill.train.seed;
        let is_path = request.config.distill.flow_map.objective == ObjectiveKind::Path;
        let (network, student, teacher) = match request.config.distill.teacher.as_str() {
            "" if is_path => {
                return Err(CliError::input(
                    "the path objective follows a frozen flow: name the flow by --teacher",
                ));
            }
            "" => {
                let (vocab_size, length) =
                    (dataset.tokenizer().vocab_size(), dataset.meta().length);
                let network = DitConfig {
                    loss_weight: request.config.distill.flow_map.loss_weight,
                    ..request.config.model.network(vocab_size, length, true)?
                };
                let mut rng = generator(seed, purpose::INITIALIZATION, 0, 0);
                let student = network.init::<B>(&mut rng, &place.device)?;
                (network, student, None)
            }
            path => {
                let path = ModelFolder::open(path)?;
                check_fits(&path, dataset, request.data)?;
                let (path, device) = (path.path(), &place.device);
                let (teacher, network) = folder::load::<B::InnerBackend>(path, device)?;
                request.config.model = ModelSettings::of(&network);
                let (student, _) = folder::load::<B>(path, device)?;
                let mut rng = generator(seed, purpose::SECOND_TIME, 0, 0);
                let student = student.without_earlier();
                let student = student.into_two_time(network.cond_dim, &mut rng, &place.device);
                let network = DitConfig {
                    loss_weight: request.config.distill.flow_map.loss_weight,
                    conditioning: false,
                    self_conditioning: false,
                    ..network.with_two_time(true)
                };
                let student = student.with_loss_weight_of(&network, &mut rng, &place.device);
                (
                    network,
                    student,
                    Some(teacher.with_execution(place.execution)),
                )
            }
        };
        let flow_map = request.config.distill.flow_map.clone();
        let plan = Plan::new(request, dataset, network, "flow map", true)?;
        let objective = FlowMapObjective::new(plan.schedule.clone(), flow_map, teacher);
        // Segments are halved over the steps, which --evaluations may decide.
        let step = objective.evaluations::<B>(plan.settings.batch);
        let plan = plan.spending(step)?;
        let objective = objective.over(plan.settings.steps);
        plan.train(place, student, &objective)
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
