//! Training settings, as in a preset.

use serde::{Deserialize, Serialize};

/// The training loop's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences per step.
    pub batch: usize,
    /// Sequences per forward and backward pass; the gradients of a step's passes are averaged. Must
    /// divide `batch`.
    pub micro_batch: usize,
    /// Seed of initialization, data order, times, noise and dropout.
    pub seed: u64,
    /// Decay of the exponential moving average of the weights, warmed up as
    /// min(decay, (1+n)/(10+n)).
    pub ema_decay: f64,
    /// For flows: probability that a training row has some known positions. The flow then learns to
    /// continue a text or to fill a hole. 0 in the published recipe.
    pub conditioning: f64,
    /// For flows: training rows per step that soft targets are made from; 0 uses the rows
    /// themselves as targets, as published.
    pub references: usize,
    /// For flows without known positions: share of the rows of each micro-batch that are
    /// evaluated twice. The second evaluation also gets the mean of the first prediction. 0 in
    /// the published recipe.
    pub self_conditioning: f64,
    /// For flows: steps between fits of the clock to the losses, the first after twice as many; 0
    /// for a fixed clock, as published.
    pub clock_every: u64,
    /// For flows: weight of the loss of padding, also in reported losses; 1 as published.
    pub padding_loss: f64,
    /// Learning rates of the auxiliary network as a multiple of the model's, for objectives that
    /// have one.
    pub auxiliary_rate: f64,
    /// Steps between validations; 0 validates only at the end.
    pub validate_every: u64,
    /// Number of validation sequences, the first ones of the split.
    pub validation_rows: usize,
    /// Steps between checkpoints; 0 writes only one at the end.
    pub checkpoint_every: u64,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// Settings of the optimizer.
    pub optimizer: OptimizerConfig,
}

/// The optimizer's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The optimizer of the weights.
    pub kind: OptimizerKind,
    /// Learning rate of AdamW.
    pub lr: f64,
    /// Learning rate of Muon for the network's matrices (`Network::matrices`); AdamW updates
    /// the rest.
    pub muon_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The learning rate after the warm-up.
    pub decay: Decay,
    /// Decay of AdamW's first moment.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient over all parameters together; larger gradients are scaled down
    /// to it.
    pub clip: f64,
}

/// The optimizer of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW for every parameter.
    #[default]
    Adamw,
    /// Muon for the embedding, the matrices of the blocks and the head; AdamW for the rest.
    Muon,
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Constant.
    #[default]
    Constant,
    /// Half a cosine, down to zero at the end of the run.
    Cosine,
    /// Linear, down to zero at the end of the run.
    Linear,
}

impl Default for TrainConfig {
    /// Returns the published settings, for a run of 1,000 steps. The published warm-up of 2,500
    /// steps is longer: set `optimizer.warmup` for a short run.
    fn default() -> Self {
        Self {
            steps: 1_000,
            batch: 512,
            micro_batch: 32,
            seed: 0,
            ema_decay: 0.9999,
            conditioning: 0.0,
            references: 0,
            self_conditioning: 0.0,
            clock_every: 0,
            padding_loss: 1.0,
            auxiliary_rate: 1.0,
            validate_every: 500,
            validation_rows: 512,
            checkpoint_every: 1_000,
            log_every: 10,
            optimizer: OptimizerConfig::default(),
        }
    }
}

impl Default for OptimizerConfig {
    /// Returns the published settings of the flow (arXiv 2602.16813).
    fn default() -> Self {
        Self {
            kind: OptimizerKind::default(),
            lr: 3e-4,
            muon_lr: 0.02,
            warmup: 2_500,
            decay: Decay::default(),
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            clip: 1.0,
        }
    }
}

impl OptimizerConfig {
    /// Returns the factor of the learning rates at `step`, from 0, in a run of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / steps.saturating_sub(self.warmup).max(1) as f64;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => (1.0 + (std::f64::consts::PI * done).cos()) / 2.0,
            Decay::Linear => 1.0 - done,
        }
    }
}

impl TrainConfig {
    /// Returns a flow-only setting that differs from its default, with that default.
    pub fn of_flows(&self) -> Option<(&'static str, u8)> {
        [
            ("conditioning", self.conditioning > 0.0, 0),
            ("references", self.references > 0, 0),
            ("self_conditioning", self.self_conditioning > 0.0, 0),
            ("clock_every", self.clock_every > 0, 0),
            ("padding_loss", self.padding_loss != 1.0, 1),
        ]
        .into_iter()
        .find_map(|(key, set, plain)| set.then_some((key, plain)))
    }

    /// Checks that the settings are valid.
    pub fn validate(&self) -> Result<(), TrainConfigError> {
        for (key, value) in [
            ("steps", self.steps),
            ("batch", self.batch as u64),
            ("micro_batch", self.micro_batch as u64),
            ("log_every", self.log_every),
        ] {
            if value == 0 {
                return Err(TrainConfigError::Zero { key });
            }
        }
        if !self.batch.is_multiple_of(self.micro_batch) {
            return Err(TrainConfigError::MicroBatch {
                batch: self.batch,
                micro_batch: self.micro_batch,
            });
        }
        for (key, found) in [
            ("conditioning", self.conditioning),
            ("self_conditioning", self.self_conditioning),
            ("padding_loss", self.padding_loss),
        ] {
            if !(0.0..=1.0).contains(&found) {
                return Err(TrainConfigError::NotAProbability { key, found });
            }
        }
        let twice = self.micro_batch as f64 * self.self_conditioning;
        if (twice - twice.round()).abs() > 1e-9 {
            return Err(TrainConfigError::SelfConditioning {
                share: self.self_conditioning,
                micro_batch: self.micro_batch,
            });
        }
        let o = &self.optimizer;
        for (key, value) in [
            ("optimizer.lr", o.lr),
            ("optimizer.muon_lr", o.muon_lr),
            ("optimizer.clip", o.clip),
            ("auxiliary_rate", self.auxiliary_rate),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(TrainConfigError::NotPositive { key, found: value });
            }
        }
        if !(o.weight_decay.is_finite() && o.weight_decay >= 0.0) {
            return Err(TrainConfigError::Negative {
                key: "optimizer.weight_decay",
                found: o.weight_decay,
            });
        }
        for (key, value) in [
            ("optimizer.beta1", o.beta1),
            ("optimizer.beta2", o.beta2),
            ("ema_decay", self.ema_decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(TrainConfigError::NotADecay { key, found: value });
            }
        }
        Ok(())
    }

    /// Returns the number of equal parts that a batch is divided into.
    pub fn parts(&self) -> usize {
        self.batch / self.micro_batch
    }
}

/// An error in the training settings.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainConfigError {
    /// A count is zero.
    #[error("training {key} must be at least 1, found 0")]
    Zero {
        /// The configuration key.
        key: &'static str,
    },
    /// The batch is not a multiple of the micro-batch.
    #[error("training batch {batch} is not a multiple of micro_batch {micro_batch}")]
    MicroBatch {
        /// The batch found.
        batch: usize,
        /// The micro-batch found.
        micro_batch: usize,
    },
    /// The share of rows evaluated twice is not a whole number of rows.
    #[error(
        "training self_conditioning {share} times micro_batch {micro_batch} is not a whole number of rows"
    )]
    SelfConditioning {
        /// The share found.
        share: f64,
        /// The micro-batch found.
        micro_batch: usize,
    },
    /// A setting that must be positive is not.
    #[error("training {key} must be positive and finite, found {found}")]
    NotPositive {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
    /// A setting is negative.
    #[error("training {key} must be at least 0, found {found}")]
    Negative {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
    /// A probability, share or weight is outside [0, 1].
    #[error("training {key} must lie between 0 and 1, found {found}")]
    NotAProbability {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
    /// A decay is outside [0, 1).
    #[error("training {key} must lie in [0, 1), found {found}")]
    NotADecay {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_warms_up_and_decays() {
        let mut optimizer = OptimizerConfig {
            warmup: 10,
            decay: Decay::Cosine,
            ..Default::default()
        };
        assert_eq!(optimizer.factor(0, 110), 0.1);
        assert_eq!(optimizer.factor(9, 110), 1.0);
        assert!((optimizer.factor(60, 110) - 0.5).abs() < 1e-12);
        assert!(optimizer.factor(109, 110) < 1e-3);
        optimizer.decay = Decay::Linear;
        assert!((optimizer.factor(85, 110) - 0.25).abs() < 1e-12);
        optimizer.decay = Decay::Constant;
        assert_eq!(optimizer.factor(109, 110), 1.0);
    }

    #[test]
    fn impossible_settings_are_named() {
        let config = TrainConfig {
            batch: 100,
            micro_batch: 32,
            ..Default::default()
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "training batch 100 is not a multiple of micro_batch 32"
        );
        let config = TrainConfig {
            steps: 0,
            ..Default::default()
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "training steps must be at least 1, found 0"
        );
        let config = TrainConfig {
            conditioning: 1.5,
            ..Default::default()
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "training conditioning must lie between 0 and 1, found 1.5"
        );
    }
}
