//! Training a network on rows of tokens.

use crate::model::check_network;
use crate::{Card, Error, Model, Result, Rows, Training, kind, purpose};
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_data::TextTokenizer;
use flm_denoiser::{Dit, DitConfig, Family};
use flm_distill::{FlowObjective, Padding};
use flm_simplex::stream::generator;
use flm_simplex::{Clock, Schedule};
use flm_train::{Evaluation, Event, Objective, Run, TrainConfig, latest_checkpoint};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Trains a network towards an objective: the builder of a run.
pub struct Trainer<'a, B: AutodiffBackend, O> {
    network: Dit<B>,
    config: DitConfig,
    objective: O,
    rows: &'a Rows,
    settings: TrainConfig,
    checkpoints: Option<PathBuf>,
    resume: bool,
    stop: Option<&'a AtomicBool>,
    observe: Box<dyn FnMut(Event<'_>) + 'a>,
}

/// What a run made.
#[derive(Debug)]
pub struct Trained<B: Backend> {
    /// The averaged weights as a model.
    pub model: Model<B>,
    /// Whether all steps were done; otherwise the run was asked to stop.
    pub finished: bool,
    /// The last validation; `None` with fewer validation rows than a micro-batch, or if a finished run was resumed.
    pub validation: Option<Evaluation>,
}

/// The objective of a flow, by the settings of its training.
pub fn flow_objective(
    schedule: Schedule,
    settings: &TrainConfig,
    tokenizer: &TextTokenizer,
) -> FlowObjective {
    FlowObjective::new(schedule)
        .with_conditioning(settings.conditioning)
        .with_references(settings.references)
        .with_self_conditioning(settings.self_conditioning)
        .with_padding(Padding {
            pad: tokenizer.pad_id(),
            end: tokenizer.eos_id(),
            weight: settings.padding_loss,
        })
}

impl<B: AutodiffBackend, O> fmt::Debug for Trainer<'_, B, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<'a, B: AutodiffBackend> Trainer<'a, B, FlowObjective> {
    /// Trains a flow from the beginning. Whether its network knows positions and reads an earlier answer is decided by the settings,
    /// `conditioning` and `self_conditioning`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the configuration is not that of a flow, or settings exclude each other, [`Error::Config`] if no network has
    /// these sizes.
    pub fn flow(
        network: DitConfig,
        rows: &'a Rows,
        settings: TrainConfig,
        device: &B::Device,
    ) -> Result<Self> {
        if network.family != Family::Flow || network.two_time || network.residual {
            return Err(Error::Option(format!(
                "the network must be that of a flow, found {}",
                kind(&network)
            )));
        }
        let excluded = settings.references > 0 || settings.self_conditioning > 0.0;
        if settings.conditioning > 0.0 && excluded {
            return Err(Error::Option(
                "references and self_conditioning are for flows that are trained without known positions: set them or conditioning to 0"
                    .to_owned(),
            ));
        }
        let config = DitConfig {
            conditioning: settings.conditioning > 0.0,
            self_conditioning: settings.self_conditioning > 0.0,
            ..network
        };
        let mut rng = generator(settings.seed, purpose::INITIALIZATION, 0, 0);
        let network = config.init(&mut rng, device)?;
        let objective = flow_objective(config.schedule()?, &settings, rows.tokenizer());
        Ok(Self::new(network, config, objective, rows, settings))
    }
}

impl<'a, B: AutodiffBackend, O: Objective<B>> Trainer<'a, B, O> {
    /// Trains a network of this configuration towards an objective.
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
            objective,
            rows,
            settings,
            checkpoints: None,
            resume: false,
            stop: None,
            observe: Box::new(|_| ()),
        }
    }

    /// Keeps checkpoints in a folder.
    pub fn checkpoints(mut self, folder: impl Into<PathBuf>) -> Self {
        self.checkpoints = Some(folder.into());
        self
    }

    /// Goes on from the newest checkpoint. The run is the same as one that was never stopped, to the bit.
    ///
    /// It must have the rows and the settings of the run that is resumed; only `steps` may differ.
    pub fn resume(mut self) -> Self {
        self.resume = true;
        self
    }

    /// Keeps checkpoints in a folder, and goes on from the newest one if there is one: the same program can be started again.
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

    /// Calls `observe` with everything that happens.
    pub fn on_event(mut self, observe: impl FnMut(Event<'_>) + 'a) -> Self {
        self.observe = Box::new(observe);
        self
    }

    /// Stops after the step in which `stop` is set, with a checkpoint if there is a folder for it.
    pub fn stop(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Trains to the last step.
    ///
    /// # Errors
    ///
    /// [`Error::Vocabulary`], [`Error::Option`] or [`Error::Folder`] if network, configuration and rows do not fit, [`Error::Option`] if
    /// the folder holds checkpoints and is not resumed, or is resumed without a folder, [`Error::Train`] if settings are impossible, a
    /// checkpoint cannot be read or written, or the loss is not finite.
    pub fn train(self) -> Result<Trained<B::InnerBackend>> {
        let Self {
            network,
            mut config,
            objective,
            rows,
            settings,
            mut observe,
            ..
        } = self;
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
        check_network(&network, &config)?;
        match (&self.checkpoints, self.resume) {
            (None, true) => {
                return Err(Error::Option(
                    "a run is resumed from its checkpoints: name their folder".to_owned(),
                ));
            }
            (Some(folder), false) if latest_checkpoint(folder)?.is_some() => {
                return Err(Error::Option(format!(
                    "{} holds the checkpoints of a run: resume it, or choose another folder",
                    folder.display()
                )));
            }
            _ => {}
        }
        let device = network.embed().embedding.device();
        let precision = network.execution().precision;
        let (parameters, never) = (network.num_params() as u64, AtomicBool::new(false));
        let run = Run {
            model: network,
            objective: &objective,
            train: rows.train(),
            validation: rows.validation(),
            data: rows.hash().to_owned(),
            config: &settings,
            dropout: config.dropout,
            workers: crate::model::side_by_side::<B>().min(settings.parts()),
            checkpoints: self.checkpoints,
            resume: self.resume,
            stop: self.stop.unwrap_or(&never),
            device,
        };
        let outcome = run.start()?.train(&mut observe)?;
        if let Some(clock) = outcome.clock.filter(|clock| *clock != Clock::even()) {
            config.clock = clock.taus().to_vec();
        }
        let evaluations = objective.evaluations(settings.batch);
        let training = Training {
            seed: settings.seed,
            data_hash: rows.hash().to_owned(),
            data_source: rows.source().to_owned(),
            steps: outcome.steps,
            evaluations: (outcome.steps as f64 * evaluations).round() as u64,
            seconds: outcome.seconds,
            dtype: precision.to_string(),
            validation_loss: outcome.validation.as_ref().map(|found| found.loss),
        };
        let card = Card {
            tokenizer_hash: Some(rows.tokenizer().hash().to_owned()),
            training: Some(training),
            ..Card::new(kind(&config), rows.layout(), parameters)
        };
        Ok(Trained {
            model: Model::new(outcome.ema, config, rows.tokenizer().clone(), card)?,
            finished: outcome.finished,
            validation: outcome.validation,
        })
    }
}
