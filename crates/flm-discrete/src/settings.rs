//! How to sample.

/// How many steps, and how boldly tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSampling {
    /// Steps from noise to text.
    pub steps: usize,
    /// Tokens are drawn from a softmax of logits/temperature.
    pub temperature: f64,
    /// Tokens are drawn from among the likeliest that together have this probability; 1 for all.
    pub nucleus: f64,
}

impl TokenSampling {
    /// As the network was trained.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            temperature: 1.0,
            nucleus: 1.0,
        }
    }

    /// Checks that there are such samples.
    ///
    /// # Errors
    ///
    /// What is impossible.
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

/// Samples that there cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// Nothing is answered without a step.
    #[error("a sampler needs at least 1 step, found 0")]
    NoSteps,
    /// No softmax has such a temperature.
    #[error("a temperature must be positive and finite, found {found}")]
    Temperature {
        /// The value given.
        found: f64,
    },
    /// No probability is such a number.
    #[error("a nucleus must lie between 0 and 1, found {found}")]
    Nucleus {
        /// The value given.
        found: f64,
    },
    /// A network of another family.
    #[error("{sampler} samples by a network of family {expected}")]
    Family {
        /// The sampler.
        sampler: &'static str,
        /// The family it is for.
        expected: &'static str,
    },
    /// What is given is of other texts.
    #[error("{} texts of {} tokens cannot be given {} of {}", expected[0], expected[1], found[0], found[1])]
    KnownTokens {
        /// Texts, and tokens in one.
        expected: [usize; 2],
        /// The same of what is given.
        found: [usize; 2],
    },
}

/// Samples, and what they cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The texts.
    pub tokens: crate::Tokens,
    /// How many texts went through the network, all steps together.
    pub evaluations: u64,
}
