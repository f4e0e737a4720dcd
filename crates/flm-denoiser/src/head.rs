//! The vocabulary head: the one module with V-wide tensors.
//!
//! Everybody else asks it for results: a cross-entropy, log-probabilities of given tokens, a mean D·E, a decoded token. What
//! the network believes about the clean tokens travels as a [`Belief`], whose inside nobody sees.
// On the module: `Module` derives a record with the same field names.
#![allow(
    non_snake_case,
    reason = "parameters carry the names of the reference's checkpoints"
)]

use crate::block::{bias, chunks, layer_norm, modulated};
use crate::embed::VocabEmbed;
use crate::{DitConfig, init};
use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use flm_ops::Target;
use rand::{Rng, RngExt};

/// The last layer: modulated LayerNorm and a linear map to the vocabulary, both silent at the start.
#[derive(Module, Debug)]
pub struct OutputLayer<B: Backend> {
    norm_final: LayerNorm<B>,
    linear: Linear<B>,
    adaLN_modulation: Linear<B>,
    softcap: f64,
}

impl<B: Backend> OutputLayer<B> {
    /// A head of these sizes, silent.
    pub fn new(config: &DitConfig, device: &B::Device) -> Self {
        Self {
            norm_final: layer_norm(config.width, device),
            linear: init::zero_linear(config.width, config.vocab_size, device),
            adaLN_modulation: init::zero_linear(config.cond_dim, 2 * config.width, device),
            softcap: config.logit_softcap,
        }
    }

    /// What the residual stream `[batch, length, width]` says about the tokens; `cond` is `[batch, cond_dim]`.
    pub fn forward(&self, x: Tensor<B, 3>, cond: Tensor<B, 2>) -> Prediction<B> {
        let [shift, scale] = chunks(self.adaLN_modulation.forward(cond));
        Prediction {
            features: flm_ops::norm_modulate(modulated(&self.norm_final, x, shift, scale)),
            head: Head {
                weight: self.linear.weight.val(),
                bias: bias(&self.linear),
                softcap: self.softcap,
                budget: BUDGET,
            },
        }
    }

    /// The map from features to the vocabulary.
    pub(crate) fn matrix(&self) -> &Param<Tensor<B, 2>> {
        &self.linear.weight
    }
}

/// Numbers in a V-wide tensor, unless a [`Prediction`] is told otherwise: 64 MiB in f32. While a mixture is scored, up to four such
/// tensors are alive.
const BUDGET: usize = 1 << 24;

/// From features to the vocabulary.
#[derive(Clone, Debug)]
struct Head<B: Backend> {
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    softcap: f64,
    budget: usize,
}

impl<B: Backend> Head<B> {
    fn vocab_size(&self) -> usize {
        self.bias.dims()[0]
    }

    /// The positions below `rows` in runs, as many in each as the budget has room for, as (first, count).
    fn runs(&self, rows: usize) -> impl Iterator<Item = (usize, usize)> + use<B> {
        let step = (self.budget / self.vocab_size()).max(1);
        (0..rows)
            .step_by(step)
            .map(move |first| (first, step.min(rows - first)))
    }

    /// features·weight, `[rows, vocabulary]`: logits but for the bias.
    fn product(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        features.matmul(self.weight.clone())
    }

    fn softmax(&self, features: Tensor<B, 2>, temperature: f64) -> Tensor<B, 2> {
        let product = self.product(features);
        flm_ops::capped_softmax(product, self.bias.clone(), self.softcap, temperature)
    }
}

impl<A: AutodiffBackend> Head<A> {
    fn inner(&self) -> Head<A::InnerBackend> {
        Head {
            weight: self.weight.clone().inner(),
            bias: self.bias.clone().inner(),
            softcap: self.softcap,
            budget: self.budget,
        }
    }
}

/// The network's answer for a batch: features from which the head makes logits where they are used, a run of positions at a
/// time, so that no tensor is as large as all positions times the vocabulary.
#[derive(Clone, Debug)]
pub struct Prediction<B: Backend> {
    /// `[batch, length, width]`.
    features: Tensor<B, 3>,
    head: Head<B>,
}

/// A loss in the graph, and its parts beside it.
#[derive(Clone, Debug)]
pub struct Score<A: AutodiffBackend> {
    /// Σ weight·loss over all positions, `[1]`.
    pub loss: Tensor<A, 1>,
    /// The loss of each position in nats, without weight or gradient, `[batch, length]`.
    pub per_token: Tensor<A::InnerBackend, 2>,
}

impl<A: AutodiffBackend> Prediction<A> {
    /// Cross-entropy against tokens `[batch, length]`, each weighted by its entry of `weights` `[batch, length]`.
    pub fn cross_entropy(
        &self,
        tokens: Tensor<A, 2, Int>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let tokens = tokens.inner().flatten::<1>(0, 1);
        self.score(weights, |first, count| {
            Target::Tokens(tokens.clone().narrow(0, first, count))
        })
    }

    /// Cross-entropy −Σ target·log p against a distribution, weighted as in [`cross_entropy`](Self::cross_entropy).
    pub fn soft_cross_entropy(
        &self,
        target: &Belief<A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        self.score(weights, |first, count| {
            Target::Distributions(target.rows(first, count))
        })
    }

    /// Losses with their gradients to features, weight and bias, run by run without a graph, then joined to it.
    fn score(
        &self,
        weights: Tensor<A::InnerBackend, 2>,
        target: impl Fn(usize, usize) -> Target<A::InnerBackend>,
    ) -> Score<A> {
        let [batch, length, width] = self.features.dims();
        let (rows, softcap) = (batch * length, self.head.softcap);
        let head = self.head.inner();
        let features = self.features.clone().inner().reshape([rows, width]);
        let flat_weights = weights.clone().reshape([rows]);
        let mut losses = Vec::new();
        let mut to_features = Vec::new();
        let (mut to_weight, mut to_bias) = (None, None);
        let trains = self.takes_gradient();
        for (first, count) in head.runs(rows) {
            let features = features.clone().narrow(0, first, count);
            let product = head.product(features.clone());
            let (bias, target) = (head.bias.clone(), target(first, count));
            if !trains {
                losses.push(flm_ops::capped_cross_entropy(
                    product, bias, target, softcap,
                ));
                continue;
            }
            let weights = flat_weights.clone().narrow(0, first, count);
            let scored =
                flm_ops::capped_cross_entropy_gradient(product, bias, target, weights, softcap);
            losses.push(scored.loss);
            to_features.push(
                scored
                    .product
                    .clone()
                    .matmul(head.weight.clone().transpose()),
            );
            let weight = features.transpose().matmul(scored.product);
            to_weight = add(to_weight, weight);
            to_bias = add(to_bias, scored.bias);
        }
        let per_token = Tensor::cat(losses, 0).reshape([batch, length]);
        let value = (per_token.clone() * weights).sum();
        let loss = match to_weight.zip(to_bias) {
            Some((weight, bias)) => flm_ops::with_gradients(
                value,
                [
                    (
                        flat(self.features.clone()),
                        flat(Tensor::cat(to_features, 0)),
                    ),
                    (flat(self.head.weight.clone()), flat(weight)),
                    (self.head.bias.clone(), bias),
                ],
            ),
            None => Tensor::from_inner(value),
        };
        Score { loss, per_token }
    }

    fn takes_gradient(&self) -> bool {
        flm_ops::may_take_gradient(&self.features)
            || flm_ops::may_take_gradient(&self.head.weight)
            || flm_ops::may_take_gradient(&self.head.bias)
    }
}

fn add<B: Backend, const D: usize>(
    sum: Option<Tensor<B, D>>,
    part: Tensor<B, D>,
) -> Option<Tensor<B, D>> {
    Some(match sum {
        Some(sum) => sum + part,
        None => part,
    })
}

fn flat<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 1> {
    let count = x.shape().num_elements();
    x.reshape([count])
}

impl<B: Backend> Prediction<B> {
    /// Log-probabilities of tokens `[batch, length]`, in nats, `[batch, length]`. No gradient flows through them.
    pub fn log_probs(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length, width] = self.features.dims();
        let features = self.features.clone().reshape([batch * length, width]);
        let tokens = tokens.flatten::<1>(0, 1);
        let runs = self.head.runs(batch * length).map(|(first, count)| {
            let product = self.head.product(features.clone().narrow(0, first, count));
            let target = Target::Tokens(tokens.clone().narrow(0, first, count));
            let bias = self.head.bias.clone();
            flm_ops::capped_cross_entropy(product, bias, target, self.head.softcap)
        });
        Tensor::cat(runs.collect(), 0)
            .neg()
            .reshape([batch, length])
    }

    /// The denoiser D: a softmax of the logits.
    pub fn belief(&self) -> Belief<B> {
        self.belief_at(1.0)
    }

    /// The denoiser at a temperature: a softmax of logits/temperature.
    pub fn belief_at(&self, temperature: f64) -> Belief<B> {
        let [batch, length, width] = self.features.dims();
        let features = self
            .features
            .clone()
            .detach()
            .reshape([batch * length, width]);
        let source = if batch * length * self.head.vocab_size() <= self.head.budget {
            Source::Held(self.head.softmax(features, temperature))
        } else {
            Source::Computed {
                features,
                head: self.head.clone(),
                temperature,
            }
        };
        Belief {
            batch,
            length,
            budget: self.head.budget,
            source,
        }
    }

    /// The same answer, whose V-wide tensors have at most `numbers` numbers each (but at least one position's).
    ///
    /// Results differ by rounding only.
    pub fn within(mut self, numbers: usize) -> Self {
        self.head.budget = numbers;
        self
    }

    /// The answers for `count` sequences from `first` on.
    pub fn narrow(&self, first: usize, count: usize) -> Self {
        Self {
            features: self.features.clone().narrow(0, first, count),
            head: self.head.clone(),
        }
    }

    /// The logits before their softcap, V-wide: for tests and export, not for hot paths.
    pub fn dense_logits(&self) -> Tensor<B, 3> {
        let bias = self.head.bias.clone();
        flm_ops::linear(self.features.clone(), self.head.weight.clone(), Some(bias))
    }

    /// All log-probabilities, V-wide: for tests and export, not for hot paths.
    pub fn dense_log_probs(&self) -> Tensor<B, 3> {
        let softcap = self.head.softcap;
        let capped = self
            .dense_logits()
            .div_scalar(softcap)
            .tanh()
            .mul_scalar(softcap);
        log_softmax(capped, 2)
    }
}

/// A distribution over the vocabulary for each position, held if it is small and made when asked for otherwise.
#[derive(Clone, Debug)]
pub struct Belief<B: Backend> {
    batch: usize,
    length: usize,
    budget: usize,
    source: Source<B>,
}

/// Where the probabilities of a belief come from; rows are positions.
#[derive(Clone, Debug)]
enum Source<B: Backend> {
    /// All of them, `[rows, vocabulary]`.
    Held(Tensor<B, 2>),
    /// A softmax of what the head says of features `[rows, width]`.
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
}

impl<B: Backend> Source<B> {
    /// The distributions of `count` positions from `first` on, `[count, vocabulary]`.
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
        }
    }

    fn vocab_size(&self) -> usize {
        match self {
            Self::Held(probabilities) => probabilities.dims()[1],
            Self::Computed { head, .. } => head.vocab_size(),
            Self::Mixed { first, .. } => first.vocab_size(),
        }
    }
}

impl<B: Backend> Belief<B> {
    /// Given distributions, `[batch, length, vocabulary]`: for tests against pinned numbers.
    pub fn pinned(probabilities: Tensor<B, 3>) -> Self {
        let [batch, length, _] = probabilities.dims();
        Self {
            batch,
            length,
            budget: BUDGET,
            source: Source::Held(probabilities.flatten(0, 1)),
        }
    }

    /// `weight`·self + (1 − `weight`)·other, with one weight for each sequence, `[batch]`.
    pub fn mix(self, other: Self, weight: Tensor<B, 1>) -> Self {
        let weight = weight
            .unsqueeze_dim::<2>(1)
            .repeat_dim(1, self.length)
            .reshape([self.batch * self.length, 1]);
        Self {
            source: Source::Mixed {
                weight,
                first: Box::new(self.source),
                second: Box::new(other.source),
            },
            ..self
        }
    }

    /// The distributions of `count` positions from `first` on, counted through the batch, `[count, vocabulary]`.
    fn rows(&self, first: usize, count: usize) -> Tensor<B, 2> {
        self.source.rows(first, count)
    }

    /// The distributions, run by run.
    fn runs(&self) -> impl Iterator<Item = Tensor<B, 2>> {
        let rows = self.batch * self.length;
        let step = (self.budget / self.source.vocab_size()).max(1);
        (0..rows)
            .step_by(step)
            .map(move |first| self.rows(first, step.min(rows - first)))
    }

    /// D·E, the mean of the clean projected state, `[batch, length, width]`.
    pub fn mean(&self, embed: &VocabEmbed<B>) -> Tensor<B, 3> {
        let embedding = embed.embedding.val();
        let width = embedding.dims()[1];
        let runs = self.runs().map(|run| run.matmul(embedding.clone()));
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length, width])
    }

    /// The likeliest token at each position, `[batch, length]`.
    pub fn argmax(&self) -> Tensor<B, 2, Int> {
        let runs = self.runs().map(|run| run.argmax(1));
        Tensor::cat(runs.collect(), 0).reshape([self.batch, self.length])
    }

    /// The `k` likeliest tokens at each position with their probabilities, likeliest first, each `[batch, length, k]`.
    pub fn top(&self, k: usize) -> (Tensor<B, 3>, Tensor<B, 3, Int>) {
        let (probabilities, tokens) = self.runs().map(|run| run.topk_with_indices(k, 1)).unzip();
        let shape = [self.batch, self.length, k];
        (
            Tensor::cat(probabilities, 0).reshape(shape),
            Tensor::cat(tokens, 0).reshape(shape),
        )
    }

    /// A token drawn at each position from its distribution, `[batch, length]`.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Tensor<B, 2, Int> {
        let device = self.rows(0, 1).device();
        let mut tokens = Vec::with_capacity(self.batch * self.length);
        for run in self.runs() {
            let [_, vocab] = run.dims();
            let probabilities: Vec<f32> = run.into_data().iter::<f32>().collect();
            tokens.extend(probabilities.chunks_exact(vocab).map(|row| pick(row, rng)));
        }
        Tensor::from_data(TensorData::new(tokens, [self.batch, self.length]), &device)
    }

    /// The distribution itself, V-wide: for tests and export, not for hot paths.
    pub fn dense(&self) -> Tensor<B, 3> {
        let vocab = self.source.vocab_size();
        self.rows(0, self.batch * self.length)
            .reshape([self.batch, self.length, vocab])
    }
}

/// A token from a distribution whose sum is one but for rounding.
fn pick<R: Rng + ?Sized>(distribution: &[f32], rng: &mut R) -> i32 {
    let mut left: f64 = rng.random();
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
    use burn::tensor::Tolerance;
    use burn_flex::Flex;
    use flm_simplex::noise::gaussian;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A backend for which `flm_ops` has no kernels.
    type Composed = Autodiff<Flex, BalancedCheckpointing>;

    const BATCH: usize = 3;
    const LENGTH: usize = 5;
    const WIDTH: usize = 8;
    const VOCAB: usize = 37;
    /// Numbers held at once: one position's, two's, four's with a rest, and everybody's.
    const BUDGETS: [usize; 4] = [1, 2 * VOCAB, 4 * VOCAB + 5, BUDGET];

    fn drawn<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
        gaussian(
            shape,
            &mut ChaCha8Rng::seed_from_u64(seed),
            &Default::default(),
        )
    }

    /// A prediction of leaves: features, weight, bias.
    fn prediction<B: Backend>(seed: u64, budget: usize) -> Prediction<B> {
        let features: Tensor<B, 3> = drawn([BATCH, LENGTH, WIDTH], seed);
        let weight: Tensor<B, 2> = drawn([WIDTH, VOCAB], 100);
        let bias: Tensor<B, 1> = drawn([VOCAB], 101);
        Prediction {
            features: features.require_grad(),
            head: Head {
                weight: weight.mul_scalar(2.0).require_grad(),
                bias: bias.require_grad(),
                softcap: 30.0,
                budget,
            },
        }
    }

    fn tokens<B: Backend>() -> Tensor<B, 2, Int> {
        let ids: Vec<i32> = (0..BATCH * LENGTH)
            .map(|i| (i * 11 % VOCAB) as i32)
            .collect();
        Tensor::from_data(TensorData::new(ids, [BATCH, LENGTH]), &Default::default())
    }

    fn weights<B: Backend>() -> Tensor<B, 2> {
        drawn([BATCH, LENGTH], 7)
    }

    /// A mixture of what two predictions say, as the semigroup's target is.
    fn target(budget: usize) -> Belief<Flex> {
        let [first, second] = [11, 12].map(|seed| prediction::<Flex>(seed, budget).belief());
        let weight = Tensor::from_floats([0.0, 0.3, 1.0], &Default::default());
        first.mix(second, weight)
    }

    /// Loss, losses and gradients to features, weight and bias, one after the other.
    fn numbers<A: AutodiffBackend<InnerBackend = Flex>>(
        prediction: &Prediction<A>,
        loss: Tensor<A, 1>,
        per_token: Tensor<Flex, 2>,
    ) -> Vec<Vec<f32>> {
        let values = |x: Tensor<Flex, 1>| x.into_data().to_vec::<f32>().unwrap();
        let grads = loss.clone().backward();
        vec![
            values(loss.inner()),
            values(flat(per_token)),
            values(flat(prediction.features.grad(&grads).unwrap())),
            values(flat(prediction.head.weight.grad(&grads).unwrap())),
            values(prediction.head.bias.grad(&grads).unwrap()),
        ]
    }

    fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            for (a, b) in found.iter().zip(expected) {
                // Sums of a few hundred products in other orders.
                assert!(
                    (a - b).abs() <= 1e-5 * largest,
                    "{what}: {a} and {b} in {i}"
                );
            }
        }
    }

    /// The scores of a prediction against tokens and against a mixture.
    fn scored<A: AutodiffBackend<InnerBackend = Flex>>(budget: usize) -> [Vec<Vec<f32>>; 2] {
        let prediction = prediction::<A>(1, BUDGET).within(budget);
        let hard = prediction.cross_entropy(tokens(), weights());
        let soft = prediction.soft_cross_entropy(&target(budget), weights());
        [hard, soft].map(|score| numbers(&prediction, score.loss, score.per_token))
    }

    #[test]
    fn scores_in_runs_are_those_of_the_plain_composition() {
        let dense_target = Tensor::from_inner(target(BUDGET).dense());
        let expected = [true, false].map(|hard| {
            let plain = prediction::<Composed>(1, BUDGET);
            let log_probs = plain.dense_log_probs();
            let per_token = if hard {
                log_probs.gather(2, tokens().unsqueeze_dim(2))
            } else {
                (log_probs * dense_target.clone()).sum_dim(2)
            };
            let per_token = per_token.squeeze_dim::<2>(2).neg();
            let loss = (per_token.clone() * Tensor::from_inner(weights())).sum();
            numbers(&plain, loss, per_token.inner())
        });
        for budget in BUDGETS {
            for (kernels, scored) in [
                ("kernels", scored::<Autodiff<Flex>>(budget)),
                ("compositions", scored::<Composed>(budget)),
            ] {
                for (found, expected) in scored.iter().zip(&expected) {
                    assert_close(found, expected, &format!("{kernels}, {budget} numbers"));
                }
            }
        }
    }

    #[test]
    fn a_frozen_network_is_scored_without_gradients() {
        let mut frozen = prediction::<Autodiff<Flex>>(1, BUDGET);
        let learning = frozen.cross_entropy(tokens(), weights());
        assert!(frozen.takes_gradient());
        frozen.features = frozen.features.set_require_grad(false);
        frozen.head.weight = frozen.head.weight.set_require_grad(false);
        frozen.head.bias = frozen.head.bias.set_require_grad(false);
        assert!(!frozen.takes_gradient());
        let score = frozen.cross_entropy(tokens(), weights());
        assert_eq!(score.per_token.into_data(), learning.per_token.into_data());
        assert_eq!(score.loss.into_data(), learning.loss.into_data());
    }

    #[test]
    fn beliefs_made_when_asked_for_are_those_that_are_held() {
        let embed = VocabEmbed {
            embedding: Param::from_tensor(drawn([VOCAB, WIDTH], 3)),
        };
        let held = target(BUDGET);
        let close = |a: Tensor<Flex, 3>, b: Tensor<Flex, 3>| {
            let tolerance = Tolerance::relative(1e-5).set_absolute(1e-6);
            a.into_data()
                .assert_approx_eq::<f32>(&b.into_data(), tolerance);
        };
        for budget in BUDGETS {
            let made = target(budget);
            close(made.dense(), held.dense());
            close(made.mean(&embed), held.mean(&embed));
            made.argmax()
                .into_data()
                .assert_eq(&held.argmax().into_data(), true);
            let ((p, ids), (held_p, held_ids)) = (made.top(3), held.top(3));
            close(p, held_p);
            ids.into_data().assert_eq(&held_ids.into_data(), true);
        }
        // The mixture's definition, on rows of weights 0, 0.3 and 1.
        let [first, second] =
            [11, 12].map(|seed| prediction::<Flex>(seed, BUDGET).belief().dense());
        let row = |x: &Tensor<Flex, 3>, i| x.clone().narrow(0, i, 1);
        close(row(&held.dense(), 0), row(&second, 0));
        close(
            row(&held.dense(), 1),
            row(&first, 1) * 0.3 + row(&second, 1) * 0.7,
        );
        close(row(&held.dense(), 2), row(&first, 2));
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let belief = prediction::<Flex>(1, BUDGET).belief_at(4.0);
        let expected: Vec<f32> = belief.dense().into_data().to_vec().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let draws = 4_000;
        let mut counts = vec![0_u32; expected.len()];
        for _ in 0..draws {
            let tokens = belief.draw(&mut rng).into_data();
            for (position, token) in tokens.iter::<i64>().enumerate() {
                counts[position * VOCAB + token as usize] += 1;
            }
        }
        for (count, p) in counts.into_iter().zip(expected) {
            let (count, p) = (f64::from(count), f64::from(p));
            // Five standard deviations and one: 555 counts, false alarm below 1e-3.
            let bound = 5.0 * (draws as f64 * p * (1.0 - p)).sqrt() + 1.0;
            assert!(
                (count - draws as f64 * p).abs() <= bound,
                "{count} of {draws} at {p}"
            );
        }
    }

    #[test]
    fn log_probabilities_are_those_of_the_tokens() {
        let expected = prediction::<Flex>(1, BUDGET)
            .dense_log_probs()
            .gather(2, tokens().unsqueeze_dim(2))
            .squeeze_dim::<2>(2);
        for budget in BUDGETS {
            let found = prediction::<Flex>(1, budget).log_probs(tokens());
            let tolerance = Tolerance::relative(1e-5).set_absolute(1e-6);
            found
                .into_data()
                .assert_approx_eq::<f32>(&expected.clone().into_data(), tolerance);
        }
    }
}
