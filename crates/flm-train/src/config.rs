//! How long and how fast to train, as it stands in a preset.

use serde::{Deserialize, Serialize};

/// The training loop's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences in a step.
    pub batch: usize,
    /// Sequences in one forward and backward pass; gradients of a step's passes are averaged. It divides the batch.
    pub micro_batch: usize,
    /// Decides initialization, order of data, times, noise and dropout.
    pub seed: u64,
    /// Decay of the weights' exponential moving average, warmed up as min(decay, (1+n)/(10+n)).
    pub ema_decay: f64,
    /// Probability of a row to have some of its positions known in training: a flow then learns to go on with a text, or to fill a hole. 0 for the
    /// published recipe.
    pub conditioning: f64,
    /// Rows of the training split a step that soft targets are made from; 0 for the rows themselves as targets, as published. Of flows.
    pub references: usize,
    /// Share of the rows of each micro-batch that are evaluated twice, the second time with the mean of what the network believed the first time; 0 for the published
    /// recipe. Of flows without known positions.
    pub self_conditioning: f64,
    /// Steps between fits of the clock to the losses, the first after twice as many; 0 for a clock that stays, as published. Of flows.
    pub clock_every: u64,
    /// Weight of the loss of padding, in what is reported too; 1 as published. Of flows.
    pub padding_loss: f64,
    /// Learning rates of a network that is trained beside the model, as a multiple of the model's; of objectives that have one.
    pub auxiliary_rate: f64,
    /// Steps between validations; 0 for only one at the end.
    pub validate_every: u64,
    /// Validation sequences, the first ones of the split.
    pub validation_rows: usize,
    /// Steps between checkpoints; 0 for only one at the end.
    pub checkpoint_every: u64,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// How gradients become steps.
    pub optimizer: OptimizerConfig,
}

/// The optimizer's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// What moves the weights.
    pub kind: OptimizerKind,
    /// Learning rate of AdamW.
    pub lr: f64,
    /// Learning rate of Muon for the network's matrices (`Network::matrices`); the rest stays with AdamW.
    pub muon_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// What the learning rate does after the warm-up.
    pub decay: Decay,
    /// First moment's decay of AdamW.
    pub beta1: f64,
    /// Second moment's decay of AdamW.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients longer than this, over all parameters together, are scaled down to it.
    pub clip: f64,
}

/// What moves the weights.
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
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine down to zero at the last step.
    Cosine,
    /// A straight line down to zero at the last step.
    Linear,
}

impl Default for TrainConfig {
    /// The published settings, for a run of a thousand steps. Their warm-up of 2,500 steps is longer: set `optimizer.warmup` for a short run.
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
    /// The published settings of the flow (arXiv 2602.16813).
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
    /// What the learning rates are multiplied by at a step, from 0, of a run of `steps`.
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
    /// A setting of flows alone that differs from its default, with that default.
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

    /// Checks that a run with these settings exists.
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
            ("lr", o.lr),
            ("muon_lr", o.muon_lr),
            ("clip", o.clip),
            ("auxiliary_rate", self.auxiliary_rate),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(TrainConfigError::NotPositive { key, found: value });
            }
        }
        if !(o.weight_decay.is_finite() && o.weight_decay >= 0.0) {
            return Err(TrainConfigError::Negative {
                key: "weight_decay",
                found: o.weight_decay,
            });
        }
        for (key, value) in [
            ("beta1", o.beta1),
            ("beta2", o.beta2),
            ("ema_decay", self.ema_decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(TrainConfigError::NotADecay { key, found: value });
            }
        }
        Ok(())
    }

    /// Parts of equal size that a batch is cut into.
    pub fn parts(&self) -> usize {
        self.batch / self.micro_batch
    }
}

/// Settings with which nothing can be trained.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainConfigError {
    /// A count is zero.
    #[error("training {key} must be at least 1, found 0")]
    Zero {
        /// The configuration key.
        key: &'static str,
    },
    /// The batch cannot be cut into micro-batches.
    #[error("training batch {batch} cannot be cut into micro-batches of {micro_batch}")]
    MicroBatch {
        /// The batch found.
        batch: usize,
        /// The micro-batch found.
        micro_batch: usize,
    },
    /// No whole number of rows is evaluated twice.
    #[error(
        "training self_conditioning {share} of a micro_batch of {micro_batch} is not a whole number of rows"
    )]
    SelfConditioning {
        /// The share found.
        share: f64,
        /// The micro-batch found.
        micro_batch: usize,
    },
    /// A rate that must be positive.
    #[error("training {key} must be positive, found {found}")]
    NotPositive {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
    /// A rate that must not be negative.
    #[error("training {key} must be at least 0, found {found}")]
    Negative {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
    /// A probability, share or weight outside [0, 1].
    #[error("training {key} must lie between 0 and 1, found {found}")]
    NotAProbability {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
    /// A decay outside [0, 1).
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
            "training batch 100 cannot be cut into micro-batches of 32"
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
