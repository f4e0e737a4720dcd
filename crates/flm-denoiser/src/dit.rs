//! The network: embedding, blocks and head.

mod decode;
mod given;

pub use decode::Memory;

use crate::block::{Block, modulation};
use crate::dropout::Dropout;
use crate::embed::{TimeEmbed, VocabEmbed};
use crate::evidence::Evidence;
use crate::head::{Jvp, OutputLayer, Prediction};
use crate::loss_weight::LossWeight;
use crate::mode::{Duals, Mode, Values};
use crate::{ConfigError, DitConfig, Execution, init};
use burn::module::{Module, Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, backend::Backend};
use flm_ops::Rope;
use flm_ops::dual::Dual;
use rand::Rng;
use std::iter;

/// The diffusion transformer of the reference, a denoiser of projected states.
///
/// The optional register token (`config.register_token`), self-conditioning and evidence
/// are extensions.
///
/// A one-time network returns D_t; a two-time network (`config.two_time`) returns δ_{s,t}. Both
/// take times as τ, never as t.
#[derive(Module, Debug)]
pub struct Dit<B: Backend> {
    vocab_embed: VocabEmbed<B>,
    sigma_map: TimeEmbed<B>,
    sigma_map_prime: Option<TimeEmbed<B>>,
    learnable_loss_weighting: Option<LossWeight<B>>,
    blocks: Vec<Block<B>>,
    output_layer: OutputLayer<B>,
    register_token: Option<Param<Tensor<B, 1>>>,
    mask_token: Option<Param<Tensor<B, 1>>>,
    evidence: Option<Evidence<B>>,
    /// The map from the mean of an earlier distribution to the term added to the state,
    /// `[width, width]`.
    earlier: Option<Param<Tensor<B, 2>>>,
    rope_base: f64,
    heads: usize,
    causal: bool,
}

impl DitConfig {
    /// Creates a network of these sizes with fresh parameters.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the sizes are invalid.
    pub fn init<B: Backend>(
        &self,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Result<Dit<B>, ConfigError> {
        self.validate()?;
        let vocab_embed = VocabEmbed::new(self.vocab_size, self.width, rng, device);
        let sigma_map = TimeEmbed::new(self.cond_dim, rng, device);
        let blocks = (0..self.blocks)
            .map(|_| Block::new(self, rng, device))
            .collect();
        let output_layer = OutputLayer::new(self, device);
        // Same initialization as a row of the embedding.
        let bound = 1.0 / (self.width as f64).sqrt();
        let register_token = self
            .register_token
            .then(|| init::uniform([self.width], bound, rng, device));
        // Drawn last, so that one-time and two-time networks of one seed share all
        // other parameters.
        let sigma_map_prime = self
            .two_time
            .then(|| TimeEmbed::silent(self.cond_dim, rng, device));
        // Drawn after that, for the same reason.
        let learnable_loss_weighting = self.loss_weight.then(|| LossWeight::new(self, rng, device));
        let mask_token =
            (self.family.has_mask_token()).then(|| init::uniform([self.width], bound, rng, device));
        Ok(Dit {
            vocab_embed,
            sigma_map,
            sigma_map_prime,
            learnable_loss_weighting,
            blocks,
            output_layer,
            register_token,
            mask_token,
            evidence: (self.evidence.then(|| Evidence::new(self, device))).transpose()?,
            earlier: (self.self_conditioning)
                .then(|| init::zeros([self.width, self.width], device)),
            rope_base: self.rope_base,
            heads: self.heads,
            causal: self.family.is_causal(),
        })
    }
}

impl<B: Backend> Dit<B> {
    /// Returns the embedding matrix, which projects tokens and dense states.
    pub fn embed(&self) -> &VocabEmbed<B> {
        &self.vocab_embed
    }

    /// Returns the number of transformer blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Returns the number of attention heads per block.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Returns the execution settings.
    pub fn execution(&self) -> Execution {
        self.output_layer.execution()
    }

    /// Sets the execution settings.
    pub fn with_execution(mut self, execution: Execution) -> Self {
        self.blocks = self
            .blocks
            .into_iter()
            .map(|block| block.with_precision(execution.precision))
            .collect();
        self.output_layer = self.output_layer.with_execution(execution);
        self
    }

    /// Returns whether the network takes a target time.
    pub fn is_two_time(&self) -> bool {
        self.sigma_map_prime.is_some()
    }

    /// Returns whether a register token, which is never noised, precedes the sequence.
    pub fn has_register(&self) -> bool {
        self.register_token.is_some()
    }

    /// Returns whether the network has a mask token as an extra input ([`read`](Self::read)).
    pub fn has_mask_token(&self) -> bool {
        self.mask_token.is_some()
    }

    /// Returns whether a position sees only itself and earlier positions.
    pub fn is_causal(&self) -> bool {
        self.causal
    }

    /// Embeds tokens `[batch, length]` as network input, `[batch, length, width]`. In a network
    /// with a mask token, the id one past the last token is the mask token.
    ///
    /// # Panics
    ///
    /// Panics if an id is larger than that.
    pub fn read(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let Some(mask_token) = &self.mask_token else {
            return self.vocab_embed.tokens(ids);
        };
        let [vocab, width] = self.vocab_embed.embedding.dims();
        let [batch, length] = ids.dims();
        let is_masked = ids.clone().equal_elem(vocab as i64);
        let tokens = self.vocab_embed.tokens(ids.mask_fill(is_masked.clone(), 0));
        let shape = [batch, length, width];
        let mask_token = mask_token.val().reshape([1, 1, width]).expand(shape);
        tokens.mask_where(is_masked.unsqueeze_dim::<3>(2).expand(shape), mask_token)
    }

    /// Returns whether the network reads evidence.
    pub fn has_evidence(&self) -> bool {
        self.evidence.is_some()
    }

    /// Returns whether the network reads an earlier distribution.
    pub fn has_self_conditioning(&self) -> bool {
        self.earlier.is_some()
    }

    /// Returns whether a loss weight is learned with the network.
    pub fn has_loss_weight(&self) -> bool {
        self.learnable_loss_weighting.is_some()
    }

    /// Returns the learned loss weight w at times τ_s `[batch]`, `[batch]`, if the network has one.
    /// See [`LossWeight`].
    pub fn loss_weight(&self, tau_s: Tensor<B, 1>) -> Option<Tensor<B, 1>> {
        let weight = self.learnable_loss_weighting.as_ref()?;
        Some(weight.forward(tau_s))
    }

    /// Replaces the loss weight by a fresh one, or removes it, as `config` says.
    pub fn with_loss_weight_of(
        mut self,
        config: &DitConfig,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        self.learnable_loss_weighting = config
            .loss_weight
            .then(|| LossWeight::new(config, rng, device));
        self
    }

    /// Turns the network into the second network of a residual flow map: a two-time network whose
    /// output is zero everywhere.
    pub fn into_residual(
        mut self,
        cond_dim: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        self.output_layer = self.output_layer.silenced(device);
        self.into_two_time(cond_dim, rng, device)
    }

    /// Turns the network into a two-time network. It starts independent of its target time, so
    /// δ_{s,t} = D_s.
    pub fn into_two_time(
        mut self,
        cond_dim: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        self.sigma_map_prime
            .get_or_insert_with(|| TimeEmbed::silent(cond_dim, rng, device));
        self
    }

    /// Evaluates the network.
    ///
    /// - `state`: the projected state h = xE, `[batch, length, width]`
    /// - `tau_s`: the state's time, `[batch]`
    /// - `tau_t`: the target time, `[batch]`; a one-time network ignores it
    ///
    /// The output covers the state's positions only. A register token takes part in the blocks and
    /// is removed before the head.
    pub fn forward(
        &self,
        state: Tensor<B, 3>,
        tau_s: Tensor<B, 1>,
        tau_t: Tensor<B, 1>,
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B> {
        self.forward_after(None, state, tau_s, tau_t, dropout)
    }

    /// Evaluates the network with the mean of an earlier distribution, `[batch, length, width]`.
    ///
    /// In sampling, it is the distribution of the previous step; in training, that of a first
    /// evaluation. A network with self-conditioning (`DitConfig::self_conditioning`) adds a learned
    /// map of it to the state. Zeros mean no earlier distribution. Otherwise this
    /// is [`forward`](Self::forward).
    pub fn forward_after(
        &self,
        earlier: Option<Tensor<B, 3>>,
        state: Tensor<B, 3>,
        tau_s: Tensor<B, 1>,
        tau_t: Tensor<B, 1>,
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B> {
        let ratio = self.ratio::<Values>(tau_s.clone());
        let cond = self.condition::<Values>(tau_s, Some(tau_t));
        let steer = |map: &Linear<B>| modulation::<B, Values>(map, cond.clone());
        let mut x = self.informed::<Values>(state, ratio);
        if let Some((matrix, mean)) = self.earlier.as_ref().zip(earlier) {
            let shape = mean.dims();
            let rows = mean.reshape([shape[0] * shape[1], shape[2]]);
            x = x + flm_ops::matmul(rows, matrix.val()).reshape(shape);
        }
        let x = self.evaluate::<Values>(x, steer, dropout);
        self.output_layer.answer(x, steer)
    }

    /// Removes self-conditioning, as flow maps are trained without it.
    pub fn without_earlier(self) -> Self {
        Self {
            earlier: None,
            ..self
        }
    }

    /// Returns whether the network has self-conditioning.
    pub fn hears_earlier(&self) -> bool {
        self.earlier.is_some()
    }

    /// Evaluates the network, without dropout, with the derivative of its output along a direction
    /// of state and times.
    ///
    /// The shapes are those of [`forward`](Self::forward). The cost is that of two evaluations,
    /// without a graph. On an autodiff backend, the result is itself differentiable.
    pub fn jvp(&self, state: Dual<B, 3>, tau_s: Dual<B, 1>, tau_t: Dual<B, 1>) -> Jvp<B> {
        let ratio = self.ratio::<Duals>(tau_s.clone());
        let cond = self.condition::<Duals>(tau_s, Some(tau_t));
        let steer = |map: &Linear<B>| modulation::<B, Duals>(map, cond.clone());
        let state = self.informed::<Duals>(state, ratio);
        let x = self.evaluate::<Duals>(state, steer, &mut Dropout::off());
        self.output_layer.jvp(x, steer)
    }

    /// t/(1−t) for each sequence at `tau` `[batch]`, if the network reads evidence.
    fn ratio<M: Mode<B>>(&self, tau: M::Of<1>) -> Option<M::Of<3>> {
        let evidence = self.evidence.as_ref()?;
        Some(evidence.ratio::<M>(tau))
    }

    /// Adds the evidence to the state, if the network reads evidence. `ratio` is t/(1−t) of
    /// the positions.
    fn informed<M: Mode<B>>(&self, state: M::Of<3>, ratio: Option<M::Of<3>>) -> M::Of<3> {
        let Some((evidence, ratio)) = self.evidence.as_ref().zip(ratio) else {
            return state;
        };
        let embedding = self.vocab_embed.embedding.val();
        let numbers = self.output_layer.execution().head_numbers;
        let read = evidence.read::<M>(embedding, state.clone(), ratio, numbers);
        M::sum(state, read)
    }

    /// The residual stream after the blocks, without the register token. `steer` modulates all
    /// positions, including the register token.
    fn evaluate<M: Mode<B>>(
        &self,
        state: M::Of<3>,
        steer: impl Fn(&Linear<B>) -> M::Of<3>,
        dropout: &mut Dropout<'_>,
    ) -> M::Of<3> {
        let mut x = self.with_register::<M>(state);
        let [_, positions, width] = M::value(&x).dims();
        let device = M::value(&x).device();
        let rope = Rope::new(positions, width / self.heads, self.rope_base, &device);
        for block in &self.blocks {
            x = block.evaluate::<M>(x, &steer, &rope, dropout);
        }
        if self.has_register() {
            x = M::map(x, |x| x.narrow(1, 1, positions - 1));
        }
        x
    }

    /// The condition of the blocks, `[batch, cond_dim]`. A two-time network must get both times.
    fn condition<M: Mode<B>>(&self, tau_s: M::Of<1>, tau_t: Option<M::Of<1>>) -> M::Of<2> {
        let time = self.sigma_map.evaluate::<M>(tau_s);
        M::silu(match self.sigma_map_prime.as_ref().zip(tau_t) {
            Some((prime, tau_t)) => M::add(time, prime.evaluate::<M>(tau_t)),
            None => time,
        })
    }

    /// Prepends the register token, if the network has one.
    fn with_register<M: Mode<B>>(&self, state: M::Of<3>) -> M::Of<3> {
        let Some(register_token) = &self.register_token else {
            return state;
        };
        let [batch, _, width] = M::value(&state).dims();
        let register_token = register_token
            .val()
            .reshape([1, 1, width])
            .expand([batch, 1, width]);
        M::behind(register_token, state)
    }
}

impl<B: Backend> Dit<B> {
    /// Returns the matrices that map features to features: embedding, attention, MLP and head.
    ///
    /// These are suited to matrix optimizers. The maps of time and modulation are not, because
    /// their input is little more than one number.
    ///
    /// The embedding is included because the network multiplies it by dense noisy states, instead
    /// of looking up single rows.
    pub fn matrices(&self) -> Vec<(ParamId, Tensor<B, 2>)> {
        iter::once(&self.vocab_embed.embedding)
            .chain(self.evidence.iter().map(Evidence::matrix))
            .chain(&self.earlier)
            .chain(self.blocks.iter().flat_map(Block::matrices))
            .chain(iter::once(self.output_layer.matrix()))
            .map(|weight| (weight.id, weight.val()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{apply_tensors, named_tensors};
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    /// Two networks with the same random parameters, with and without a register token. `scale`
    /// multiplies the output weights of attention.
    fn pair(scale: f32) -> [Dit<Flex>; 2] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let config = |register_token| DitConfig {
            register_token,
            ..DitConfig::new(7, 5, 16, 2, 2)
        };
        let fresh = |register_token| {
            config(register_token)
                .init::<Flex>(&mut ChaCha8Rng::seed_from_u64(1), &Default::default())
                .unwrap()
        };
        let mut tensors = named_tensors(&fresh(true));
        for tensor in &mut tensors {
            let scale = if tensor.name.ends_with("attn_out.weight") {
                scale
            } else {
                1.0
            };
            tensor
                .values
                .fill_with(|| scale * rng.random_range(-0.5..0.5));
        }
        [true, false].map(|register_token| {
            let mut tensors = tensors.clone();
            tensors.retain(|tensor| register_token || tensor.name != "register_token");
            apply_tensors(fresh(register_token), Path::new("drawn"), tensors).unwrap()
        })
    }

    /// Log-probabilities at τ = ½, `[batch, 5, 7]`.
    fn answer(model: &Dit<Flex>, state: Tensor<Flex, 3>) -> Tensor<Flex, 3> {
        let time = Tensor::full([state.dims()[0]], 0.5, &Default::default());
        let prediction = model.forward(state, time.clone(), time, &mut Dropout::off());
        prediction.dense_log_probs()
    }

    fn largest(x: Tensor<Flex, 3>) -> f32 {
        x.abs().max().into_scalar()
    }

    #[test]
    fn only_a_register_token_tells_where_a_position_is() {
        // All values are equal, so attention returns the same value everywhere, up to rounding.
        let [with, without] = pair(1.0).map(|model| {
            let x = answer(&model, Tensor::ones([2, 5, 16], &Default::default()));
            largest(x.clone().narrow(1, 1, 4) - x.narrow(1, 0, 4))
        });
        assert!(without < 1e-5, "{without}");
        assert!(with > 1e-2, "{with}");
    }

    #[test]
    fn a_register_token_that_nobody_attends_to_changes_nothing() {
        let state = flm_simplex::noise::gaussian(
            [2, 5, 16],
            &mut ChaCha8Rng::seed_from_u64(2),
            &Default::default(),
        );
        let [with, without] = pair(0.0).map(|model| answer(&model, state.clone()));
        // The same f32 sums, in blocks of other sizes.
        assert!(largest(with - without) < 1e-5);
    }

    #[test]
    fn an_earlier_answer_is_read_once_its_map_is_learned() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let config = DitConfig {
            self_conditioning: true,
            ..DitConfig::new(7, 5, 16, 1, 2)
        };
        let fresh = config.init::<Flex>(&mut rng, &Default::default()).unwrap();
        let mut tensors = named_tensors(&fresh);
        for tensor in &mut tensors {
            if tensor.name != "earlier" {
                tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
            }
        }
        let silent = apply_tensors(fresh.clone(), Path::new("drawn"), tensors.clone()).unwrap();
        let of_earlier = tensors.iter_mut().find(|tensor| tensor.name == "earlier");
        let of_earlier = of_earlier.expect("a tensor named earlier");
        of_earlier.values.fill_with(|| rng.random_range(-0.5..0.5));
        let loud = apply_tensors(fresh, Path::new("drawn"), tensors).unwrap();
        let drawn = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            flm_simplex::noise::gaussian::<Flex, _, 3>([2, 5, 16], &mut rng, &Default::default())
        };
        let after = |model: &Dit<Flex>, mean| {
            let time = Tensor::full([2], 0.5, &Default::default());
            let off = &mut Dropout::off();
            let told = model.forward_after(Some(mean), drawn(2), time.clone(), time, off);
            told.dense_log_probs()
        };
        let nothing = Tensor::zeros([2, 5, 16], &Default::default());
        for (model, mean) in [(&silent, drawn(4)), (&loud, nothing)] {
            let change = largest(after(model, mean) - answer(model, drawn(2)));
            assert!(change < 1e-5, "{change}");
        }
        let change = largest(after(&loud, drawn(4)) - answer(&loud, drawn(2)));
        assert!(change > 1e-2, "{change}");
    }
}
