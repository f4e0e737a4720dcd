//! The vocabulary head, the only module with V-wide tensors.
//!
//! Other modules ask it for results: a cross-entropy, log-probabilities of given tokens, a mean
//! D·E, a decoded token. The predicted distribution of the clean tokens is a [`TokenDistribution`],
//! whose representation is private.
// On the module, because `Module` derives a record with the same field names.
#![allow(
    non_snake_case,
    reason = "parameters carry the names of the reference's checkpoints"
)]

mod distribution;
mod divergence;
mod expected;
mod jvp;
mod loss_target;
mod uniform;

pub use distribution::TokenDistribution;
pub use expected::Expected;
pub use jvp::Jvp;
pub use uniform::UniformNoise;

use crate::block::{chunks, layer_norm, modulation};
use crate::mode::bias;
use crate::mode::{Duals, Mode, Values};
use crate::{DitConfig, Execution, init};
use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use flm_ops::dual::Dual;
use flm_ops::{Precision, Target};
use loss_target::LossTarget;

/// The last layer: a modulated LayerNorm and a linear map to the vocabulary. The linear map and the
/// modulation start at zero.
#[derive(Module, Debug)]
pub struct OutputLayer<B: Backend> {
    norm_final: LayerNorm<B>,
    linear: Linear<B>,
    adaLN_modulation: Linear<B>,
    softcap: f64,
    #[module(skip)]
    execution: Execution,
}

impl<B: Backend> OutputLayer<B> {
    /// Creates a head of these sizes that outputs zero.
    pub fn new(config: &DitConfig, device: &B::Device) -> Self {
        Self {
            norm_final: layer_norm(config.width, device),
            linear: init::zero_linear(config.width, config.vocab_size, device),
            adaLN_modulation: init::zero_linear(config.cond_dim, 2 * config.width, device),
            softcap: config.logit_softcap,
            execution: Execution::default(),
        }
    }

    pub(crate) fn execution(&self) -> Execution {
        self.execution
    }

    /// Sets the execution settings.
    pub fn with_execution(self, execution: Execution) -> Self {
        Self { execution, ..self }
    }

    /// Replaces the linear map by one that outputs zero.
    pub(crate) fn silenced(self, device: &B::Device) -> Self {
        let [width, vocab_size] = self.linear.weight.dims();
        Self {
            linear: init::zero_linear(width, vocab_size, device),
            ..self
        }
    }

    /// Returns the prediction for the residual stream `[batch, length, width]` with the condition
    /// `cond` `[batch, cond_dim]`.
    pub fn forward(&self, x: Tensor<B, 3>, cond: Tensor<B, 2>) -> Prediction<B> {
        self.answer(x, |map| modulation::<B, Values>(map, cond.clone()))
    }

    /// [`forward`](Self::forward) with the modulations that `steer` computes, as in a block.
    pub(crate) fn answer(
        &self,
        x: Tensor<B, 3>,
        steer: impl Fn(&Linear<B>) -> Tensor<B, 3>,
    ) -> Prediction<B> {
        Prediction {
            features: self.features::<Values>(x, steer),
            head: self.head(),
        }
    }

    /// [`answer`](Self::answer) with the derivative along a direction.
    pub(crate) fn jvp(&self, x: Dual<B, 3>, steer: impl Fn(&Linear<B>) -> Dual<B, 3>) -> Jvp<B> {
        let mut head = self.head();
        head.execution.precision = Precision::F32;
        Jvp {
            features: self.features::<Duals>(x, steer),
            head,
        }
    }

    fn features<M: Mode<B>>(
        &self,
        x: M::Of<3>,
        steer: impl Fn(&Linear<B>) -> M::Of<3>,
    ) -> M::Of<3> {
        let by = chunks::<B, M, 2>(steer(&self.adaLN_modulation));
        M::norm(&self.norm_final, x, by)
    }

    fn head(&self) -> Head<B> {
        Head {
            weight: self.linear.weight.val(),
            bias: bias(&self.linear),
            softcap: self.softcap,
            execution: self.execution,
        }
    }

    /// The map from features to the vocabulary.
    pub(crate) fn matrix(&self) -> &Param<Tensor<B, 2>> {
        &self.linear.weight
    }
}

/// A softcap too large to have an effect, because tanh(x) ≈ x for small x.
const NO_SOFTCAP: f64 = 1e12;

/// The map from features to the vocabulary, with its settings.
#[derive(Clone, Debug)]
struct Head<B: Backend> {
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    softcap: f64,
    execution: Execution,
}

impl<B: Backend> Head<B> {
    fn vocab_size(&self) -> usize {
        self.bias.dims()[0]
    }

    /// Splits `rows` positions into chunks that fit in the budget, as (first, count).
    fn runs(&self, rows: usize) -> impl Iterator<Item = (usize, usize)> + use<B> {
        let step = (self.execution.head_numbers / self.vocab_size()).max(1);
        (0..rows)
            .step_by(step)
            .map(move |first| (first, step.min(rows - first)))
    }

    /// features·weight, `[rows, vocabulary]`: the logits without the bias.
    fn product(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        flm_ops::product(
            self.execution.precision.narrow(features),
            self.weight.clone(),
        )
    }

    /// The logits before their softcap.
    fn outputs(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        (self.product(features) + self.bias.clone().unsqueeze()).detach()
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
            execution: self.execution,
        }
    }

    /// Copies the map into a graph of its own. It takes gradients there if `tracked`.
    fn leaf(&self, tracked: bool) -> Self {
        let inner = self.inner();
        let (weight, bias) = (
            Tensor::from_inner(inner.weight),
            Tensor::from_inner(inner.bias),
        );
        let (weight, bias) = if tracked {
            (weight.require_grad(), bias.require_grad())
        } else {
            (weight, bias)
        };
        Self {
            weight,
            bias,
            softcap: self.softcap,
            execution: self.execution,
        }
    }
}

/// The network's output for a batch.
///
/// It stores features. The head computes logits from them on use, for a chunk of positions at a
/// time, so no tensor has the size of all positions times the vocabulary.
#[derive(Clone, Debug)]
pub struct Prediction<B: Backend> {
    /// `[batch, length, width]`.
    features: Tensor<B, 3>,
    head: Head<B>,
}

/// A loss in the graph, with its values per position.
#[derive(Clone, Debug)]
pub struct Score<A: AutodiffBackend> {
    /// Σ weight·loss over all positions, `[1]`.
    pub loss: Tensor<A, 1>,
    /// The loss of each position, in nats or as a squared distance, unweighted and without
    /// gradient, `[batch, length]`.
    pub per_token: Tensor<A::InnerBackend, 2>,
}

impl<A: AutodiffBackend> Prediction<A> {
    /// Returns the cross-entropy against tokens `[batch, length]`, weighted by `weights`
    /// `[batch, length]`.
    pub fn cross_entropy(
        &self,
        tokens: Tensor<A, 2, Int>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let tokens = tokens.inner().flatten::<1>(0, 1);
        self.score(weights, |first, count| {
            LossTarget::Probabilities(Target::Tokens(tokens.clone().narrow(0, first, count)))
        })
    }

    /// Returns the cross-entropy −Σ target·log p against a distribution, weighted as
    /// in [`cross_entropy`](Self::cross_entropy).
    pub fn soft_cross_entropy(
        &self,
        target: &TokenDistribution<A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        self.score(weights, |first, count| {
            LossTarget::Probabilities(Target::Distributions(target.rows(first, count)))
        })
    }

    /// Returns the squared distance Σ (p − target)² of the probabilities to a target that need not
    /// lie on the simplex, weighted as in [`cross_entropy`](Self::cross_entropy).
    pub fn squared_error(
        &self,
        target: &TokenDistribution<A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        self.score(weights, |first, count| {
            LossTarget::Probabilities(Target::Points(target.rows(first, count)))
        })
    }

    /// Returns the squared distance Σ (scale·output − target)² of the raw outputs to a target.
    ///
    /// The outputs are those before softcap and softmax ([`outputs`](Prediction::outputs)). `scale`
    /// has one number per sequence, `[batch]`. The weights are as
    /// in [`cross_entropy`](Self::cross_entropy).
    pub fn squared_output_error(
        &self,
        target: &TokenDistribution<A::InnerBackend>,
        scale: Tensor<A::InnerBackend, 1>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let [batch, length, _] = self.features.dims();
        let scale = per_position(scale, [batch, length]);
        self.score(weights, |first, count| LossTarget::Outputs {
            point: target.rows(first, count),
            scale: scale.clone().narrow(0, first, count),
        })
    }

    /// Returns the KL divergence Σ p·(log p − log q) of the probabilities p from a distribution q,
    /// weighted as in [`cross_entropy`](Self::cross_entropy). It is small if p has mass only where
    /// q does.
    pub fn divergence(
        &self,
        target: &TokenDistribution<A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        self.score(weights, |first, count| {
            LossTarget::Divergence(target.rows(first, count))
        })
    }

    /// Returns the expectation Σ p·value of fixed values under the probabilities p at a
    /// temperature, weighted as in [`cross_entropy`](Self::cross_entropy). Minimizing it moves
    /// probability to the tokens of lowest value.
    pub fn expectation(
        &self,
        values: &TokenDistribution<A::InnerBackend>,
        temperature: f64,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        self.score(weights, |first, count| LossTarget::Expectation {
            values: values.rows(first, count),
            temperature,
        })
    }

    /// Returns the rate of the likelihood bound of a uniform-state diffusion ([`UniformNoise`]),
    /// weighted as in [`cross_entropy`](Self::cross_entropy).
    pub fn uniform_bound(
        &self,
        noise: &UniformNoise<A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        self.score(weights, |first, count| {
            LossTarget::UniformBound(noise.rows(first, count))
        })
    }

    /// Computes losses and their gradients to features, weight and bias in chunks without a graph,
    /// then attaches them to the graph.
    fn score(
        &self,
        weights: Tensor<A::InnerBackend, 2>,
        aim: impl Fn(usize, usize) -> LossTarget<A::InnerBackend>,
    ) -> Score<A> {
        let [batch, length, width] = self.features.dims();
        let (rows, softcap) = (batch * length, self.head.softcap);
        let precision = self.head.execution.precision;
        let narrow = |x| precision.narrow::<A::InnerBackend, 2>(x);
        let mut head = self.head.inner();
        let features = narrow(self.features.clone().inner().reshape([rows, width]));
        let flat_weights = weights.clone().reshape([rows]);
        let mut losses = Vec::new();
        let mut to_features = Vec::new();
        // Allocated once, before the logits, so that the memory that the logits free is available
        // for the next matrix of this size. Filled instead of `zeros`, which the CPU backend
        // allocates twice.
        let mut sums = self
            .takes_gradient()
            .then(|| (head.weight.full_like(0.0), head.bias.full_like(0.0)));
        // Narrowed once, not in every chunk.
        head.weight = narrow(head.weight);
        for (first, count) in head.runs(rows) {
            let features = features.clone().narrow(0, first, count);
            let product = head.product(features.clone());
            let (bias, aim) = (head.bias.clone(), aim(first, count));
            let Some((to_weight, to_bias)) = sums else {
                losses.push(aim.loss(product, bias, softcap));
                continue;
            };
            let weights = flat_weights.clone().narrow(0, first, count);
            let scored = aim.gradient(product, bias, weights, softcap);
            losses.push(scored.loss);
            let to_product = narrow(scored.product);
            to_features.push(flm_ops::product(
                to_product.clone(),
                head.weight.clone().transpose(),
            ));
            sums = Some((
                flm_ops::add_product(to_weight, features.transpose(), to_product),
                to_bias + scored.bias,
            ));
        }
        let per_token = Tensor::cat(losses, 0).reshape([batch, length]);
        let value = (per_token.clone() * weights).sum();
        let loss = match sums {
            Some((weight, bias)) => flm_ops::attach_gradients(
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

    /// Returns the same prediction outside the graph.
    pub fn inner(&self) -> Prediction<A::InnerBackend> {
        Prediction {
            features: self.features.clone().inner(),
            head: self.head.inner(),
        }
    }

    fn takes_gradient(&self) -> bool {
        flm_ops::may_take_gradient(&self.features)
            || flm_ops::may_take_gradient(&self.head.weight)
            || flm_ops::may_take_gradient(&self.head.bias)
    }
}

fn flat<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 1> {
    let count = x.shape().num_elements();
    x.reshape([count])
}

/// Repeats a number per sequence for each of its positions, `[batch·length, 1]`.
fn per_position<B: Backend>(numbers: Tensor<B, 1>, [batch, length]: [usize; 2]) -> Tensor<B, 2> {
    numbers
        .unsqueeze_dim::<2>(1)
        .repeat_dim(1, length)
        .reshape([batch * length, 1])
}

impl<B: Backend> Prediction<B> {
    /// Wraps given logits `[batch, length, vocabulary]`, without a softcap, for distributions in
    /// closed form and for tests against pinned numbers.
    pub fn pinned(logits: Tensor<B, 3>) -> Self {
        let ([_, _, vocab], device) = (logits.dims(), logits.device());
        Self {
            features: logits,
            head: Head {
                weight: Tensor::eye(vocab, &device),
                bias: Tensor::zeros([vocab], &device),
                softcap: NO_SOFTCAP,
                execution: Execution::default(),
            },
        }
    }

    /// Returns the number of sequences and the number of positions per sequence.
    pub fn positions(&self) -> [usize; 2] {
        let [batch, length, _] = self.features.dims();
        [batch, length]
    }

    /// Returns the device.
    pub fn device(&self) -> B::Device {
        self.features.device()
    }

    /// Returns the predictions at the given positions, indexed through the whole batch, as
    /// one sequence.
    ///
    /// # Panics
    ///
    /// Panics if a position is out of range.
    pub fn at(&self, positions: &[usize]) -> Self {
        let [batch, length, width] = self.features.dims();
        let indices: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
        let indices = TensorData::new(indices, [positions.len()]);
        let indices = Tensor::<B, 1, Int>::from_data(indices, &self.features.device());
        let rows = self.features.clone().reshape([batch * length, width]);
        Self {
            features: rows.select(0, indices).unsqueeze_dim(0),
            head: self.head.clone(),
        }
    }

    /// Returns [`uniform_bound`](Prediction::uniform_bound) per position, `[batch, length]`,
    /// without gradient.
    pub fn uniform_bounds(&self, noise: &UniformNoise<B>) -> Tensor<B, 2> {
        let [batch, length, width] = self.features.dims();
        let features = self.features.clone().reshape([batch * length, width]);
        let runs = self.head.runs(batch * length).map(|(first, count)| {
            let p = (self.head).softmax(features.clone().narrow(0, first, count), 1.0);
            noise.rows(first, count).loss(p).0
        });
        Tensor::cat(runs.collect(), 0).reshape([batch, length])
    }

    /// Returns the log-probabilities of tokens `[batch, length]`, in nats, `[batch, length]`,
    /// without gradient.
    pub fn log_probs(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length, width] = self.features.dims();
        let features = self.features.clone().reshape([batch * length, width]);
        let tokens = tokens.flatten::<1>(0, 1);
        let runs = self.head.runs(batch * length).map(|(first, count)| {
            let product = self.head.product(features.clone().narrow(0, first, count));
            let target = Target::Tokens(tokens.clone().narrow(0, first, count));
            let bias = self.head.bias.clone();
            flm_ops::capped_loss(product, bias, target, self.head.softcap)
        });
        Tensor::cat(runs.collect(), 0)
            .neg()
            .reshape([batch, length])
    }

    /// Returns the denoiser D: a softmax of the logits.
    pub fn distribution(&self) -> TokenDistribution<B> {
        self.distribution_at(1.0)
    }

    /// Returns the denoiser at a temperature: a softmax of logits/temperature.
    pub fn distribution_at(&self, temperature: f64) -> TokenDistribution<B> {
        let [batch, length, width] = self.features.dims();
        let features = self
            .features
            .clone()
            .detach()
            .reshape([batch * length, width]);
        TokenDistribution::computed(features, &self.head, temperature, [batch, length])
    }

    /// Returns the raw outputs of the head, before softcap and softmax. They are not a
    /// distribution, but can be weighted, added and projected like one.
    pub fn outputs(&self) -> TokenDistribution<B> {
        let [batch, length, width] = self.features.dims();
        let features = self
            .features
            .clone()
            .detach()
            .reshape([batch * length, width]);
        TokenDistribution::of_outputs(features, &self.head, [batch, length])
    }

    /// Limits V-wide tensors to `numbers` elements each (but at least one position's).
    ///
    /// Results differ only by rounding.
    pub fn within(mut self, numbers: usize) -> Self {
        self.head.execution.head_numbers = numbers;
        self
    }

    /// Repeats the batch `times` times.
    pub fn repeat(&self, times: usize) -> Self {
        Self {
            // burn's gradient of `repeat_dim` assigns entries to the wrong rows.
            features: Tensor::cat(vec![self.features.clone(); times], 0),
            head: self.head.clone(),
        }
    }

    /// Returns the predictions for `count` sequences from `first` on.
    pub fn narrow(&self, first: usize, count: usize) -> Self {
        Self {
            features: self.features.clone().narrow(0, first, count),
            head: self.head.clone(),
        }
    }

    /// Returns the predictions for the given sequences.
    ///
    /// # Panics
    ///
    /// Panics if a sequence is out of range.
    pub fn select(&self, sequences: &[usize]) -> Self {
        let indices: Vec<i32> = sequences.iter().map(|&sequence| sequence as i32).collect();
        let indices = Tensor::<B, 1, Int>::from_ints(indices.as_slice(), &self.features.device());
        Self {
            features: self.features.clone().select(0, indices),
            head: self.head.clone(),
        }
    }

    /// Returns the logits before their softcap, V-wide, for tests and export rather than hot paths.
    pub fn dense_logits(&self) -> Tensor<B, 3> {
        let bias = self.head.bias.clone();
        let features = self.head.execution.precision.narrow(self.features.clone());
        flm_ops::widen(flm_ops::linear(
            features,
            self.head.weight.clone(),
            Some(bias),
        ))
    }

    /// Returns all log-probabilities, V-wide, for tests and export rather than hot paths.
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

#[cfg(test)]
mod tests;
