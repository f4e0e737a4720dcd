//! Predicted distributions over the clean tokens.

use super::divergence::entropy;
use super::{Head, Jvp, per_position};
use crate::Execution;
use crate::embed::VocabEmbed;
use burn::tensor::{Bool, ElementConversion, Int, Tensor, TensorData, backend::Backend};
use flm_simplex::guidance::Blend;
use flm_simplex::projection::sparsemax;
use rand::{Rng, RngExt};
use std::sync::Arc;

/// A distribution over the vocabulary for each position, stored if it is small and computed on
/// demand otherwise. It can also be a weighted sum of distributions and raw outputs, which is not
/// a distribution.
#[derive(Clone, Debug)]
pub struct TokenDistribution<B: Backend> {
    batch: usize,
    length: usize,
    execution: Execution,
    source: Source<B>,
}

/// How the probabilities of a distribution are obtained. Rows are positions.
#[derive(Clone, Debug)]
enum Source<B: Backend> {
    /// All probabilities, `[rows, vocabulary]`.
    Held(Tensor<B, 2>),
    /// The head's softmax for features `[rows, width]`.
    Computed {
        features: Tensor<B, 2>,
        head: Head<B>,
        temperature: f64,
    },
    /// weight·first + (1 − weight)·second, `weight` `[rows, 1]`.
    Mixed {
        weight: Tensor<B, 2>,
        first: Box<Source<B>>,
        second: Box<Source<B>>,
    },
    /// first where `here` `[rows, 1]` is true, and second elsewhere.
    Chosen {
        here: Tensor<B, 2, Bool>,
        first: Box<Source<B>>,
        second: Box<Source<B>>,
    },
    /// base + weight·(tangent of the prediction), `weight` `[rows, 1]`: sums to one, but may have
    /// negative entries.
    Moved {
        base: Box<Source<B>>,
        weight: Tensor<B, 2>,
        moving: Jvp<B>,
    },
    /// The nearest point of the simplex.
    Projected(Box<Source<B>>),
    /// Only the most likely tokens, up to total probability `nucleus`.
    Within { base: Box<Source<B>>, nucleus: f64 },
    /// The head's raw outputs for features `[rows, width]`, before softcap and softmax.
    Outputs {
        features: Tensor<B, 2>,
        head: Head<B>,
    },
    /// weight·base, `weight` `[rows, 1]`.
    Scaled {
        weight: Tensor<B, 2>,
        base: Box<Source<B>>,
    },
    /// base + weight·other, `weight` `[rows, 1]`.
    Added {
        base: Box<Source<B>>,
        weight: Tensor<B, 2>,
        other: Box<Source<B>>,
    },
    /// Mixtures of token sequences.
    Sequences(Sequences<B>),
}

impl<B: Backend> Source<B> {
    /// The distributions of `count` positions from `from` on, `[count, vocabulary]`.
    fn rows(&self, from: usize, count: usize) -> Tensor<B, 2> {
        match self {
            Self::Held(probabilities) => probabilities.clone().narrow(0, from, count),
            Self::Computed {
                features,
                head,
                temperature,
            } => head.softmax(features.clone().narrow(0, from, count), *temperature),
            Self::Mixed {
                weight,
                first,
                second,
            } => {
                let weight = weight.clone().narrow(0, from, count);
                let second = second.rows(from, count);
                (first.rows(from, count) - second.clone()) * weight + second
            }
            Self::Chosen {
                here,
                first,
                second,
            } => {
                let second = second.rows(from, count);
                let here = here.clone().narrow(0, from, count).expand(second.dims());
                second.mask_where(here, first.rows(from, count))
            }
            Self::Moved {
                base,
                weight,
                moving,
            } => {
                let weight = weight.clone().narrow(0, from, count);
                base.rows(from, count) + moving.rows(from, count).tangent * weight
            }
            Self::Projected(base) => sparsemax(base.rows(from, count)),
            Self::Within { base, nucleus } => restricted(base.rows(from, count), *nucleus),
            Self::Outputs { features, head } => {
                head.outputs(features.clone().narrow(0, from, count))
            }
            Self::Scaled { weight, base } => {
                base.rows(from, count) * weight.clone().narrow(0, from, count)
            }
            Self::Added {
                base,
                weight,
                other,
            } => {
                let weight = weight.clone().narrow(0, from, count);
                base.rows(from, count) + other.rows(from, count) * weight
            }
            Self::Sequences(sequences) => sequences.rows(from, count),
        }
    }

    fn vocab_size(&self) -> usize {
        match self {
            Self::Held(probabilities) => probabilities.dims()[1],
            Self::Computed { head, .. } | Self::Outputs { head, .. } => head.vocab_size(),
            Self::Sequences(sequences) => sequences.vocab,
            Self::Mixed { first: base, .. }
            | Self::Chosen { first: base, .. }
            | Self::Moved { base, .. }
            | Self::Projected(base)
            | Self::Within { base, .. }
            | Self::Scaled { base, .. }
            | Self::Added { base, .. } => base.vocab_size(),
        }
    }
}

/// Distributions that are mixtures of given token sequences.
#[derive(Clone, Debug)]
struct Sequences<B: Backend> {
    /// For each sequence of the batch, indices of given sequences with their weights.
    shares: Arc<[Vec<(usize, f32)>]>,
    /// The given sequences, concatenated.
    ids: Arc<[u32]>,
    length: usize,
    vocab: usize,
    device: B::Device,
}

impl<B: Backend> Sequences<B> {
    fn rows(&self, from: usize, count: usize) -> Tensor<B, 2> {
        let mut dense = vec![0.0_f32; count * self.vocab];
        for (row, dense) in (from..).zip(dense.chunks_exact_mut(self.vocab)) {
            let position = row % self.length;
            for (sequence, share) in &self.shares[row / self.length] {
                dense[self.ids[sequence * self.length + position] as usize] += share;
            }
        }
        Tensor::from_data(TensorData::new(dense, [count, self.vocab]), &self.device)
    }
}

impl<B: Backend> TokenDistribution<B> {
    /// Creates mixtures of the token sequences `ids`, each of `length` tokens. For each sequence of
    /// the batch, `shares` has the indices of given sequences with their weights, which sum to one.
    ///
    /// # Panics
    ///
    /// Panics on evaluation if a sequence index or token is out of range.
    pub fn of_sequences(
        shares: Vec<Vec<(usize, f32)>>,
        ids: Vec<u32>,
        [length, vocab]: [usize; 2],
        device: &B::Device,
    ) -> Self {
        Self {
            batch: shares.len(),
            length,
            execution: Execution::default(),
            source: Source::Sequences(Sequences {
                shares: shares.into(),
                ids: ids.into(),
                length,
                vocab,
                device: device.clone(),
            }),
        }
    }

    /// The head's softmax for features `[batch·length, width]`.
    pub(super) fn computed(
        features: Tensor<B, 2>,
        head: &Head<B>,
        temperature: f64,
        [batch, length]: [usize; 2],
    ) -> Self {
        let source = if batch * length * head.vocab_size() <= head.execution.head_numbers {
            Source::Held(head.softmax(features, temperature))
        } else {
            Source::Computed {
                features,
                head: head.clone(),
                temperature,
            }
        };
        Self {
            batch,
            length,
            execution: head.execution,
            source,
        }
    }

    /// The head's raw outputs for features `[batch·length, width]`, before softcap and softmax.
    pub(super) fn of_outputs(
        features: Tensor<B, 2>,
        head: &Head<B>,
        [batch, length]: [usize; 2],
    ) -> Self {
        let source = if batch * length * head.vocab_size() <= head.execution.head_numbers {
            Source::Held(head.outputs(features))
        } else {
            let head = head.clone();
            Source::Outputs { features, head }
        };
        Self {
            batch,
            length,
            execution: head.execution,
            source,
        }
    }

    /// Wraps given numbers, `[batch, length, vocabulary]`: a sampler's V-wide state, or
    /// distributions for tests against pinned ones.
    pub fn pinned(probabilities: Tensor<B, 3>) -> Self {
        let [batch, length, _] = probabilities.dims();
        Self {
            batch,
            length,
            execution: Execution::default(),
            source: Source::Held(probabilities.flatten(0, 1)),
        }
    }

    /// Returns the number of sequences and the number of positions per sequence.
    pub fn positions(&self) -> [usize; 2] {
        [self.batch, self.length]
    }

    /// Returns `weight`·self + (1 − `weight`)·other, with one weight per sequence, `[batch]`.
    pub fn mix(self, other: Self, weight: Tensor<B, 1>) -> Self {
        Self {
            source: Source::Mixed {
                weight: self.per_position(weight),
                first: Box::new(self.source),
                second: Box::new(other.source),
            },
            ..self
        }
    }

    /// Returns self at the positions where `here` `[batch, length]` is true, and other elsewhere.
    /// Unlike a mixture, this is bitwise exact.
    pub fn choose(self, other: Self, here: Tensor<B, 2, Bool>) -> Self {
        Self {
            source: Source::Chosen {
                here: here.reshape([self.batch * self.length, 1]),
                first: Box::new(self.source),
                second: Box::new(other.source),
            },
            ..self
        }
    }

    /// Returns self + `weight`·(tangent of `moving`), with one weight per sequence, `[batch]`. It
    /// sums to one at each position, but is not a distribution unless it
    /// is [`projected`](Self::projected).
    pub fn moved(self, moving: Jvp<B>, weight: Tensor<B, 1>) -> Self {
        Self {
            source: Source::Moved {
                weight: self.per_position(weight),
                base: Box::new(self.source),
                moving,
            },
            ..self
        }
    }

    /// Projects each position to the nearest point of the simplex (sparsemax).
    pub fn projected(self) -> Self {
        Self {
            source: Source::Projected(Box::new(self.source)),
            ..self
        }
    }

    /// Nucleus sampling: keeps the smallest set of most likely tokens with total probability ≥
    /// `nucleus` at each position, and renormalizes. At least one token is kept; 1 keeps
    /// all tokens.
    pub fn within(self, nucleus: f64) -> Self {
        if nucleus >= 1.0 {
            return self;
        }
        let source = match self.source {
            Source::Held(distributions) => Source::Held(restricted(distributions, nucleus)),
            base => Source::Within {
                base: Box::new(base),
                nucleus,
            },
        };
        Self { source, ..self }
    }

    /// Returns `weight`·self, with one weight per sequence, `[batch]`. It is a term of a sum, and
    /// not a distribution itself.
    pub fn scaled(self, weight: Tensor<B, 1>) -> Self {
        Self {
            source: Source::Scaled {
                weight: self.per_position(weight),
                base: Box::new(self.source),
            },
            ..self
        }
    }

    /// Returns self + `weight`·other, with one weight per sequence, `[batch]`.
    pub fn plus(self, other: Self, weight: Tensor<B, 1>) -> Self {
        Self {
            source: Source::Added {
                weight: self.per_position(weight),
                base: Box::new(self.source),
                other: Box::new(other.source),
            },
            ..self
        }
    }

    /// Returns the L1 norm Σ |entry| at each position, `[batch, length]`.
    pub fn l1_norm(&self) -> Tensor<B, 2> {
        let runs = self.runs().map(|run| run.abs().sum_dim(1));
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length])
    }

    /// Computes and stores all numbers, V wide, so that later uses do not recompute them.
    pub fn held(self) -> Self {
        let numbers = Tensor::cat(self.runs().collect(), 0);
        Self {
            source: Source::Held(numbers),
            ..self
        }
    }

    /// Whether all numbers are stored.
    fn is_held(&self) -> bool {
        matches!(self.source, Source::Held(_))
    }

    fn per_position(&self, weight: Tensor<B, 1>) -> Tensor<B, 2> {
        per_position(weight, [self.batch, self.length])
    }

    /// The distributions of `count` positions from `first` on, indexed through the batch,
    /// `[count, vocabulary]`.
    pub(super) fn rows(&self, first: usize, count: usize) -> Tensor<B, 2> {
        self.source.rows(first, count)
    }

    /// The distributions in chunks.
    fn runs(&self) -> impl Iterator<Item = Tensor<B, 2>> {
        let rows = self.batch * self.length;
        let step = (self.execution.head_numbers / self.source.vocab_size()).max(1);
        (0..rows)
            .step_by(step)
            .map(move |first| self.rows(first, step.min(rows - first)))
    }

    /// Returns D·E, the mean of the clean projected state, `[batch, length, width]`.
    pub fn mean(&self, embed: &VocabEmbed<B>) -> Tensor<B, 3> {
        let precision = self.execution.precision;
        let embedding = precision.narrow(embed.embedding.val());
        let width = embedding.dims()[1];
        let runs = self
            .runs()
            .map(|run| flm_ops::product(precision.narrow(run), embedding.clone()));
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length, width])
    }

    /// Returns the most likely token at each position, `[batch, length]`.
    pub fn argmax(&self) -> Tensor<B, 2, Int> {
        let runs = self.runs().map(|run| run.argmax(1));
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length])
    }

    /// Returns whether all numbers are finite.
    pub fn is_finite(&self) -> bool {
        self.runs()
            .all(|run| run.is_finite().all().into_scalar().elem())
    }

    /// Returns the `k` most likely tokens at each position with their probabilities, in descending
    /// order, each `[batch, length, k]`.
    pub fn top(&self, k: usize) -> (Tensor<B, 3>, Tensor<B, 3, Int>) {
        let (probabilities, tokens) = self.runs().map(|run| run.topk_with_indices(k, 1)).unzip();
        let shape = [self.batch, self.length, k];
        (
            Tensor::cat(probabilities, 0).reshape(shape),
            Tensor::cat(tokens, 0).reshape(shape),
        )
    }

    /// Returns the probabilities `[batch, length]` of the given tokens `[batch, length]`.
    pub fn of(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let tokens = tokens.reshape([self.batch * self.length, 1]);
        let mut first = 0;
        let runs = self.runs().map(|run| {
            let [count, _] = run.dims();
            let of = run.gather(1, tokens.clone().narrow(0, first, count));
            first += count;
            of
        });
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length])
    }

    /// Returns the entropy at each position, in nats, `[batch, length]`.
    pub fn entropy(&self) -> Tensor<B, 2> {
        let runs = self.runs().map(entropy);
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length])
    }

    /// Samples a token at each position, `[batch, length]`.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Tensor<B, 2, Int> {
        self.draw_within(1.0, rng)
    }

    /// Samples a token at each position by nucleus sampling, `[batch, length]`.
    ///
    /// It samples from the smallest set of most likely tokens with total probability ≥ `nucleus`.
    /// At least one token is kept; 1 keeps all tokens.
    pub fn draw_within<R: Rng + ?Sized>(&self, nucleus: f64, rng: &mut R) -> Tensor<B, 2, Int> {
        let uniform: Vec<f64> = (0..self.batch * self.length)
            .map(|_| rng.random())
            .collect();
        self.draw_by(nucleus, &uniform)
    }

    /// [`draw_within`](Self::draw_within) with given uniform numbers in [0, 1), one per position of
    /// the batch, so that each can come from its own generator.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer numbers than positions.
    pub fn draw_by(&self, nucleus: f64, uniform: &[f64]) -> Tensor<B, 2, Int> {
        let device = self.rows(0, 1).device();
        let mut tokens: Vec<i32> = Vec::with_capacity(uniform.len());
        for run in self.runs() {
            let [_, vocab] = run.dims();
            let probabilities: Vec<f32> = run.into_data().iter::<f32>().collect();
            for row in probabilities.chunks_exact(vocab) {
                let left = uniform[tokens.len()];
                tokens.push(if nucleus < 1.0 {
                    pick(&within(row, nucleus), left)
                } else {
                    pick(row, left)
                });
            }
        }
        Tensor::from_data(TensorData::new(tokens, [self.batch, self.length]), &device)
    }

    /// Returns the distribution itself, V-wide, for tests and export rather than hot paths.
    pub fn dense(&self) -> Tensor<B, 3> {
        let vocab = self.source.vocab_size();
        self.rows(0, self.batch * self.length)
            .reshape([self.batch, self.length, vocab])
    }
}

impl<B: Backend> Blend for TokenDistribution<B> {
    /// The result is stored if both inputs are, so it is no larger than either.
    fn blend(self, other: Self, weight: f64) -> Self {
        let held = self.is_held() && other.is_held();
        let device = self.rows(0, 1).device();
        let row = |weight: f64| Tensor::full([self.batch], weight, &device);
        let (own, rest) = (row(weight), row(1.0 - weight));
        let blended = self.scaled(own).plus(other, rest);
        if held { blended.held() } else { blended }
    }
}

/// Restricts each of the distributions `[rows, vocabulary]` to its nucleus ([`within`]).
fn restricted<B: Backend>(distributions: Tensor<B, 2>, nucleus: f64) -> Tensor<B, 2> {
    let (shape, device) = (distributions.dims(), distributions.device());
    let numbers: Vec<f32> = distributions.into_data().iter::<f32>().collect();
    let rows = numbers.chunks_exact(shape[1]);
    let kept: Vec<f32> = rows.flat_map(|row| within(row, nucleus)).collect();
    Tensor::from_data(TensorData::new(kept, shape), &device)
}

/// Restricts a distribution to its nucleus and renormalizes.
fn within(distribution: &[f32], nucleus: f64) -> Vec<f32> {
    let mut order: Vec<usize> = (0..distribution.len()).collect();
    order.sort_by(|&a, &b| distribution[b].total_cmp(&distribution[a]));
    let (mut sum, mut kept) = (0.0, 0);
    while kept == 0 || (kept < order.len() && sum < nucleus) {
        sum += f64::from(distribution[order[kept]]);
        kept += 1;
    }
    let mut within = vec![0.0; distribution.len()];
    for &token in &order[..kept] {
        within[token] = (f64::from(distribution[token]) / sum) as f32;
    }
    within
}

/// The token at the quantile `left` of a distribution, whose sum is one up to rounding.
fn pick(distribution: &[f32], mut left: f64) -> i32 {
    let mut last = 0;
    for (token, &probability) in distribution.iter().enumerate() {
        if probability > 0.0 {
            left -= f64::from(probability);
            last = token as i32;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}
