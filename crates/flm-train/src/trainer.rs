//! The loop.

use crate::checkpoint::{self, Origin, State, Tensors};
use crate::config::TrainConfig;
use crate::ema;
use crate::error::TrainError;
use crate::metrics::{Evaluation, Event, StepReport, average_by_name, describe};
use crate::objective::{Draw, Losses, Objective};
use crate::optimizer::{Optimizers, combine};
use crate::workers::Workers;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use flm_data::{BatchOrder, Split};
use flm_denoiser::Dit;
use flm_simplex::stream::Stream;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The stream number of validation draws: the same for every validation, and no training step's.
const VALIDATION_STEP: u64 = u64::MAX;

/// A run: what to train, on what, towards what.
pub struct Run<'a, B: AutodiffBackend, O> {
    /// The network as it starts.
    pub model: Dit<B>,
    /// What it is trained towards.
    pub objective: &'a O,
    /// Training rows.
    pub train: &'a Split,
    /// Validation rows; none are needed.
    pub validation: &'a Split,
    /// Identity of the token data, so that a run is not resumed on another's.
    pub data: String,
    /// The settings.
    pub config: &'a TrainConfig,
    /// Chance with which the network drops entries of its residual branches.
    pub dropout: f64,
    /// Parts of a step done side by side; 1 leaves parallelism to the backend's operations.
    pub workers: usize,
    /// Where checkpoints go.
    pub checkpoints: PathBuf,
    /// Whether to go on from the newest checkpoint.
    pub resume: bool,
    /// Set by others to make the run write a checkpoint and stop.
    pub stop: &'a AtomicBool,
    /// The device to train on.
    pub device: B::Device,
}

/// How a run ended.
pub struct Outcome<B: Backend> {
    /// The averaged weights: the model to keep.
    pub ema: Dit<B>,
    /// Steps done, all sessions together.
    pub steps: u64,
    /// Seconds trained, all sessions together.
    pub seconds: f64,
    /// Whether all steps were done; otherwise the run was asked to stop.
    pub finished: bool,
    /// The last validation, if there were rows to validate on.
    pub validation: Option<Evaluation>,
}

impl<'a, B: AutodiffBackend, O: Objective<B>> Run<'a, B, O> {
    /// Makes everything ready for the first step, or for the one after the newest checkpoint. Nothing is written yet.
    ///
    /// # Errors
    ///
    /// Impossible settings, or a checkpoint that is missing, damaged or of another run.
    pub fn ready(self) -> Result<Ready<'a, B, O>, TrainError> {
        self.config.validate()?;
        let order = BatchOrder::new(self.config.seed, self.train.rows())?;
        let workers = Workers::new(self.workers)?;
        let (tensors, state) = self.start()?;
        Ok(Ready {
            run: self,
            order,
            workers,
            tensors,
            state,
        })
    }

    fn start(&self) -> Result<(Tensors<B>, State), TrainError> {
        let tensors = Tensors {
            ema: self.model.valid(),
            optimizers: Optimizers::new(&self.config.optimizer),
            model: self.model.clone(),
        };
        if !self.resume {
            return Ok((tensors, State::default()));
        }
        let Some((_, path)) = checkpoint::latest(&self.checkpoints)? else {
            return Err(TrainError::NothingToResume {
                path: self.checkpoints.clone(),
            });
        };
        checkpoint::load(&path, tensors, self.origin(), &self.device)
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            data: &self.data,
            config: self.config,
        }
    }

    /// One step: every part forward and backward, then the weights.
    fn step(
        &self,
        tensors: &mut Tensors<B>,
        workers: &Workers,
        rows: &[usize],
        step: u64,
    ) -> Result<StepReport, TrainError> {
        let config = self.config;
        let parts = config.parts();
        let tokens = self.train.batch(rows)?;
        let model = &tensors.model;
        let answers = workers.map(parts, |part| {
            // Leaves of its own: parts that shared a graph would wait for each other.
            let model = model.clone().fork(&self.device);
            let draw = self.draw(step, part, parts, self.dropout);
            let losses = self.score(&model, &tokens, config.batch, &draw);
            let loss = losses.per_token.clone().mean();
            let grads = GradientsParams::from_grads((loss / parts as f64).backward(), &model);
            (grads, by_name(losses))
        });
        let (grads, named): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let losses = average_by_name(named);
        let (grads, grad_norm) = combine(&tensors.model, grads, config.optimizer.clip);
        let loss = losses.mean();
        for (what, value) in [("the loss", loss), ("the gradient's norm", grad_norm)] {
            if !value.is_finite() {
                let what = format!("{what} became {value}");
                return Err(self.diverged(step + 1, what, &losses.means()));
            }
        }
        let factor = config.optimizer.factor(step, config.steps);
        tensors.model = tensors
            .optimizers
            .step(tensors.model.clone(), grads, factor, workers);
        tensors.ema = ema::update(
            tensors.ema.clone(),
            &tensors.model.valid(),
            ema::warm_decay(config.ema_decay, step),
        );
        Ok(StepReport {
            loss,
            losses: losses.means(),
            grad_norm,
            lr: config.optimizer.lr * factor,
        })
    }

    fn draw(&self, step: u64, part: usize, parts: usize, dropout: f64) -> Draw {
        let stream = Stream {
            seed: self.config.seed,
            step,
            part: part as u64,
            parts: parts as u64,
        };
        Draw { stream, dropout }
    }

    /// Scores the rows of a batch, `[batch · length]` tokens, that are this part's.
    fn score(&self, model: &Dit<B>, tokens: &[u32], batch: usize, draw: &Draw) -> Losses<B> {
        let length = self.train.length();
        let rows: Vec<&[u32]> = tokens.chunks_exact(length).collect();
        let mine = draw.stream.share(&rows);
        let ids: Vec<i32> = mine
            .iter()
            .flat_map(|row| row.iter().map(|&id| id as i32))
            .collect();
        let tokens = Tensor::<B, 2, Int>::from_data(
            TensorData::new(ids, [mine.len(), length]),
            &self.device,
        );
        self.objective.losses(model, tokens, batch, draw)
    }

    /// The averaged weights on the first validation rows, always with the same times and noise.
    fn validate(
        &self,
        ema: &Dit<B::InnerBackend>,
        workers: &Workers,
        step: u64,
    ) -> Result<Option<Evaluation>, TrainError> {
        let micro = self.config.micro_batch;
        let parts = self
            .config
            .validation_rows
            .min(self.validation.rows())
            .div_ceil(micro);
        // Whole parts only, so that a part's share is a micro-batch.
        let parts = if parts * micro > self.validation.rows() {
            parts.saturating_sub(1)
        } else {
            parts
        };
        if parts == 0 {
            return Ok(None);
        }
        let rows: Vec<usize> = (0..parts * micro).collect();
        let tokens = self.validation.batch(&rows)?;
        let model = Dit::<B>::from_inner(ema.clone()).no_grad();
        let named = workers.map(parts, |part| {
            let draw = self.draw(VALIDATION_STEP, part, parts, 0.0);
            by_name(self.score(&model, &tokens, rows.len(), &draw))
        });
        let losses = average_by_name(named);
        Ok(Some(Evaluation {
            step,
            loss: losses.mean(),
            losses: losses.means(),
        }))
    }

    fn diverged(
        &self,
        step: u64,
        what: String,
        losses: &BTreeMap<&'static str, f64>,
    ) -> TrainError {
        let checkpoint = match checkpoint::latest(&self.checkpoints) {
            Ok(Some((_, path))) => format!("the last good checkpoint is {}", path.display()),
            _ => "there is no checkpoint yet".to_owned(),
        };
        TrainError::Diverged {
            step,
            what,
            parts: describe(losses),
            checkpoint,
        }
    }
}

/// A run before its next step: the network, its average and the optimizers as they should be.
pub struct Ready<'a, B: AutodiffBackend, O> {
    run: Run<'a, B, O>,
    order: BatchOrder,
    workers: Workers,
    tensors: Tensors<B>,
    state: State,
}

impl<B: AutodiffBackend, O: Objective<B>> Ready<'_, B, O> {
    /// Trains until the last step or until asked to stop, and tells `observe` about it.
    ///
    /// # Errors
    ///
    /// Unreadable data, a checkpoint that cannot be written, or a loss, gradient or weights that are no numbers any more: then
    /// the last checkpoint before it stays.
    pub fn train(
        self,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome<B::InnerBackend>, TrainError> {
        let Self {
            run,
            order,
            workers,
            mut tensors,
            mut state,
        } = self;
        let config = run.config;
        let (started, before) = (Instant::now(), state.seconds);
        let mut validation = None;
        let mut since_log = Progress::new(started);
        while state.step < config.steps {
            let rows = order.batch(state.step, config.batch);
            let report = run.step(&mut tensors, &workers, &rows, state.step)?;
            state.step += 1;
            state.seconds = before + started.elapsed().as_secs_f64();
            since_log.add(&report);
            let last = state.step == config.steps;
            if state.step.is_multiple_of(config.log_every) || last {
                let tokens = config.batch * run.train.length();
                observe(Event::Step(since_log.report(
                    &report,
                    state.step,
                    config.steps,
                    state.seconds,
                    tokens,
                )));
                since_log = Progress::new(Instant::now());
            }
            let stopping = run.stop.load(Ordering::Relaxed);
            let keep = last || stopping || due(state.step, config.checkpoint_every);
            if keep && !(is_finite(&tensors.model.valid()) && is_finite(&tensors.ema)) {
                // Found before it is written: a checkpoint that is there is a good one.
                let what = "weights became infinite or NaN".to_owned();
                return Err(run.diverged(state.step, what, &report.losses));
            }
            if last || due(state.step, config.validate_every) {
                validation = run.validate(&tensors.ema, &workers, state.step)?;
                if let Some(evaluation) = &validation {
                    observe(Event::Validation(evaluation));
                }
            }
            if keep {
                let path = checkpoint::save(&run.checkpoints, &tensors, state, run.origin())?;
                observe(Event::Checkpoint(&path));
            }
            if stopping {
                break;
            }
        }
        Ok(Outcome {
            ema: tensors.ema,
            steps: state.step,
            seconds: state.seconds,
            finished: state.step >= config.steps,
            validation,
        })
    }
}

/// Whether every parameter is a number.
fn is_finite<B: Backend, M: Module<B>>(module: &M) -> bool {
    struct Finite(bool);
    impl<B: Backend> ModuleVisitor<B> for Finite {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0 = self.0 && param.val().is_finite().all().into_scalar().elem();
        }
    }
    let mut finite = Finite(true);
    module.visit(&mut finite);
    finite.0
}

/// Sums of the row losses by name, with their counts.
fn by_name<B: AutodiffBackend>(losses: Losses<B>) -> BTreeMap<&'static str, (f64, usize)> {
    let rows = losses.per_token.mean_dim(1).into_data();
    let mut sums = BTreeMap::new();
    for (name, loss) in losses.names.into_iter().zip(rows.iter::<f64>()) {
        let entry = sums.entry(name).or_insert((0.0, 0));
        entry.0 += loss;
        entry.1 += 1;
    }
    sums
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// What happened since the last line of metrics.
struct Progress {
    since: Instant,
    loss: f64,
    steps: u64,
}

impl Progress {
    fn new(since: Instant) -> Self {
        Self {
            since,
            loss: 0.0,
            steps: 0,
        }
    }

    fn add(&mut self, report: &StepReport) {
        self.loss += report.loss;
        self.steps += 1;
    }

    fn report(
        &self,
        last: &StepReport,
        step: u64,
        steps: u64,
        seconds: f64,
        tokens: usize,
    ) -> crate::metrics::Line {
        let elapsed = self.since.elapsed().as_secs_f64();
        crate::metrics::Line {
            step,
            steps,
            loss: self.loss / self.steps as f64,
            last: last.clone(),
            seconds,
            tokens_per_second: (self.steps as usize * tokens) as f64 / elapsed,
        }
    }
}
