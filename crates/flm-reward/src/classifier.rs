//! A small network that distinguishes real rows from corrupted ones.

use crate::Reward;
use burn::module::{AutodiffModule, Module, Param, ParamId};
use burn::nn::Linear;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The largest number of parameters, so that a mistyped size does not exhaust memory.
const MOST_NUMBERS: usize = 1 << 30;

/// Invalid sizes of a classifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid classifier sizes: {vocab_size} tokens, width {width}, {layers} layers and reach {reach}"
)]
pub struct SizesError {
    vocab_size: usize,
    width: usize,
    layers: usize,
    reach: usize,
}

/// The sizes of a [`Classifier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the embedding and of every layer.
    pub width: usize,
    /// Number of layers, each over a window of positions.
    pub layers: usize,
    /// Number of positions to either side in a window.
    pub reach: usize,
}

impl ClassifierConfig {
    /// Creates the default sizes: three layers over windows of five positions. A local score
    /// depends on six positions to either side.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            width: 64,
            layers: 3,
            reach: 2,
        }
    }

    /// Checks that vocabulary and width are not 0, and that there are at most 2³⁰ parameters.
    ///
    /// # Errors
    ///
    /// [`SizesError`] otherwise.
    pub fn validate(&self) -> Result<(), SizesError> {
        let numbers = (2 * self.reach.min(MOST_NUMBERS) + 1)
            .checked_mul(self.layers.max(1))
            .and_then(|windows| windows.checked_mul(self.width))
            .and_then(|rows| rows.checked_add(self.vocab_size))
            .and_then(|rows| rows.checked_mul(self.width));
        let some = self.vocab_size > 0 && self.width > 0;
        if some && numbers.is_some_and(|numbers| numbers <= MOST_NUMBERS) {
            return Ok(());
        }
        Err(SizesError {
            vocab_size: self.vocab_size,
            width: self.width,
            layers: self.layers,
            reach: self.reach,
        })
    }

    /// Creates a network with random parameters. The sizes must be [valid](Self::validate).
    pub fn init<B: Backend>(&self, rng: &mut impl Rng, device: &B::Device) -> Classifier<B> {
        let window = (2 * self.reach + 1) * self.width;
        Classifier {
            embedding: uniform([self.vocab_size, self.width], 1.0, rng, device),
            layers: (0..self.layers)
                .map(|_| linear(window, self.width, rng, device))
                .collect(),
            output: linear(self.width, 1, rng, device),
        }
    }
}

/// A classifier: the log-odds that a row is real are a sum of local scores, from a few residual
/// layers over windows of positions.
///
/// It is a sum and not a mean, because one mistake makes a sentence of any length wrong.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    pub(crate) embedding: Param<Tensor<B, 2>>,
    pub(crate) layers: Vec<Linear<B>>,
    pub(crate) output: Linear<B>,
}

impl<B: Backend> Classifier<B> {
    /// Returns the log-odds `[batch]` from mean embeddings, `[batch, length, width]`.
    pub fn log_odds(&self, means: Tensor<B, 3>) -> Tensor<B, 1> {
        let [batch, ..] = means.dims();
        let mut x = means;
        for layer in &self.layers {
            let [inputs, width] = layer.weight.dims();
            let hidden = apply(layer, windows(x.clone(), inputs / width));
            x = x + flm_ops::gelu_tanh(hidden);
        }
        let judgements = apply(&self.output, x);
        judgements.sum_dim(1).reshape([batch])
    }
}

/// Concatenates each position with its neighbours, `[batch, length, count·width]`, with zeros
/// beyond the ends.
fn windows<B: Backend>(x: Tensor<B, 3>, count: usize) -> Tensor<B, 3> {
    let ([batch, length, width], reach) = (x.dims(), count / 2);
    let nothing = Tensor::zeros([batch, reach, width], &x.device());
    let framed = Tensor::cat(vec![nothing.clone(), x, nothing], 1);
    let shifted = (0..count).map(|shift| framed.clone().narrow(1, shift, length));
    Tensor::cat(shifted.collect(), 2)
}

fn apply<B: Backend>(map: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let bias = map.bias.as_ref().map(Param::val);
    flm_ops::linear(x, map.weight.val(), bias)
}

impl<A: AutodiffBackend> Reward<A> for Classifier<A> {
    fn vectors(&self) -> Tensor<A::InnerBackend, 2> {
        self.valid().embedding.val()
    }

    /// Returns the log-probability that the row is real.
    fn of(&self, means: Tensor<A, 3>) -> Tensor<A, 1> {
        log_sigmoid(self.log_odds(means))
    }
}

fn uniform<B: Backend, const D: usize>(
    shape: [usize; D],
    bound: f32,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let count = shape.iter().product();
    let draw = |_| rng.random_range(-bound..=bound);
    let values: Vec<f32> = (0..count).map(draw).collect();
    let tensor = Tensor::from_data(TensorData::new(values, shape), device);
    Param::initialized(ParamId::new(), tensor.require_grad())
}

fn linear<B: Backend>(
    inputs: usize,
    outputs: usize,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Linear<B> {
    let bound = 1.0 / (inputs as f32).sqrt();
    Linear {
        weight: uniform([inputs, outputs], bound, rng, device),
        bias: Some(uniform([outputs], bound, rng, device)),
    }
}
