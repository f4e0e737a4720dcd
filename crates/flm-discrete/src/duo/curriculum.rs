//! Uniform-state diffusion as decoded Gaussian diffusion, and training on softened Gaussian noise.
//!
//! Let α̃·e_y + σ̃·ε be a noisy one-hot vector of a token y. Its argmax is y with probability P,
//! and uniform over the other tokens otherwise: a uniform-state diffusion at α = (V·P − 1)/(V − 1)
//! (Duo, equation 10; `mathematics.md`, section 7). A network that takes a softmax instead of the
//! argmax gets more information about the token, and learns faster at first.

use crate::schedule::Level;
use crate::{Tokens, predict::row};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use flm_denoiser::{Dit, Dropout, Prediction};
use flm_simplex::decoding::DecodingQuadrature;
use flm_simplex::extremes::Descending;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Softmax entries below this share of the largest one are dropped; it is below f32 rounding.
const NEGLIGIBLE: f64 = 1e-8;
/// Half the step of g in the finite difference for α′.
const HALF_STEP: f64 = 1e-4;

/// A Gaussian noise schedule: g = −log(α̃²/σ̃²) grows linearly with time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gamma {
    /// g at time 0.
    pub first: f64,
    /// g at time 1.
    pub last: f64,
}

impl Gamma {
    /// The published curriculum, for vocabularies of tens of thousands of tokens.
    pub const CURRICULUM: Self = Self {
        first: -3.5,
        last: -1.75,
    };
    /// The published distillation.
    pub const DISTILLATION: Self = Self {
        first: -4.0,
        last: -1.0,
    };

    /// Returns g at time `t`.
    pub fn at(&self, t: f64) -> f64 {
        self.first + t * (self.last - self.first)
    }
}

/// The transform from Gaussian noise levels to levels of the decoded uniform-state diffusion.
#[derive(Clone, Debug)]
pub struct Transform {
    quadrature: Arc<DecodingQuadrature>,
    vocab_size: usize,
}

impl Transform {
    /// Creates the transform for V tokens.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            quadrature: Arc::new(DecodingQuadrature::new()),
            vocab_size,
        }
    }

    /// Number of tokens, V.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns α at g, in \[0, 1\].
    ///
    /// The integral is computed by quadrature. This takes a microsecond, so no table is needed.
    pub fn alpha(&self, g: f64) -> f64 {
        let v = self.vocab_size as f64;
        let right = (self.quadrature).probability(self.vocab_size, (-g / 2.0).exp());
        ((v * right - 1.0) / (v - 1.0)).clamp(0.0, 1.0)
    }

    /// Returns α and its time derivative at time `t` of the schedule `gamma`.
    pub fn level(&self, gamma: Gamma, t: f64) -> Level {
        let g = gamma.at(t);
        let rise = self.alpha(g + HALF_STEP) - self.alpha(g - HALF_STEP);
        Level {
            // Without noise the loss is zero, but its rate divides by zero.
            alpha: self.alpha(g).clamp(1e-6, 1.0 - 1e-6),
            slope: rise / (2.0 * HALF_STEP) * (gamma.last - gamma.first),
        }
    }

    /// Returns the g at which a share `alpha` of the tokens is kept, by bisection.
    pub fn g_of_alpha(&self, alpha: f64) -> f64 {
        let (mut low, mut high) = (-12.0, 12.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.alpha(middle) > alpha {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }

    /// Returns a range of g from almost no noise (α = 0.999) to almost pure noise (α = 0.05).
    ///
    /// It fits any vocabulary size, unlike the published ranges.
    pub fn covering(&self) -> Gamma {
        Gamma {
            first: self.g_of_alpha(0.999),
            last: self.g_of_alpha(0.05),
        }
    }
}

/// Noise on the one-hot vector of a token, drawn lazily: its own entry, and the largest of
/// the others.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    own: f64,
    others: Descending,
    largest: f64,
    token: i32,
}

impl Noise {
    /// Draws the noise for token `y` of V.
    pub(crate) fn draw<R: Rng + ?Sized>(y: i32, vocab_size: usize, rng: &mut R) -> Self {
        let mut others = Descending::new(vocab_size - 1);
        let own = rng.sample(StandardNormal);
        let largest = others.next(rng).expect("at least two tokens");
        Self {
            own,
            others,
            largest,
            token: other(&[y], vocab_size, rng),
        }
    }

    /// Returns the argmax of α̃·e_y + σ̃·ε at g.
    pub(crate) fn decoded(&self, y: i32, g: f64) -> i32 {
        let (signal, noise) = amplitudes(g);
        if signal + noise * self.own >= noise * self.largest {
            y
        } else {
            self.token
        }
    }

    /// Returns softmax((α̃·e_y + σ̃·ε)/temperature) at g: tokens and weights in descending order,
    /// without negligible ones.
    fn softened<R: Rng + ?Sized>(
        mut self,
        y: i32,
        vocab_size: usize,
        g: f64,
        temperature: f64,
        rng: &mut R,
    ) -> Vec<(i32, f64)> {
        let (signal, noise) = amplitudes(g);
        let own = signal + noise * self.own;
        let best = own.max(noise * self.largest);
        let least = best + temperature * NEGLIGIBLE.ln();
        let mut values = Vec::new();
        let mut taken = vec![y];
        if own >= least {
            values.push((y, own));
        }
        let mut next = Some((self.token, noise * self.largest));
        while let Some((token, value)) = next.filter(|(_, value)| *value >= least) {
            values.push((token, value));
            taken.push(token);
            next = (self.others.next(rng))
                .map(|value| (other(&taken, vocab_size, rng), noise * value));
        }
        values.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        for (_, value) in &mut values {
            *value = ((*value - best) / temperature).exp();
        }
        let sum: f64 = values.iter().map(|(_, weight)| weight).sum();
        for (_, weight) in &mut values {
            *weight /= sum;
        }
        values
    }
}

/// Returns α̃ and σ̃ at g, with α̃² = 1/(1 + e^g) and α̃² + σ̃² = 1.
fn amplitudes(g: f64) -> (f64, f64) {
    let signal = 1.0 / (1.0 + g.exp());
    (signal.sqrt(), (1.0 - signal).sqrt())
}

/// Draws a uniform token that is not in `taken`.
fn other<R: Rng + ?Sized>(taken: &[i32], vocab_size: usize, rng: &mut R) -> i32 {
    // Draw a rank among the remaining tokens, then skip the taken ones.
    let mut sorted = taken.to_vec();
    sorted.sort_unstable();
    let mut token = rng.random_range(0..(vocab_size - taken.len()) as i32);
    for taken in sorted {
        if token >= taken {
            token += 1;
        }
    }
    token
}

/// Training on softened Gaussian noise during the first steps.
#[derive(Clone, Debug)]
pub struct Curriculum {
    transform: Transform,
    gamma: Gamma,
    temperature: f64,
    steps: u64,
}

impl Curriculum {
    /// Creates a curriculum for the first `steps` steps with a softmax at `temperature`.
    ///
    /// The published values are half of the training steps and 1e-3.
    pub fn new(vocab_size: usize, gamma: Gamma, temperature: f64, steps: u64) -> Self {
        Self {
            transform: Transform::new(vocab_size),
            gamma,
            temperature,
            steps,
        }
    }

    /// Returns `true` if the curriculum applies in a step.
    pub fn lasts(&self, step: u64) -> bool {
        step < self.steps
    }

    /// Returns the decoded tokens, their levels, and the prediction of the network from the
    /// softened noise.
    pub(crate) fn predict<B: Backend, R: Rng + ?Sized>(
        &self,
        model: &Dit<B>,
        tokens: &Tokens,
        times: &[f64],
        rng: &mut R,
        dropout: &mut Dropout<'_>,
    ) -> (Tokens, Vec<Level>, Prediction<B>) {
        let level = |&t: &f64| self.transform.level(self.gamma, t);
        let levels: Vec<Level> = times.iter().map(level).collect();
        let (noisy, spread) = self.soften(tokens, times, rng);
        let state = mixed(model, &spread, [tokens.rows(), tokens.length()]);
        let sigma = row(levels.iter().map(Level::sigma), &state.device());
        let prediction = model.forward(state, sigma.clone(), sigma, dropout);
        (noisy, levels, prediction)
    }

    /// Returns the decoded tokens, and the tokens and weights of the softmax at every position.
    pub(super) fn soften<R: Rng + ?Sized>(
        &self,
        tokens: &Tokens,
        times: &[f64],
        rng: &mut R,
    ) -> (Tokens, Vec<Vec<(i32, f64)>>) {
        let vocab_size = self.transform.vocab_size();
        let mut noisy = tokens.clone();
        let mut spread = Vec::with_capacity(tokens.ids().len());
        let rows = noisy.ids_mut().chunks_exact_mut(tokens.length());
        for (row, &t) in rows.zip(times) {
            let g = self.gamma.at(t);
            for id in row {
                let (y, noise) = (*id, Noise::draw(*id, vocab_size, rng));
                *id = noise.decoded(y, g);
                spread.push(noise.softened(y, vocab_size, g, self.temperature, rng));
            }
        }
        (noisy, spread)
    }
}

/// Returns the weighted sum of embeddings at every position, `[rows, length, width]`.
pub(super) fn mixed<B: Backend>(
    model: &Dit<B>,
    spread: &[Vec<(i32, f64)>],
    [rows, length]: [usize; 2],
) -> Tensor<B, 3> {
    let most = spread.iter().map(Vec::len).max().unwrap_or(1);
    let device = model.embed().embedding.device();
    let padded = spread.iter().flat_map(|entries| {
        let rest = most - entries.len();
        entries
            .iter()
            .copied()
            .chain(std::iter::repeat_n((0, 0.0), rest))
    });
    let (ids, weights): (Vec<i32>, Vec<f32>) =
        padded.map(|(id, weight)| (id, weight as f32)).unzip();
    let ids = Tensor::from_data(TensorData::new(ids, [rows, length * most]), &device);
    let weights = TensorData::new(weights, [rows * length, most, 1]);
    let weights = Tensor::<B, 3>::from_data(weights, &device);
    let read = model.embed().tokens(ids);
    let width = read.dims()[2];
    let sum = (read.reshape([rows * length, most, width]) * weights).sum_dim(1);
    sum.reshape([rows, length, width])
}
