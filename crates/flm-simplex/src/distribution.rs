//! Small discrete distributions whose denoiser has a closed form: the prediction of a perfectly
//! trained network.
//!
//! Samplers, objectives and identities can be checked against them without a network. Under
//! I_t = (1−t)·x₀ + t·x₁ with Gaussian x₀, the posterior over the sequences k of the
//! distribution is
//!
//! p(k | I_t = x) ∝ p_k · exp(r·⟨y, x₁ₖ⟩), y = x/(1−t), r = t/(1−t),
//!
//! because all one-hot sequences of one length are vectors of the same norm. In (y, r) the flow is
//! dy/dr = D, so the exact δ_{s,t} is the average of D over \[r_s, r_t\] along the path. Along the
//! path y changes only by a combination of the sequences, so it is enough to integrate one number
//! per sequence.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::Schedule;
use crate::sampler::Denoiser;

/// Runge–Kutta steps per unit of r. While anything is undecided, logits change by at most about
/// L·r + |y|, some tens, per unit of r. So a step sees a tenth, for an error of about 1e-8 overall.
const STEPS_PER_UNIT: f64 = 256.0;

/// A sequence with a larger posterior stays the most likely one: the rest of the path is treated
/// as constant.
const DECIDED: f64 = 1.0 - 1e-12;

/// Largest r of an integration towards r = ∞. Only a start on the border between two sequences, of
/// probability zero, gets here.
const LARGEST_RATIO: f64 = 64.0;

/// An error in the description of a distribution.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DistributionError {
    /// The first sequence is missing or empty.
    #[error("a distribution needs at least one sequence of at least one token")]
    Empty,
    /// The number of probabilities differs from the number of sequences.
    #[error(
        "a distribution needs one probability per sequence, found {probabilities} for {sequences} sequences"
    )]
    Count {
        /// Number of sequences.
        sequences: usize,
        /// Number of probabilities.
        probabilities: usize,
    },
    /// A sequence differs in length from the first.
    #[error("sequence {index} has {found} tokens, expected {expected} as in the first")]
    Length {
        /// Index of the sequence.
        index: usize,
        /// Length of the first sequence.
        expected: usize,
        /// Length of this sequence.
        found: usize,
    },
    /// A token lies outside the vocabulary.
    #[error("sequence {index} has token {token}, outside a vocabulary of {vocab_size}")]
    Token {
        /// Index of the sequence.
        index: usize,
        /// The token.
        token: usize,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A probability is not a positive finite number.
    #[error("sequence {index} has probability {probability}, expected a positive number")]
    Probability {
        /// Index of the sequence.
        index: usize,
        /// The value given.
        probability: f64,
    },
}

/// A distribution over finitely many token sequences of one length.
///
/// ```
/// use flm_simplex::distribution::DiscreteDistribution;
///
/// // Two letters that agree: "aa" three times in four, "bb" otherwise.
/// let distribution = DiscreteDistribution::new(2, vec![vec![0, 0], vec![1, 1]], &[3.0, 1.0])?;
/// assert_eq!(distribution.probabilities(), [0.75, 0.25]);
/// # Ok::<(), flm_simplex::distribution::DistributionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiscreteDistribution {
    vocab_size: usize,
    length: usize,
    sequences: Vec<Vec<usize>>,
    probabilities: Vec<f64>,
    /// ⟨x₁ⱼ, x₁ₖ⟩: the number of positions at which two sequences agree.
    overlaps: Vec<Vec<f64>>,
}

impl DiscreteDistribution {
    /// Creates a distribution over `sequences` of tokens below `vocab_size`, and
    /// normalizes `probabilities`.
    ///
    /// # Errors
    ///
    /// [`DistributionError`] if a sequence or a probability is invalid.
    pub fn new(
        vocab_size: usize,
        sequences: Vec<Vec<usize>>,
        probabilities: &[f64],
    ) -> Result<Self, DistributionError> {
        let length = sequences.first().map_or(0, Vec::len);
        if length == 0 {
            return Err(DistributionError::Empty);
        }
        if probabilities.len() != sequences.len() {
            return Err(DistributionError::Count {
                sequences: sequences.len(),
                probabilities: probabilities.len(),
            });
        }
        for (index, (sequence, &probability)) in sequences.iter().zip(probabilities).enumerate() {
            if sequence.len() != length {
                return Err(DistributionError::Length {
                    index,
                    expected: length,
                    found: sequence.len(),
                });
            }
            if let Some(&token) = sequence.iter().find(|&&token| token >= vocab_size) {
                return Err(DistributionError::Token {
                    index,
                    token,
                    vocab_size,
                });
            }
            if !(probability > 0.0 && probability.is_finite()) {
                return Err(DistributionError::Probability { index, probability });
            }
        }
        let total: f64 = probabilities.iter().sum();
        let agreement =
            |a: &[usize], b: &[usize]| a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
        let overlaps = sequences
            .iter()
            .map(|a| sequences.iter().map(|b| agreement(a, b)).collect())
            .collect();
        Ok(Self {
            vocab_size,
            length,
            probabilities: probabilities.iter().map(|p| p / total).collect(),
            sequences,
            overlaps,
        })
    }

    /// Returns the shape of a batch of dense states, `[batch, length, vocabulary]`.
    pub fn state_shape(&self, batch: usize) -> [usize; 3] {
        [batch, self.length, self.vocab_size]
    }

    /// Returns the sequences, in the order given.
    pub fn sequences(&self) -> &[Vec<usize>] {
        &self.sequences
    }

    /// Returns the probabilities, which sum to one.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Returns the distribution's exact two-time denoiser on dense states; `schedule` converts its
    /// network times.
    pub fn denoiser<'a>(&'a self, schedule: &'a Schedule) -> ExactDenoiser<'a> {
        ExactDenoiser {
            distribution: self,
            schedule,
        }
    }

    /// Returns the exact δ_{s,t} at dense states `[batch, length, vocabulary]`, for 0 ≤ s ≤ t ≤ 1
    /// in t, not τ. At s = t this is D_t.
    ///
    /// # Panics
    ///
    /// If the state does not have the shape [`state_shape`](Self::state_shape).
    pub fn delta<B: Backend>(&self, state: Tensor<B, 3>, s: f64, t: f64) -> Tensor<B, 3> {
        let shape = state.dims();
        assert_eq!(
            shape,
            self.state_shape(shape[0]),
            "the states must have the shape of the distribution"
        );
        let device = state.device();
        let values: Vec<f64> = state.into_data().iter::<f64>().collect();
        let mut denoised = vec![0.0; values.len()];
        let row = self.length * self.vocab_size;
        for (x, denoised) in values.chunks(row).zip(denoised.chunks_mut(row)) {
            let weights = self.delta_weights(&self.scores(x), s, t);
            for (sequence, weight) in self.sequences.iter().zip(weights) {
                for (position, token) in sequence.iter().enumerate() {
                    denoised[position * self.vocab_size + token] += weight;
                }
            }
        }
        Tensor::from_data(TensorData::new(denoised, shape), &device)
    }

    /// Decodes each row of distributions by the most likely token at each position.
    ///
    /// Returns the index of the decoded sequence, or `None` if it is not in the distribution.
    ///
    /// # Panics
    ///
    /// If the distributions do not have the shape [`state_shape`](Self::state_shape).
    pub fn decode<B: Backend>(&self, denoised: Tensor<B, 3>) -> Vec<Option<usize>> {
        let shape = denoised.dims();
        assert_eq!(
            shape,
            self.state_shape(shape[0]),
            "the probabilities must have the shape of the distribution"
        );
        let tokens: Vec<usize> = denoised
            .argmax(2)
            .into_data()
            .iter::<i64>()
            .map(|token| token as usize)
            .collect();
        tokens
            .chunks(self.length)
            .map(|row| self.sequences.iter().position(|sequence| sequence == row))
            .collect()
    }

    /// Returns ⟨x, x₁ₖ⟩ for each sequence k.
    fn scores(&self, x: &[f64]) -> Vec<f64> {
        let score = |sequence: &Vec<usize>| {
            sequence
                .iter()
                .enumerate()
                .map(|(i, token)| x[i * self.vocab_size + token])
                .sum()
        };
        self.sequences.iter().map(score).collect()
    }

    /// Returns the average posterior of each sequence over the path from s to t, from the scores
    /// ⟨x, x₁ₖ⟩ at s.
    fn delta_weights(&self, scores: &[f64], s: f64, t: f64) -> Vec<f64> {
        if s >= 1.0 {
            // Nothing is left to infer: the state is a sequence, or decodes to the one with the
            // largest score.
            return one_hot(scores);
        }
        let start = s / (1.0 - s);
        let end = if t < 1.0 {
            t / (1.0 - t)
        } else {
            f64::INFINITY
        };
        let y: Vec<f64> = scores.iter().map(|score| score / (1.0 - s)).collect();
        if end <= start {
            return self.posterior(&y, &vec![0.0; y.len()], start);
        }
        self.integrate(&y, start, end)
    }

    /// Integrates dw/dr = posterior over \[start, end\] with the classical Runge–Kutta method.
    /// Returns w/(end − start).
    fn integrate(&self, y: &[f64], start: f64, end: f64) -> Vec<f64> {
        let reach = end.min(start.max(LARGEST_RATIO));
        let count = ((reach - start) * STEPS_PER_UNIT).ceil().max(1.0);
        let h = (reach - start) / count;
        let mut integral = vec![0.0; y.len()];
        let ahead = |from: &[f64], slope: &[f64], by: f64| -> Vec<f64> {
            from.iter().zip(slope).map(|(w, k)| w + by * k).collect()
        };
        for step in 0..count as usize {
            let r = start + step as f64 * h;
            let k1 = self.posterior(y, &integral, r);
            if k1.iter().any(|&p| p > DECIDED) {
                return finish(integral, k1, r, start, end);
            }
            let k2 = self.posterior(y, &ahead(&integral, &k1, 0.5 * h), r + 0.5 * h);
            let k3 = self.posterior(y, &ahead(&integral, &k2, 0.5 * h), r + 0.5 * h);
            let k4 = self.posterior(y, &ahead(&integral, &k3, h), r + h);
            for (i, w) in integral.iter_mut().enumerate() {
                *w += h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]);
            }
        }
        let last = self.posterior(y, &integral, reach);
        finish(integral, last, reach, start, end)
    }

    /// Returns p(k) ∝ p_k·exp(r·⟨y + Σⱼ wⱼ·x₁ⱼ, x₁ₖ⟩), from the scores ⟨y, x₁ₖ⟩ at the start of
    /// the path.
    fn posterior(&self, y: &[f64], integral: &[f64], r: f64) -> Vec<f64> {
        let mut logits: Vec<f64> = self
            .overlaps
            .iter()
            .zip(y)
            .zip(&self.probabilities)
            .map(|((overlap, y), p)| {
                let moved: f64 = overlap.iter().zip(integral).map(|(o, w)| o * w).sum();
                p.ln() + r * (y + moved)
            })
            .collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        logits
            .iter_mut()
            .for_each(|logit| *logit = (*logit - largest).exp());
        let total: f64 = logits.iter().sum();
        logits.iter().map(|weight| weight / total).collect()
    }
}

/// Returns the average over \[start, end\], given the integral up to `r` and the constant posterior
/// from there on.
fn finish(integral: Vec<f64>, posterior: Vec<f64>, r: f64, start: f64, end: f64) -> Vec<f64> {
    if end == f64::INFINITY {
        return posterior;
    }
    integral
        .iter()
        .zip(posterior)
        .map(|(w, p)| (w + (end - r) * p) / (end - start))
        .collect()
}

/// Returns one at the largest of `scores` and zero elsewhere.
fn one_hot(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let winner = scores.iter().position(|&score| score == largest);
    (0..scores.len())
        .map(|k| if Some(k) == winner { 1.0 } else { 0.0 })
        .collect()
}

/// The exact [`Denoiser`] of a [`DiscreteDistribution`] on dense states. Its prediction is δ
/// itself, `[batch, length, vocabulary]`.
#[derive(Clone, Copy, Debug)]
pub struct ExactDenoiser<'a> {
    distribution: &'a DiscreteDistribution,
    schedule: &'a Schedule,
}

impl<B: Backend> Denoiser<B> for ExactDenoiser<'_> {
    type TokenDistribution = Tensor<B, 3>;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> Tensor<B, 3> {
        self.distribution.delta(
            state,
            self.schedule.t_of_tau(tau_s),
            self.schedule.t_of_tau(tau_t),
        )
    }

    fn mean(&self, denoised: &Tensor<B, 3>) -> Tensor<B, 3> {
        denoised.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;

    fn distribution() -> DiscreteDistribution {
        DiscreteDistribution::new(
            3,
            vec![vec![0, 1], vec![2, 1], vec![2, 0]],
            &[0.5, 0.3, 0.2],
        )
        .unwrap()
    }

    #[test]
    fn the_denoiser_is_bayes_rule() {
        let (distribution, t) = (distribution(), 0.6);
        let x: [f64; 6] = [0.3, -0.2, 0.9, 1.1, 0.4, -0.5];
        // The Gaussian density of I_t given each sequence, written out.
        let likelihood: Vec<f64> = distribution
            .sequences()
            .iter()
            .zip(distribution.probabilities())
            .map(|(sequence, p)| {
                let distance: f64 = (0..6)
                    .map(|i| (x[i] - if sequence[i / 3] == i % 3 { t } else { 0.0 }).powi(2))
                    .sum();
                p * (-distance / (2.0 * (1.0 - t) * (1.0 - t))).exp()
            })
            .collect();
        let total: f64 = likelihood.iter().sum();
        for (found, expected) in distribution
            .delta_weights(&distribution.scores(&x), t, t)
            .iter()
            .zip(likelihood)
        {
            // Both are a handful of f64 operations on numbers of order one.
            assert!((found - expected / total).abs() < 1e-13);
        }
    }

    #[test]
    fn without_signal_the_denoiser_answers_the_distribution_and_at_the_end_it_is_certain() {
        let distribution = distribution();
        let prior = distribution.delta_weights(&[0.7, -1.0, 0.2], 0.0, 0.0);
        for (found, expected) in prior.iter().zip(distribution.probabilities()) {
            assert!((found - expected).abs() < 1e-15);
        }
        assert_eq!(
            distribution.delta_weights(&[0.7, -1.0, 0.8], 1.0, 1.0),
            [0.0, 0.0, 1.0]
        );
    }

    #[test]
    fn denoised_lie_on_the_simplex_and_decode() {
        let distribution = distribution();
        let state = Tensor::<Flex, 3>::from_data(
            [[[0.9, 0.0, 0.1], [-0.3, 1.2, 0.0]]],
            &Default::default(),
        );
        for (s, t) in [(0.0, 1.0), (0.2, 0.7), (0.99, 0.999), (1.0, 1.0)] {
            let delta = distribution.delta(state.clone(), s, t);
            assert_eq!(distribution.decode(delta.clone()), [Some(0)], "({s}, {t})");
            for mass in delta.sum_dim(2).into_data().iter::<f64>() {
                // Weights sum to one in f64 and the integration keeps sums exactly; the rest is
                // rounding to f32.
                assert!((mass - 1.0).abs() < 1e-6, "({s}, {t}): mass {mass}");
            }
        }
    }

    #[test]
    fn what_is_no_distribution_is_refused_by_name() {
        let message = |vocab_size, sequences: Vec<Vec<usize>>, probabilities: &[f64]| {
            DiscreteDistribution::new(vocab_size, sequences, probabilities)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(2, vec![], &[]),
            "a distribution needs at least one sequence of at least one token"
        );
        assert_eq!(
            message(2, vec![vec![0]], &[0.5, 0.5]),
            "a distribution needs one probability per sequence, found 2 for 1 sequences"
        );
        assert_eq!(
            message(2, vec![vec![0], vec![0, 1]], &[0.5, 0.5]),
            "sequence 1 has 2 tokens, expected 1 as in the first"
        );
        assert_eq!(
            message(2, vec![vec![2]], &[1.0]),
            "sequence 0 has token 2, outside a vocabulary of 2"
        );
        assert_eq!(
            message(2, vec![vec![1]], &[-1.0]),
            "sequence 0 has probability -1, expected a positive number"
        );
    }
}
