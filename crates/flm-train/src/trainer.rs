//! The loop.

use crate::checkpoint::{self, Auxiliary, Origin, State, Tensors};
use crate::clock::FittedClock;
use crate::config::TrainConfig;
use crate::ema;
use crate::error::TrainError;
use crate::metrics::{Evaluation, Event, StepReport, Sums, average_by_name, describe};
use crate::objective::{Draw, Losses, Objective};
use crate::optimizer::{Optimizers, combine};
use crate::workers::Workers;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use flm_data::{BatchOrder, Split};
use flm_denoiser::{Dit, NoiseWidth, Prior};
use flm_distill::References;
use flm_simplex::Clock;
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
    /// The clock as it was fitted to the losses at last, where it was.
    pub clock: Option<Clock>,
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
        let [vocab, width] = self.model.embed().embedding.dims();
        let noise = if self.objective.wide_noise() {
            NoiseWidth::Vocabulary
        } else {
            NoiseWidth::cheaper(
                vocab,
                width,
                self.config.batch * self.train.length(),
                self.config.parts(),
                self.objective.teacher().is_some(),
            )
        };
        let config = self.config;
        let fresh = Tensors {
            ema: self.model.valid(),
            optimizers: Optimizers::new(&config.optimizer),
            model: self.model,
            auxiliary: self.objective.auxiliary().map(|network| Auxiliary {
                network,
                optimizers: Optimizers::beside(&config.optimizer, config.auxiliary_rate),
            }),
        };
        let course = Course {
            objective: self.objective,
            train: self.train,
            validation: self.validation,
            data: self.data,
            config: self.config,
            dropout: self.dropout,
            noise,
            checkpoints: self.checkpoints,
            stop: self.stop,
            device: self.device,
        };
        let (tensors, state) = if self.resume {
            course.resumed(fresh)?
        } else {
            (fresh, course.fresh_state())
        };
        Ok(Ready {
            course,
            order,
            workers,
            tensors,
            state,
        })
    }
}

/// A run but for what its steps change.
struct Course<'a, B: AutodiffBackend, O> {
    objective: &'a O,
    train: &'a Split,
    validation: &'a Split,
    data: String,
    config: &'a TrainConfig,
    dropout: f64,
    noise: NoiseWidth,
    checkpoints: PathBuf,
    stop: &'a AtomicBool,
    device: B::Device,
}

impl<B: AutodiffBackend, O: Objective<B>> Course<'_, B, O> {
    /// What the newest checkpoint holds, in the place of what a run would start from.
    fn resumed(&self, fresh: Tensors<B>) -> Result<(Tensors<B>, State), TrainError> {
        let Some((_, path)) = checkpoint::latest(&self.checkpoints)? else {
            return Err(TrainError::NothingToResume {
                path: self.checkpoints.clone(),
            });
        };
        checkpoint::load(&path, fresh, self.origin(), &self.device)
    }

    /// The state of a run that begins.
    fn fresh_state(&self) -> State {
        let clock = (self.objective.clock()).filter(|_| self.config.clock_every > 0);
        State {
            clock: clock.map(FittedClock::new),
            ..State::default()
        }
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
        tensors: Tensors<B>,
        workers: &Workers,
        rows: &[usize],
        state: &mut State,
    ) -> Result<(Tensors<B>, StepReport), TrainError> {
        let step = state.step;
        let config = self.config;
        let parts = config.parts();
        let tokens = self.train.batch(rows)?;
        let Tensors {
            model,
            ema,
            mut optimizers,
            auxiliary,
        } = tensors;
        let prior = self.prior(&model.valid());
        let references = self.references(step)?;
        let references = references.as_ref().map(|ids| References {
            ids,
            length: self.train.length(),
        });
        let clock = state.clock.as_ref().map(FittedClock::clock);
        let answers = workers.map(parts, |part| {
            // Leaves of its own: parts that shared a graph would wait for each other.
            let model = model.clone().fork(&self.device);
            let auxiliary = auxiliary
                .as_ref()
                .map(|auxiliary| auxiliary.network.clone().fork(&self.device));
            let draw = Draw {
                auxiliary: auxiliary.as_ref(),
                references,
                clock: clock.as_ref(),
                ..self.draw(step, [part, parts], &ema, &prior, self.dropout)
            };
            let losses = self.score(&model, &tokens, config.batch, &draw);
            let loss = losses.mean.clone() / parts as f64;
            let mut grads = loss.backward();
            let of_model = GradientsParams::from_module(&mut grads, &model);
            let of_auxiliary =
                auxiliary.map(|auxiliary| GradientsParams::from_module(&mut grads, &auxiliary));
            (of_model, of_auxiliary, by_name(losses))
        });
        let (mut grads, mut of_auxiliary, mut named) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_tau = Vec::new();
        for (model, auxiliary, (losses, taus)) in answers {
            grads.push(model);
            of_auxiliary.extend(auxiliary);
            named.push(losses);
            by_tau.extend(taus);
        }
        let (losses, beside) = average_by_name(named);
        let (grads, grad_norm) = combine(&model, grads, config.optimizer.clip);
        let loss = losses.mean();
        for (what, value) in [("the loss", loss), ("the gradient's norm", grad_norm)] {
            if !value.is_finite() {
                let what = format!("{what} became {value}");
                return Err(self.diverged(step + 1, what, &losses.means()));
            }
        }
        if let Some(clock) = &mut state.clock {
            clock.add(&by_tau);
            let done = step + 1;
            if done > config.clock_every && due(done, config.clock_every) {
                clock.refit();
            }
        }
        let factor = config.optimizer.factor(step, config.steps);
        // Weights, average and moments are passed on, not shared: what nobody else holds is written over in place.
        let model = optimizers.step(model, grads, factor, workers);
        let auxiliary = auxiliary.map(|auxiliary| {
            let Auxiliary {
                network,
                mut optimizers,
            } = auxiliary;
            let (grads, _) = combine(&network, of_auxiliary, config.optimizer.clip);
            Auxiliary {
                network: optimizers.step(network, grads, factor, workers),
                optimizers,
            }
        });
        let decay = ema::warm_decay(config.ema_decay, step);
        let ema = ema::update(ema, &model.valid(), decay);
        let report = StepReport {
            loss,
            losses: losses.means(),
            beside: beside.means(),
            grad_norm,
            lr: config.optimizer.lr * factor,
        };
        let tensors = Tensors {
            model,
            ema,
            optimizers,
            auxiliary,
        };
        Ok((tensors, report))
    }

    /// The reference rows of a step, in an order of their own.
    fn references(&self, step: u64) -> Result<Option<Vec<u32>>, TrainError> {
        let count = self.objective.references().min(self.train.rows());
        if count == 0 {
            return Ok(None);
        }
        let order = BatchOrder::new(!self.config.seed, self.train.rows())?;
        Ok(Some(self.train.batch(&order.batch(step, count))?))
    }

    /// The noise of a step, as `model` and the teacher see it.
    fn prior(&self, model: &Dit<B::InnerBackend>) -> Prior<B::InnerBackend> {
        let teacher = self.objective.teacher().map(Dit::embed);
        Prior::of_width(model.embed(), teacher, self.noise).where_computed()
    }

    fn draw<'p>(
        &self,
        step: u64,
        [part, parts]: [usize; 2],
        average: &'p Dit<B::InnerBackend>,
        prior: &'p Prior<B::InnerBackend>,
        dropout: f64,
    ) -> Draw<'p, B> {
        let stream = Stream {
            seed: self.config.seed,
            step,
            part: part as u64,
            parts: parts as u64,
        };
        Draw {
            stream,
            average,
            auxiliary: None,
            references: None,
            clock: None,
            prior,
            dropout,
        }
    }

    /// Scores the rows of a batch, `[batch · length]` tokens, that are this part's.
    fn score(&self, model: &Dit<B>, tokens: &[u32], batch: usize, draw: &Draw<'_, B>) -> Losses<B> {
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
        auxiliary: Option<&Auxiliary<B>>,
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
        let prior = self.prior(ema);
        let model = Dit::<B>::from_inner(ema.clone()).no_grad();
        let auxiliary = auxiliary.map(|auxiliary| auxiliary.network.clone().no_grad());
        let named = workers.map(parts, |part| {
            let draw = Draw {
                auxiliary: auxiliary.as_ref(),
                ..self.draw(VALIDATION_STEP, [part, parts], ema, &prior, 0.0)
            };
            by_name(self.score(&model, &tokens, rows.len(), &draw)).0
        });
        let (losses, beside) = average_by_name(named);
        Ok(Some(Evaluation {
            step,
            loss: losses.mean(),
            losses: losses.means(),
            beside: beside.means(),
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
    course: Course<'a, B, O>,
    order: BatchOrder,
    workers: Workers,
    tensors: Tensors<B>,
    state: State,
}

impl<B: AutodiffBackend, O: Objective<B>> Ready<'_, B, O> {
    /// How wide the noise of every step is drawn.
    pub fn noise(&self) -> NoiseWidth {
        self.course.noise
    }

    /// Does the next step, and nothing besides: no validation, no checkpoint.
    ///
    /// # Errors
    ///
    /// Unreadable data, or a loss or gradient that is no number any more.
    pub fn step(mut self) -> Result<(Self, StepReport), TrainError> {
        let rows = self.order.batch(self.state.step, self.course.config.batch);
        let (tensors, report) =
            self.course
                .step(self.tensors, &self.workers, &rows, &mut self.state)?;
        self.tensors = tensors;
        self.state.step += 1;
        Ok((self, report))
    }

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
        let mut ready = self;
        let (config, steps) = (ready.course.config, ready.course.config.steps);
        let (started, before) = (Instant::now(), ready.state.seconds);
        let mut validation = None;
        let mut since_log = Progress::new(started);
        while ready.state.step < steps {
            let report;
            (ready, report) = ready.step()?;
            let (course, tensors, state) = (&ready.course, &ready.tensors, &mut ready.state);
            state.seconds = before + started.elapsed().as_secs_f64();
            since_log.add(&report);
            let last = state.step == config.steps;
            if state.step.is_multiple_of(config.log_every) || last {
                let tokens = config.batch * course.train.length();
                observe(Event::Step(since_log.report(
                    &report,
                    state.step,
                    config.steps,
                    state.seconds,
                    tokens,
                )));
                since_log = Progress::new(Instant::now());
            }
            let stopping = course.stop.load(Ordering::Relaxed);
            let keep = last || stopping || due(state.step, config.checkpoint_every);
            let auxiliary = tensors.auxiliary.as_ref();
            if keep && !tensors.are_finite() {
                // Found before it is written: a checkpoint that is there is a good one.
                let what = "weights became infinite or NaN".to_owned();
                return Err(course.diverged(state.step, what, &report.losses));
            }
            if last || due(state.step, config.validate_every) {
                validation =
                    course.validate(&tensors.ema, auxiliary, &ready.workers, state.step)?;
                if let Some(evaluation) = &validation {
                    observe(Event::Validation(evaluation));
                }
            }
            if keep {
                let path = checkpoint::save(&course.checkpoints, tensors, state, course.origin())?;
                observe(Event::Checkpoint(&path));
            }
            if stopping {
                break;
            }
        }
        Ok(Outcome {
            clock: ready.state.clock.as_ref().map(FittedClock::clock),
            ema: ready.tensors.ema,
            steps: ready.state.step,
            seconds: ready.state.seconds,
            finished: ready.state.step >= steps,
            validation,
        })
    }
}

impl<B: AutodiffBackend> Tensors<B> {
    /// Whether every parameter of every network is a number.
    fn are_finite(&self) -> bool {
        let auxiliary = self.auxiliary.as_ref();
        is_finite(&self.model.valid())
            && is_finite(&self.ema)
            && auxiliary.is_none_or(|auxiliary| is_finite(&auxiliary.network.valid()))
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

/// The quarters of τ whose losses are reported beside a flow's whole.
const QUARTERS: [&str; 4] = ["tau_1", "tau_2", "tau_3", "tau_4"];

/// Sums of the row losses by name, with their counts, and of what is reported beside them; and τ and loss of each row that has a τ.
fn by_name<B: AutodiffBackend>(losses: Losses<B>) -> ([Sums; 2], Vec<(f64, f64)>) {
    let rows = losses.per_token.mean_dim(1).into_data();
    let by_tau: Vec<(f64, f64)> = losses.taus.into_iter().zip(rows.iter()).collect();
    let (mut sums, mut beside) = (Sums::new(), Sums::new());
    let add = |sums: &mut Sums, name, sum: f64, count: f64| {
        let entry = sums.entry(name).or_insert((0.0, 0.0));
        entry.0 += sum;
        entry.1 += count;
    };
    for (name, loss) in losses.names.into_iter().zip(rows.iter::<f64>()) {
        add(&mut sums, name, loss, 1.0);
    }
    for (tau, loss) in &by_tau {
        let quarter = ((tau * 4.0) as usize).min(3);
        add(&mut beside, QUARTERS[quarter], *loss, 1.0);
    }
    for measured in losses.beside {
        add(&mut beside, measured.name, measured.sum, measured.count);
    }
    ([sums, beside], by_tau)
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
