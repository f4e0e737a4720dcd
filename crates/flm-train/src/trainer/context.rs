//! A training step and a validation.

use super::due;
use super::report::by_name;
use crate::checkpoint::{self, Auxiliary, Origin, State, Tensors};
use crate::clock::FittedClock;
use crate::config::TrainConfig;
use crate::ema;
use crate::error::TrainError;
use crate::metrics::{Evaluation, StepReport, average_by_name, describe};
use crate::optimizer::combine;
use crate::workers::Workers;
use burn::module::{AutodiffModule, Module};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use flm_data::{BatchOrder, Split};
use flm_objective::{Inner, Losses, Objective, References, StepSize, TrainingStep};
use flm_simplex::stream::Stream;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// The step number of validation draws: the same for every validation, and never a training step.
const VALIDATION_STEP: u64 = u64::MAX;

/// The constant part of a training run.
pub(super) struct Context<'a, B: AutodiffBackend, O> {
    pub(super) objective: O,
    pub(super) train: &'a Split,
    pub(super) validation: &'a Split,
    pub(super) data: String,
    pub(super) config: TrainConfig,
    pub(super) dropout: f64,
    pub(super) checkpoints: Option<PathBuf>,
    pub(super) stop: Option<&'a AtomicBool>,
    pub(super) device: B::Device,
}

impl<B: AutodiffBackend, O: Objective<B>> Context<'_, B, O> {
    /// Returns the tensors and the state of the newest checkpoint, loaded into `fresh`.
    pub(super) fn resumed(
        &self,
        fresh: Tensors<B, O::Network>,
    ) -> Result<(Tensors<B, O::Network>, State), TrainError> {
        let place = self.checkpoints.clone().unwrap_or_default();
        let Some((_, path)) = checkpoint::latest(&place)? else {
            return Err(TrainError::NothingToResume { path: place });
        };
        checkpoint::load(&path, fresh, self.origin(), &self.device)
    }

    /// Returns the initial state of a run.
    pub(super) fn fresh_state(&self) -> State {
        let clock = (self.objective.clock()).filter(|_| self.config.clock_every > 0);
        State {
            clock: clock.map(FittedClock::new),
            ..State::default()
        }
    }

    pub(super) fn origin(&self) -> Origin<'_> {
        Origin {
            data: &self.data,
            config: &self.config,
        }
    }

    /// Does one step: every part forward and backward, then the update of the weights.
    pub(super) fn step(
        &self,
        tensors: Tensors<B, O::Network>,
        workers: &Workers,
        rows: &[usize],
        state: &mut State,
    ) -> Result<(Tensors<B, O::Network>, StepReport), TrainError> {
        let step = state.step;
        let config = &self.config;
        let parts = config.parts();
        let tokens = self.train.batch(rows)?;
        let Tensors {
            model,
            ema,
            mut optimizers,
            auxiliary,
        } = tensors;
        let shared = self.shared(&model.valid());
        let references = self.references(step)?;
        let references = references.as_ref().map(|ids| References {
            ids,
            length: self.train.length(),
        });
        let clock = state.clock.as_ref().map(FittedClock::clock);
        let answers = workers.map(parts, |part| {
            // Each part has its own leaves: parts that share a graph wait for each other.
            let model = model.clone().fork(&self.device);
            let auxiliary = auxiliary
                .as_ref()
                .map(|auxiliary| auxiliary.network.clone().fork(&self.device));
            let step = TrainingStep {
                auxiliary: auxiliary.as_ref(),
                references,
                clock: clock.as_ref(),
                dropout: self.dropout,
                ..self.part(step, [part, parts], config.batch, &ema, &shared)
            };
            let losses = self.losses(&model, &tokens, &step);
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
        let (losses, diagnostics) = average_by_name(named);
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
        // Weights, average and moments are moved, not shared, so that the updates can be in place.
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
            diagnostics: diagnostics.means(),
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

    /// Returns the reference rows of a step, in an order of their own.
    fn references(&self, step: u64) -> Result<Option<Vec<u32>>, TrainError> {
        let count = self.objective.references().min(self.train.rows());
        if count == 0 {
            return Ok(None);
        }
        let order = BatchOrder::new(!self.config.seed, self.train.rows())?;
        Ok(Some(self.train.batch(&order.batch(step, count))?))
    }

    /// Computes the data that the parts of a step share.
    fn shared(&self, network: &Inner<B, O::Network>) -> O::Shared {
        let size = StepSize {
            tokens: self.config.batch * self.train.length(),
            parts: self.config.parts(),
        };
        self.objective.shared(network, size)
    }

    /// Returns one part of a step, without the inputs that only training has.
    fn part<'p>(
        &self,
        step: u64,
        [part, parts]: [usize; 2],
        batch: usize,
        average: &'p Inner<B, O::Network>,
        shared: &'p O::Shared,
    ) -> TrainingStep<'p, B, O> {
        let stream = Stream {
            seed: self.config.seed,
            step,
            part: part as u64,
            parts: parts as u64,
        };
        TrainingStep {
            stream,
            steps: self.config.steps,
            batch,
            average,
            auxiliary: None,
            references: None,
            clock: None,
            shared,
            dropout: 0.0,
        }
    }

    /// Scores this part's rows of a batch of `[batch · length]` tokens.
    fn losses(
        &self,
        model: &O::Network,
        tokens: &[u32],
        step: &TrainingStep<'_, B, O>,
    ) -> Losses<B> {
        let length = self.train.length();
        let rows: Vec<&[u32]> = tokens.chunks_exact(length).collect();
        let mine = step.share(&rows);
        let ids: Vec<i32> = mine
            .iter()
            .flat_map(|row| row.iter().map(|&id| id as i32))
            .collect();
        let tokens = Tensor::<B, 2, Int>::from_data(
            TensorData::new(ids, [mine.len(), length]),
            &self.device,
        );
        self.objective.losses(model, tokens, step)
    }

    /// Evaluates the averaged weights on the first validation rows, always with the same times
    /// and noise.
    ///
    /// Returns `None` if there are too few rows for one part.
    pub(super) fn validate(
        &self,
        ema: &Inner<B, O::Network>,
        auxiliary: Option<&Auxiliary<B, O::Network>>,
        workers: &Workers,
        step: u64,
    ) -> Result<Option<Evaluation>, TrainError> {
        let micro = self.config.micro_batch;
        let parts = self
            .config
            .validation_rows
            .min(self.validation.rows())
            .div_ceil(micro);
        // Whole parts only, so that each part has `micro_batch` rows.
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
        let shared = self.shared(ema);
        let model = O::Network::from_inner(ema.clone()).no_grad();
        let auxiliary = auxiliary.map(|auxiliary| auxiliary.network.clone().no_grad());
        let named = workers.map(parts, |part| {
            let step = TrainingStep {
                auxiliary: auxiliary.as_ref(),
                ..self.part(VALIDATION_STEP, [part, parts], rows.len(), ema, &shared)
            };
            by_name(self.losses(&model, &tokens, &step)).0
        });
        let (losses, diagnostics) = average_by_name(named);
        Ok(Some(Evaluation {
            step,
            loss: losses.mean(),
            losses: losses.means(),
            diagnostics: diagnostics.means(),
        }))
    }

    pub(super) fn diverged(
        &self,
        step: u64,
        what: String,
        losses: &BTreeMap<&'static str, f64>,
    ) -> TrainError {
        let newest = self.checkpoints.as_deref().map(checkpoint::latest);
        let checkpoint = match newest {
            Some(Ok(Some((_, path)))) => format!(
                "the last checkpoint with finite weights is {}",
                path.display()
            ),
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
