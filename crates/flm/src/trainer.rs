//! Training of networks on rows of tokens.

mod flow_maps;
mod flows;
mod tokens;

use crate::model::{Frozen, check_network};
use crate::{Card, Error, Model, Result, Rows, Training, kind};
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, DitConfig, Execution};
use flm_objective::Objective;
use flm_simplex::Clock;
use flm_train::{
    Evaluation, Event, Run, Session, TrainConfig, latest_checkpoint, remove_checkpoints,
};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// A builder for training runs.
///
/// Constructors create the network and the objective: [`flow`](Self::flow),
/// [`flow_map`](Self::flow_map), [`distribution`](Self::distribution), [`masked`](Self::masked) and
/// others; [`new`](Self::new) takes a custom objective.
pub struct Trainer<'a, B: AutodiffBackend, O> {
    network: Dit<B>,
    config: DitConfig,
    /// The frozen denoiser of a residual flow map, saved with the network.
    denoiser: Option<Frozen<B::InnerBackend>>,
    objective: O,
    rows: &'a Rows,
    settings: TrainConfig,
    checkpoints: Option<PathBuf>,
    resume: bool,
    replace: bool,
    stop: Option<&'a AtomicBool>,
    observe: Box<dyn FnMut(Event<'_>) + 'a>,
}

/// A validated training run that has not written anything yet.
pub struct Started<'a, B: AutodiffBackend, O: Objective<B, Network = Dit<B>>> {
    run: Session<'a, B, O>,
    config: DitConfig,
    denoiser: Option<Frozen<B::InnerBackend>>,
    rows: &'a Rows,
    training: Training,
    /// Number of network evaluations per step.
    evaluations: f64,
    /// The folder with checkpoints to replace.
    replaced: Option<PathBuf>,
    observe: Box<dyn FnMut(Event<'_>) + 'a>,
}

/// The result of a training run.
#[derive(Debug)]
pub struct Trained<B: Backend> {
    /// The model with the averaged weights.
    pub model: Model<B>,
    /// Whether all steps were done; `false` if the run was stopped.
    pub finished: bool,
    /// The last validation; `None` with fewer validation rows than a micro-batch, or when a
    /// finished run is resumed.
    pub validation: Option<Evaluation>,
}

impl<B: AutodiffBackend, O> fmt::Debug for Trainer<'_, B, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<'a, B: AutodiffBackend, O: Objective<B, Network = Dit<B>>> Trainer<'a, B, O> {
    /// Creates a trainer for a network of this configuration with a custom objective.
    pub fn new(
        network: Dit<B>,
        config: DitConfig,
        objective: O,
        rows: &'a Rows,
        settings: TrainConfig,
    ) -> Self {
        Self {
            network,
            config,
            denoiser: None,
            objective,
            rows,
            settings,
            checkpoints: None,
            resume: false,
            replace: false,
            stop: None,
            observe: Box::new(|_| ()),
        }
    }

    /// Overrides the number of steps in the settings. The curriculum of a uniform-state model keeps
    /// its length.
    pub fn steps(mut self, steps: u64) -> Self {
        self.settings.steps = steps;
        self
    }

    /// Sets how the network is evaluated.
    pub fn execution(mut self, execution: Execution) -> Self {
        self.network = self.network.with_execution(execution);
        self
    }

    /// The configuration of the network.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The training data.
    pub fn rows(&self) -> &'a Rows {
        self.rows
    }

    /// The settings of the training loop.
    pub fn settings(&self) -> &TrainConfig {
        &self.settings
    }

    /// Number of network evaluations per step.
    pub fn evaluations(&self) -> f64 {
        self.objective.evaluations(self.settings.batch)
    }

    /// Writes checkpoints to a folder.
    pub fn checkpoints(mut self, folder: impl Into<PathBuf>) -> Self {
        self.checkpoints = Some(folder.into());
        self
    }

    /// Resumes from the newest checkpoint. The result is bit-identical to an uninterrupted run.
    ///
    /// Rows and settings must be those of the resumed run; only `steps` may differ.
    pub fn resume(mut self) -> Self {
        self.resume = true;
        self
    }

    /// Starts over even if the folder holds checkpoints, which are removed when training begins.
    pub fn replace(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Writes checkpoints to a folder, and resumes from the newest one if there is any.
    ///
    /// A program with this setting can be rerun after an interruption.
    ///
    /// # Errors
    ///
    /// [`Error::Train`] if the folder cannot be read.
    pub fn resume_or_start(self, folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let resume = latest_checkpoint(&folder)?.is_some();
        Ok(Self {
            resume,
            ..self.checkpoints(folder)
        })
    }

    /// Calls `observe` with each event.
    pub fn on_event(mut self, observe: impl FnMut(Event<'_>) + 'a) -> Self {
        self.observe = Box::new(observe);
        self
    }

    /// Stops after the step in which `stop` is set, and writes a checkpoint if a folder is given.
    pub fn stop(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Trains until the last step.
    ///
    /// # Errors
    ///
    /// The errors of [`start`](Self::start) and [`Started::train`].
    pub fn train(self) -> Result<Trained<B::InnerBackend>> {
        self.start()?.train()
    }

    /// Validates the run and reads the checkpoint to resume from.
    ///
    /// # Errors
    ///
    /// [`Error::Vocabulary`], [`Error::Option`] or [`Error::Folder`] if network, configuration and
    /// rows do not match. [`Error::Option`] if the folder holds checkpoints that are neither
    /// resumed nor replaced, or to resume without a folder. [`Error::Train`] if the settings are
    /// invalid or a checkpoint cannot be read. [`Error::Config`] if the sizes are invalid.
    pub fn start(self) -> Result<Started<'a, B, O>> {
        self.check()?;
        let evaluations = self.evaluations();
        let device = self.network.embed().embedding.device();
        let training = Training {
            seed: self.settings.seed,
            data_hash: self.rows.hash().to_owned(),
            data_source: self.rows.source().to_owned(),
            dtype: self.network.execution().precision.to_string(),
            ..Default::default()
        };
        let replaced = self
            .checkpoints
            .clone()
            .filter(|_| self.replace && !self.resume);
        let workers = crate::model::side_by_side::<B>().min(self.settings.parts());
        let run = Run {
            model: self.network,
            objective: self.objective,
            train: self.rows.train(),
            validation: self.rows.validation(),
            data: self.rows.hash().to_owned(),
            config: self.settings,
            dropout: self.config.dropout,
            workers,
            checkpoints: self.checkpoints,
            resume: self.resume,
            stop: self.stop,
            device,
        };
        Ok(Started {
            run: run.start()?,
            config: self.config,
            denoiser: self.denoiser,
            rows: self.rows,
            training,
            evaluations,
            replaced,
            observe: self.observe,
        })
    }

    /// Checks that network, configuration, rows and folder match.
    fn check(&self) -> Result<()> {
        let (config, rows) = (&self.config, self.rows);
        config.validate()?;
        if config.vocab_size != rows.tokenizer().vocab_size() {
            return Err(Error::Vocabulary {
                path: rows.source().into(),
                tokenizer: rows.tokenizer().vocab_size(),
                network: config.vocab_size,
            });
        }
        if config.length != rows.length() {
            return Err(Error::Option(format!(
                "the network is for rows of {} tokens, but these have {}",
                config.length,
                rows.length()
            )));
        }
        check_network(&self.network, config, self.denoiser.is_some())?;
        match (&self.checkpoints, self.resume) {
            (None, true) => Err(Error::Option(
                "a run is resumed from its checkpoints: set their folder".to_owned(),
            )),
            (Some(folder), false) if !self.replace && latest_checkpoint(folder)?.is_some() => {
                Err(Error::Option(format!(
                    "{} holds the checkpoints of a run: resume it, or choose another folder",
                    folder.display()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl<'a, B: AutodiffBackend, O: Objective<B, Network = Dit<B>>> Started<'a, B, O> {
    /// Calls `observe` with each event.
    pub fn on_event(mut self, observe: impl FnMut(Event<'_>) + 'a) -> Self {
        self.observe = Box::new(observe);
        self
    }

    /// Trains until the last step.
    ///
    /// # Errors
    ///
    /// [`Error::Train`] if a checkpoint cannot be written or removed, or the loss is not finite.
    pub fn train(self) -> Result<Trained<B::InnerBackend>> {
        let Self {
            run,
            mut config,
            denoiser,
            rows,
            training,
            evaluations,
            replaced,
            mut observe,
        } = self;
        if let Some(folder) = replaced {
            remove_checkpoints(&folder)?;
        }
        let outcome = run.train(&mut observe)?;
        if let Some(clock) = outcome.clock.filter(|clock| *clock != Clock::even()) {
            config.clock = clock.taus().to_vec();
        }
        let training = Training {
            steps: outcome.steps,
            evaluations: (outcome.steps as f64 * evaluations).round() as u64,
            seconds: outcome.seconds,
            validation_loss: outcome.validation.as_ref().map(|found| found.loss),
            ..training
        };
        let beside = denoiser.as_ref().map_or(0, Frozen::parameters);
        let parameters = outcome.ema.num_params() + beside;
        let card = Card {
            tokenizer_hash: Some(rows.tokenizer().hash().to_owned()),
            training: Some(training),
            ..Card::new(kind(&config), rows.layout(), parameters as u64)
        };
        let tokenizer = rows.tokenizer().clone();
        Ok(Trained {
            model: Model::assemble(outcome.ema, denoiser, config, tokenizer, card)?,
            finished: outcome.finished,
            validation: outcome.validation,
        })
    }
}
