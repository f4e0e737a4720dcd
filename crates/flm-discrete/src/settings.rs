//! Sampling settings.

/// Sampling settings of discrete models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSampling {
    /// Number of steps from noise to text.
    pub steps: usize,
    /// Temperature of the softmax.
    pub temperature: f64,
    /// Nucleus sampling: keeps the smallest set of tokens with at least this total probability; 1
    /// keeps all.
    pub nucleus: f64,
}

impl TokenSampling {
    /// Creates settings with temperature 1 and without nucleus sampling.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            temperature: 1.0,
            nucleus: 1.0,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`SamplingError`] for the first invalid setting.
    pub fn check(&self) -> Result<(), SamplingError> {
        if self.steps == 0 {
            return Err(SamplingError::NoSteps);
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(SamplingError::Temperature {
                found: self.temperature,
            });
        }
        if !(0.0..=1.0).contains(&self.nucleus) {
            return Err(SamplingError::Nucleus {
                found: self.nucleus,
            });
        }
        Ok(())
    }
}

/// An error from sampling.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// The number of steps is 0.
    #[error("a sampler needs at least 1 step, found 0")]
    NoSteps,
    /// The temperature is not positive and finite.
    #[error("a temperature must be positive and finite, found {found}")]
    Temperature {
        /// The value given.
        found: f64,
    },
    /// The nucleus probability is not between 0 and 1.
    #[error("a nucleus must lie between 0 and 1, found {found}")]
    Nucleus {
        /// The value given.
        found: f64,
    },
    /// The network is of another family.
    #[error("the sampler {sampler} needs a network of family {expected}")]
    Family {
        /// The sampler.
        sampler: &'static str,
        /// The expected family.
        expected: &'static str,
    },
    /// The known tokens have another shape.
    #[error("known tokens must be {} texts of {} tokens, found {} of {}", expected[0], expected[1], found[0], found[1])]
    KnownTokens {
        /// Expected texts, and tokens per text.
        expected: [usize; 2],
        /// Texts, and tokens per text, of the known tokens.
        found: [usize; 2],
    },
}

/// Samples with their cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The texts.
    pub tokens: crate::Tokens,
    /// Number of texts that were evaluated, summed over all steps.
    pub evaluations: u64,
}
