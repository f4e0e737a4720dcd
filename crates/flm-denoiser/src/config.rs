//! The sizes of a denoiser, as stored in `config.json`.

use crate::Family;
use flm_simplex::{Clock, ClockError, Schedule, ScheduleError};
use serde::{Deserialize, Serialize};

/// Width of the sinusoidal time features.
pub(crate) const TIME_FEATURES: usize = 256;
/// Hidden width of the loss weight's MLP, as in the reference.
pub(crate) const LOSS_WEIGHT_HIDDEN: usize = 128;

/// The sizes and constants of a [`Dit`](crate::Dit).
///
/// `vocab_size` and `length` come from the data, and the other fields are free. The constants
/// default to the reference's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Number of tokens, V.
    pub vocab_size: usize,
    /// Sequence length in tokens, L.
    pub length: usize,
    /// Width of the residual stream, d.
    pub width: usize,
    /// Number of transformer blocks.
    pub blocks: usize,
    /// Number of attention heads. The width of each head must be even.
    pub heads: usize,
    /// Width of the time embedding that conditions the blocks.
    pub cond_dim: usize,
    /// Whether the network also gets a target time (a flow map) or only its own time (a flow).
    pub two_time: bool,
    /// Dropout probability of each entry of a residual branch in training.
    pub dropout: f64,
    /// Hidden width of the MLP as a multiple of `width`.
    pub mlp_ratio: usize,
    /// Bound c of the attention scores, applied as `c·tanh(·/c)`.
    pub attention_softcap: f64,
    /// Bound c of the logits, applied as `c·tanh(·/c)`.
    pub logit_softcap: f64,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Whether the network prepends a learned token that is never noised. Rotary attention sees
    /// only distances, and a distance from this token is a position. The reference has no
    /// such token.
    pub register_token: bool,
    /// Number of tokens in the decoding error that defines the time ([`schedule`](Self::schedule));
    /// 0 means `vocab_size`, as in the reference. Where a grammar leaves few candidate tokens, a
    /// smaller number spends more of τ where those candidates are distinguished.
    pub schedule_vocab: usize,
    /// The clock of training and samplers: values of τ at equal steps ([`Clock`]). An empty clock
    /// means τ itself. Training can fit the clock to the losses.
    pub clock: Vec<f64>,
    /// Whether the network also reads its prediction from the previous step
    /// ([`Dit::forward_after`](crate::Dit::forward_after)). Only for flows and single-network
    /// flow maps.
    pub self_conditioning: bool,
    /// Whether the network also reads the posterior of each position's token given that position's
    /// state alone ([`Evidence`](crate::Evidence)). Only for flows and single-network flow maps.
    pub evidence: bool,
    /// Whether a loss weight for each time is learned with the network
    /// ([`LossWeight`](crate::LossWeight)). Only for flow maps.
    pub loss_weight: bool,
    /// Whether the network is the second network of a residual flow map
    /// ([`Residual`](crate::Residual)). Only for two-time networks.
    pub residual: bool,
    /// The kind of model.
    pub family: Family,
    /// Whether the network was trained with some positions known and clean, at time 1
    /// ([`Dit::forward_given`](crate::Dit::forward_given)). Only for flows.
    pub conditioning: bool,
}

/// The maximum sequence length. No parameter has this size, so no other check catches a typo in it.
pub const MAX_LENGTH: usize = 1 << 20;

impl DitConfig {
    /// Creates a configuration with the reference's constants.
    pub fn new(
        vocab_size: usize,
        length: usize,
        width: usize,
        blocks: usize,
        heads: usize,
    ) -> Self {
        Self {
            vocab_size,
            length,
            width,
            blocks,
            heads,
            cond_dim: 128,
            two_time: false,
            dropout: 0.1,
            mlp_ratio: 4,
            attention_softcap: 50.0,
            logit_softcap: 30.0,
            rope_base: 10_000.0,
            register_token: false,
            schedule_vocab: 0,
            clock: Vec::new(),
            self_conditioning: false,
            evidence: false,
            loss_weight: false,
            residual: false,
            family: Family::Flow,
            conditioning: false,
        }
    }

    /// Returns the floating-point operations of the matrix products in one evaluation of one
    /// sequence: blocks, attention and head.
    pub fn operations(&self) -> f64 {
        let [length, width, blocks, ratio, vocab] = [
            self.length,
            self.width,
            self.blocks,
            self.mlp_ratio,
            self.vocab_size,
        ]
        .map(|x| x as f64);
        let block = (8.0 + 4.0 * ratio) * width * width + 4.0 * length * width;
        length * (blocks * block + 2.0 * width * vocab)
    }

    /// Sets the model family.
    pub fn with_family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// Sets whether the network is a two-time network.
    pub fn with_two_time(mut self, two_time: bool) -> Self {
        self.two_time = two_time;
        self
    }

    /// Returns the time schedule of the network's τ, with its clock.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Schedule`] for fewer than two tokens, [`ConfigError::Clock`] for an
    /// invalid clock.
    pub fn schedule(&self) -> Result<Schedule, ConfigError> {
        let schedule = Schedule::new(match self.schedule_vocab {
            0 => self.vocab_size,
            tokens => tokens,
        })?;
        Ok(match self.clock[..] {
            [] => schedule,
            _ => schedule.with_clock(Clock::new(self.clock.clone())?),
        })
    }

    /// Returns the number of parameters, which saturates for impossibly large sizes.
    pub fn parameter_count(&self) -> u128 {
        let [vocab, width, cond, blocks, ratio] = [
            self.vocab_size,
            self.width,
            self.cond_dim,
            self.blocks,
            self.mlp_ratio,
        ]
        .map(|size| size as u128);
        let product = |factors: &[u128]| {
            let one = |all: u128, factor: &u128| all.saturating_mul(*factor);
            factors.iter().fold(1, one)
        };
        // A linear map with a bias.
        let linear = |inputs: u128, outputs: u128| product(&[inputs.saturating_add(1), outputs]);
        let sum = |terms: &[u128]| terms.iter().fold(0_u128, |all, t| all.saturating_add(*t));
        let hidden = product(&[width, ratio]);
        let time = sum(&[linear(TIME_FEATURES as u128, cond), linear(cond, cond)]);
        let block = sum(&[
            product(&[2, width]),
            product(&[4, width, width]),
            linear(width, hidden),
            linear(hidden, width),
            linear(cond, product(&[6, width])),
        ]);
        let hidden = LOSS_WEIGHT_HIDDEN as u128;
        let loss_weight = sum(&[time, linear(cond, hidden), linear(hidden, 1)]);
        sum(&[
            product(&[vocab, width]),
            product(&[1 + u128::from(self.two_time), time]),
            product(&[u128::from(self.loss_weight), loss_weight]),
            product(&[u128::from(self.evidence), vocab, width.saturating_add(1)]),
            product(&[u128::from(self.self_conditioning), width, width]),
            product(&[blocks, block]),
            product(&[
                width,
                1 + u128::from(self.register_token) + u128::from(self.family.has_mask_token()),
            ]),
            linear(width, vocab),
            linear(cond, product(&[2, width])),
        ])
    }

    /// Checks that a network of these sizes can be created.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("length", self.length),
            ("width", self.width),
            ("blocks", self.blocks),
            ("heads", self.heads),
            ("cond_dim", self.cond_dim),
            ("mlp_ratio", self.mlp_ratio),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { key });
            }
        }
        if self.length > MAX_LENGTH {
            return Err(ConfigError::Length { found: self.length });
        }
        if self.vocab_size < 2 {
            return Err(ConfigError::Vocabulary {
                found: self.vocab_size,
            });
        }
        if self.schedule_vocab == 1 {
            return Err(ConfigError::ScheduleVocabulary);
        }
        if !self.clock.is_empty() {
            Clock::new(self.clock.clone())?;
        }
        for (key, set) in [
            ("loss_weight", self.loss_weight),
            ("residual", self.residual),
        ] {
            if set && !self.two_time {
                return Err(ConfigError::TwoTimeOnly { key });
            }
        }
        if self.conditioning && (self.two_time || self.family != Family::Flow) {
            return Err(ConfigError::Conditioning);
        }
        for (key, set, of_residual) in [
            ("evidence", self.evidence, false),
            ("self_conditioning", self.self_conditioning, false),
            ("clock", !self.clock.is_empty(), true),
        ] {
            if set && (self.family != Family::Flow || self.residual && !of_residual) {
                return Err(ConfigError::Flows { key });
            }
        }
        if self.two_time && self.family != Family::Flow {
            return Err(ConfigError::FlowOnly {
                family: self.family,
            });
        }
        if !self.width.is_multiple_of(2 * self.heads) {
            return Err(ConfigError::Heads {
                width: self.width,
                heads: self.heads,
            });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ConfigError::Dropout {
                found: self.dropout,
            });
        }
        for (key, value) in [
            ("attention_softcap", self.attention_softcap),
            ("logit_softcap", self.logit_softcap),
            ("rope_base", self.rope_base),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::NotPositive { key, found: value });
            }
        }
        Ok(())
    }
}

/// An error for invalid network sizes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size is zero.
    #[error("model {key} must be at least 1, found 0")]
    Zero {
        /// The configuration key.
        key: &'static str,
    },
    /// The sequence length exceeds [`MAX_LENGTH`].
    #[error("model length must be at most {MAX_LENGTH}, found {found}")]
    Length {
        /// The length found.
        found: usize,
    },
    /// The vocabulary has fewer than two tokens.
    #[error("model vocab_size must be at least 2, found {found}")]
    Vocabulary {
        /// The size found.
        found: usize,
    },
    /// A flow map option is set for a one-time network.
    #[error("model {key} needs two_time = true, found false")]
    TwoTimeOnly {
        /// The configuration key.
        key: &'static str,
    },
    /// A model family without flow maps has two times.
    #[error("model two_time needs family = flow, found {family}")]
    FlowOnly {
        /// The family found.
        family: Family,
    },
    /// Conditioning is set for a network that is not a flow.
    #[error("model conditioning is for flows: flow maps and other families must leave it false")]
    Conditioning,
    /// An option for flows and single-network flow maps is set for another kind of network.
    #[error("model {key} is for flows and flow maps of one network")]
    Flows {
        /// The configuration key.
        key: &'static str,
    },
    /// The schedule has too few tokens.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The clock is invalid.
    #[error("model clock: {0}")]
    Clock(#[from] ClockError),
    /// The schedule has a single token, which always decodes correctly.
    #[error("model schedule_vocab must be at least 2, or 0 for the vocabulary's own size, found 1")]
    ScheduleVocabulary,
    /// The width cannot be divided into heads of even width.
    #[error("model width {width} cannot be divided into {heads} heads of even width")]
    Heads {
        /// The width found.
        width: usize,
        /// The number of heads found.
        heads: usize,
    },
    /// The dropout rate is outside [0, 1).
    #[error("model dropout must lie in [0, 1), found {found}")]
    Dropout {
        /// The value found.
        found: f64,
    },
    /// A constant is not positive and finite.
    #[error("model {key} must be positive, found {found}")]
    NotPositive {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn operations_are_those_of_the_products() {
        let (length, width, vocab) = (5.0, 16.0, 11.0);
        let map = |inputs: f64, outputs: f64| 2.0 * length * inputs * outputs;
        let attention = 2.0 * map(width, length);
        let block =
            map(width, 3.0 * width) + attention + map(width, width) + 2.0 * map(width, 4.0 * width);
        let config = DitConfig::new(11, 5, 16, 3, 2);
        assert_eq!(config.operations(), 3.0 * block + map(width, vocab));
    }

    #[test]
    fn impossible_sizes_are_named() {
        let good = DitConfig::new(10, 8, 16, 2, 4);
        assert_eq!(good.validate(), Ok(()));
        let heads = DitConfig {
            heads: 3,
            ..good.clone()
        };
        assert_eq!(
            heads.validate().unwrap_err().to_string(),
            "model width 16 cannot be divided into 3 heads of even width"
        );
        let length = DitConfig {
            length: 0,
            ..good.clone()
        };
        assert_eq!(
            length.validate().unwrap_err().to_string(),
            "model length must be at least 1, found 0"
        );
        let long = DitConfig {
            length: 99_999_999_999,
            ..good.clone()
        };
        assert_eq!(
            long.validate().unwrap_err().to_string(),
            "model length must be at most 1048576, found 99999999999"
        );
        let dropout = DitConfig {
            dropout: 1.0,
            ..good.clone()
        };
        assert!(dropout.validate().is_err());
        for (key, config) in [
            (
                "loss_weight",
                DitConfig {
                    loss_weight: true,
                    ..good.clone()
                },
            ),
            (
                "residual",
                DitConfig {
                    residual: true,
                    ..good.clone()
                },
            ),
        ] {
            assert_eq!(
                config.validate().unwrap_err().to_string(),
                format!("model {key} needs two_time = true, found false")
            );
            assert_eq!(config.with_two_time(true).validate(), Ok(()));
        }
        let family = good.clone().with_family(Family::Duo).with_two_time(true);
        assert_eq!(
            family.validate().unwrap_err().to_string(),
            "model two_time needs family = flow, found duo"
        );
        let conditioning = DitConfig {
            conditioning: true,
            ..good.clone()
        };
        assert_eq!(conditioning.validate(), Ok(()));
        assert_eq!(
            conditioning
                .with_two_time(true)
                .validate()
                .unwrap_err()
                .to_string(),
            "model conditioning is for flows: flow maps and other families must leave it false"
        );
        let schedule = DitConfig {
            schedule_vocab: 1,
            ..good
        };
        assert_eq!(
            schedule.validate().unwrap_err().to_string(),
            "model schedule_vocab must be at least 2, or 0 for the vocabulary's own size, found 1"
        );
    }

    #[test]
    fn parameters_are_counted() {
        use burn::module::Module;
        let one = DitConfig {
            cond_dim: 6,
            mlp_ratio: 3,
            ..DitConfig::new(10, 8, 16, 2, 4)
        };
        let other = DitConfig {
            register_token: true,
            ..one.clone().with_two_time(true)
        };
        let weighted = DitConfig {
            loss_weight: true,
            ..other.clone()
        };
        let mask_token = one.clone().with_family(Family::Mdlm);
        for config in [one, other, weighted, mask_token] {
            let mut rng = rand_chacha::ChaCha8Rng::from_seed([0; 32]);
            let network = config
                .init::<burn_flex::Flex>(&mut rng, &Default::default())
                .unwrap();
            assert_eq!(config.parameter_count(), network.num_params() as u128);
        }
        let huge = DitConfig::new(usize::MAX, 8, usize::MAX - 1, usize::MAX, 2);
        assert_eq!(huge.parameter_count(), u128::MAX);
    }

    #[test]
    fn the_schedule_is_the_vocabularys_unless_another_is_asked_for() {
        let own = DitConfig::new(10, 8, 16, 2, 4);
        let other = DitConfig {
            schedule_vocab: 3,
            ..own.clone()
        };
        assert_eq!(own.schedule().unwrap().vocab_size(), 10);
        assert_eq!(other.schedule().unwrap().vocab_size(), 3);
    }
}
