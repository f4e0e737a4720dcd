//! The training loop.

mod context;
mod report;

use crate::checkpoint::{self, Auxiliary, State, Tensors};
use crate::clock::FittedClock;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::metrics::{Evaluation, Event, StepReport};
use crate::optimizer::Optimizers;
use crate::workers::Workers;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use context::Context;
use flm_data::{BatchOrder, Split};
use flm_objective::{Inner, Objective};
use flm_simplex::Clock;
use report::Progress;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A training run: the network, its objective, the data and the settings.
pub struct Run<'a, B: AutodiffBackend, O: Objective<B>> {
    /// The initial network.
    pub model: O::Network,
    /// The training objective.
    pub objective: O,
    /// Training rows.
    pub train: &'a Split,
    /// Validation rows; may be empty.
    pub validation: &'a Split,
    /// Identity of the token data, so that a run cannot be resumed on other data.
    pub data: String,
    /// The settings.
    pub config: TrainConfig,
    /// Dropout probability of the network's residual branches.
    pub dropout: f64,
    /// Number of parts processed in parallel; 1 leaves parallelism to the backend's operations.
    pub workers: usize,
    /// Folder for checkpoints; `None` keeps none.
    pub checkpoints: Option<PathBuf>,
    /// Whether to resume from the newest checkpoint.
    pub resume: bool,
    /// A flag that another thread sets to make the run write a checkpoint and stop.
    pub stop: Option<&'a AtomicBool>,
    /// The device to train on.
    pub device: B::Device,
}

/// The result of a run.
pub struct Outcome<N> {
    /// The averaged weights, which are the model to keep.
    pub ema: N,
    /// Steps done in all sessions together.
    pub steps: u64,
    /// Training time of all sessions together, in seconds.
    pub seconds: f64,
    /// Whether all steps were done; false if the run was stopped.
    pub finished: bool,
    /// The clock as last fitted to the losses, if one is fitted.
    pub clock: Option<Clock>,
    /// The last validation of this session, if there was one.
    pub validation: Option<Evaluation>,
}

impl<'a, B: AutodiffBackend, O: Objective<B>> Run<'a, B, O> {
    /// Prepares the first step, or the step after the newest checkpoint. Writes nothing.
    ///
    /// # Errors
    ///
    /// If settings are invalid, or the checkpoint is missing, damaged or from another run.
    pub fn start(self) -> Result<Session<'a, B, O>, TrainError> {
        self.config.validate()?;
        let order = BatchOrder::new(self.config.seed, self.train.rows())?;
        let workers = Workers::new(self.workers)?;
        let config = &self.config;
        let fresh = Tensors {
            ema: self.model.valid(),
            optimizers: Optimizers::new(&config.optimizer),
            model: self.model,
            auxiliary: self.objective.auxiliary().map(|network| Auxiliary {
                network,
                optimizers: Optimizers::beside(&config.optimizer, config.auxiliary_rate),
            }),
        };
        let context = Context {
            objective: self.objective,
            train: self.train,
            validation: self.validation,
            data: self.data,
            config: self.config,
            dropout: self.dropout,
            checkpoints: self.checkpoints,
            stop: self.stop,
            device: self.device,
        };
        let (tensors, state) = if self.resume {
            context.resumed(fresh)?
        } else {
            (fresh, context.fresh_state())
        };
        Ok(Session {
            context,
            order,
            workers,
            tensors,
            state,
        })
    }
}

/// A run between two steps: the network, its averaged weights and the optimizers.
pub struct Session<'a, B: AutodiffBackend, O: Objective<B>> {
    context: Context<'a, B, O>,
    order: BatchOrder,
    workers: Workers,
    tensors: Tensors<B, O::Network>,
    state: State,
}

impl<B: AutodiffBackend, O: Objective<B>> Session<'_, B, O> {
    /// Trains to the last step or until stopped, and reports events to `observe`.
    ///
    /// # Errors
    ///
    /// If data cannot be read, if a checkpoint cannot be written, or if the loss, the gradient or
    /// the weights become infinite or NaN. In that last case the previous checkpoint stays.
    pub fn train(
        self,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome<Inner<B, O::Network>>, TrainError> {
        let mut session = self;
        let config = session.context.config.clone();
        let steps = config.steps;
        let (started, before) = (Instant::now(), session.state.seconds);
        let mut validation = None;
        let mut since_log = Progress::new(started);
        while session.state.step < steps {
            let report;
            (session, report) = session.step()?;
            let (context, tensors, state) =
                (&session.context, &session.tensors, &mut session.state);
            state.seconds = before + started.elapsed().as_secs_f64();
            since_log.add(&report);
            let last = state.step == config.steps;
            if state.step.is_multiple_of(config.log_every) || last {
                let tokens = config.batch * context.train.length();
                observe(Event::Step(since_log.report(
                    &report,
                    state.step,
                    config.steps,
                    state.seconds,
                    tokens,
                )));
                since_log = Progress::new(Instant::now());
            }
            let stopping = (context.stop).is_some_and(|stop| stop.load(Ordering::Relaxed));
            let keep = last || stopping || due(state.step, config.checkpoint_every);
            let auxiliary = tensors.auxiliary.as_ref();
            if keep && !tensors.are_finite() {
                // Checked before writing, so that every checkpoint on disk is finite.
                let what = "weights became infinite or NaN".to_owned();
                return Err(context.diverged(state.step, what, &report.losses));
            }
            if last || due(state.step, config.validate_every) {
                validation =
                    context.validate(&tensors.ema, auxiliary, &session.workers, state.step)?;
                if let Some(evaluation) = &validation {
                    observe(Event::Validation(evaluation));
                }
            }
            if let (true, Some(place)) = (keep, &context.checkpoints) {
                let path = checkpoint::save(place, tensors, state, context.origin())?;
                observe(Event::Checkpoint(&path));
            }
            if stopping {
                break;
            }
        }
        Ok(Outcome {
            clock: session.state.clock.as_ref().map(FittedClock::clock),
            ema: session.tensors.ema,
            steps: session.state.step,
            seconds: session.state.seconds,
            finished: session.state.step >= steps,
            validation,
        })
    }

    /// Does only the next step, without validation or checkpoint.
    ///
    /// # Errors
    ///
    /// If data cannot be read, or if the loss or the gradient becomes infinite or NaN.
    pub fn step(mut self) -> Result<(Self, StepReport), TrainError> {
        let rows = self.order.batch(self.state.step, self.context.config.batch);
        let (tensors, report) =
            self.context
                .step(self.tensors, &self.workers, &rows, &mut self.state)?;
        self.tensors = tensors;
        self.state.step += 1;
        Ok((self, report))
    }
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
