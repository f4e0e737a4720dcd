//! Distillation of discrete diffusions in rounds: each round's teacher is the student of the round
//! before, and its step is twice as long.
//!
//! Each round is a run. The last one is the run folder itself; earlier ones are in its `rounds/`.

use crate::config::{Config, ModelSettings};
use crate::device::{Job, Place};
use crate::error::{CliError, Result};
use crate::files::{Kind, RunFolder};
use crate::run::{Request, RunPlan, Spent, Start, check_same, paid};
use burn::tensor::backend::AutodiffBackend;
use flm::{Card, Model, ModelFolder, Rows, Trainer};
use flm_denoiser::Family;
use flm_discrete::{dcd, sdtt};
use std::path::{Path, PathBuf};

/// Folder of the rounds before the last, in a run folder.
const ROUNDS: &str = "rounds";

/// Returns the folder of the configured teacher, if it is distilled in rounds.
pub(super) fn teacher(config: &Config) -> Result<Option<PathBuf>> {
    let teacher = config.distill.teacher.as_str();
    if teacher.is_empty() {
        return match config.model.family {
            Family::Flow => Ok(None),
            family => Err(CliError::input(format!(
                "only a flow map can be distilled without a teacher, but model.family is {family}"
            ))),
        };
    }
    let model = ModelFolder::open(teacher)?;
    let path = model.path().to_path_buf();
    match model.config().family {
        Family::Flow => Ok(None),
        Family::Mdlm | Family::Duo => Ok(Some(path)),
        Family::Autoregressive => Err(CliError::input(format!(
            "{} is autoregressive: distillation of such a model is unsupported",
            path.display()
        ))),
    }
}

/// Runs all rounds in order.
pub(super) struct RoundsJob<'a> {
    pub(super) request: Request<'a>,
    pub(super) rows: &'a Rows,
    /// Folder of the first teacher.
    pub(super) teacher: PathBuf,
}

impl Job for RoundsJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self {
            mut request,
            rows,
            mut teacher,
        } = self;
        let model = ModelFolder::open(&teacher)?;
        model.check_fits(rows.tokenizer(), rows.length(), request.data)?;
        let network = model.config().clone();
        request.config.model = ModelSettings::of(&network);
        let settings = &request.config.distill;
        let (steps, cost) = match network.family {
            Family::Duo => {
                settings.dcd.noise(network.vocab_size)?;
                (settings.dcd.steps()?, dcd::EVALUATIONS)
            }
            _ => (settings.sdtt.steps()?, sdtt::EVALUATIONS),
        };
        settings.train.validate()?;
        let count = steps.len();
        if let Some(all) = request.evaluations.take() {
            // The budget is shared evenly and saved as a number of steps, so a resumed run keeps
            // its share.
            let step = cost * settings.train.batch as f64;
            request.config.distill.train.steps = paid(all / count as u64, step)?;
        }
        begin(&request, &teacher)?;
        let mut spent = Spent::default();
        for (number, step) in (1..).zip(steps) {
            let request = of_round(&request, number, count);
            let out = request.out.clone();
            let card = round(place, request, rows, &teacher, step, spent)?;
            if number == count {
                return Ok(card);
            }
            // The card counts all rounds so far.
            let training = card.training.unwrap_or_default();
            spent = Spent {
                evaluations: training.evaluations,
                seconds: training.seconds,
            };
            teacher = out.model();
        }
        unreachable!("there is at least one round")
    }
}

/// Prepares the folder for resuming, or checks that a resumed run keeps its settings.
fn begin(request: &Request<'_>, teacher: &Path) -> Result<()> {
    if request.start == Start::Resume {
        check_same(&request.config, &request.out)?;
        let steps = |config: &Config| config.distill.train.steps;
        let (then, now) = (steps(&request.out.saved()?), steps(&request.config));
        if then == now {
            return Ok(());
        }
        // Later rounds started from the results of earlier ones.
        return Err(CliError::input(format!(
            "{} is distilled in rounds and cannot be resumed with other settings: distill.train.steps was {then}, now {now}",
            request.out.root().display()
        )));
    }
    let force = request.start == Start::Replace;
    request.out.check_free(force, Kind::Run)?;
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    if let (Some(out), Some(model)) = (whole(request.out.root()), whole(teacher))
        && model.starts_with(&out)
    {
        return Err(CliError::input(format!(
            "the teacher {} is in the run that would be replaced, {}",
            teacher.display(),
            request.out.root().display()
        )));
    }
    request.out.create()?;
    let rounds = request.out.root().join(ROUNDS);
    if rounds.exists() {
        std::fs::remove_dir_all(&rounds).map_err(CliError::io("remove", &rounds))?;
    }
    request.out.save(&request.config.of_run()?)
}

/// Returns the request of one round, which resumes the round if it was started.
fn of_round<'a>(request: &Request<'a>, number: usize, count: usize) -> Request<'a> {
    let out = if number == count {
        request.out.clone()
    } else {
        RunFolder::new(request.out.root().join(ROUNDS).join(number.to_string()))
    };
    let start = if out.config().is_file() {
        Start::Resume
    } else {
        // A folder without a configuration is of a run that stopped before writing one.
        Start::Replace
    };
    Request {
        config: request.config.clone(),
        out,
        start,
        command: request.command.clone(),
        ..*request
    }
}

fn round<B: AutodiffBackend>(
    place: &Place<B>,
    request: Request<'_>,
    rows: &Rows,
    teacher: &Path,
    step: f64,
    spent: Spent,
) -> Result<Card> {
    let mut run = RunPlan::new(request, true)?;
    run.spent = spent;
    let teacher = Model::<B::InnerBackend>::load(teacher, &place.device)?;
    let teacher = teacher.with_execution(place.execution);
    let (distill, settings) = (&run.request.config.distill, run.settings().clone());
    if teacher.config().family == Family::Duo {
        let trainer = Trainer::dcd(&teacher, step, &distill.dcd, rows, settings)?;
        run.train(place, trainer)
    } else {
        let divergence = distill.sdtt.divergence;
        let trainer = Trainer::sdtt(&teacher, step, divergence, rows, settings)?;
        run.train(place, trainer)
    }
}
