//! Incremental decoding with a causal network.

use super::Dit;
use crate::block::modulation;
use crate::dropout::Dropout;
use crate::head::Prediction;
use crate::mode::Values;
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::{KeysAndValues, Rope, attention_after};

/// The key-value cache of a causal network, for every block.
#[derive(Clone, Debug)]
pub struct Memory<B: Backend> {
    blocks: Vec<KeysAndValues<B>>,
}

impl<B: Backend> Memory<B> {
    /// The number of cached positions, including a register token.
    fn positions(&self) -> usize {
        self.blocks.first().map_or(0, KeysAndValues::positions)
    }
}

impl<B: Backend> Dit<B> {
    /// Creates an empty cache.
    pub fn memory(&self) -> Memory<B> {
        let blocks = self.blocks.iter().map(|_| KeysAndValues::new()).collect();
        Memory { blocks }
    }

    /// Evaluates the next positions of a sequence and adds them to the cache `memory`.
    ///
    /// `state` is `[batch, positions, width]` ([`read`](Self::read)). The concatenated outputs
    /// equal those of [`forward`](Self::forward) at time 0, up to rounding.
    ///
    /// # Panics
    ///
    /// Panics if the network is not causal, or `memory` belongs to another network or batch.
    pub fn decode(&self, state: Tensor<B, 3>, memory: &mut Memory<B>) -> Prediction<B> {
        assert!(
            self.causal,
            "incremental decoding is supported only by causal networks"
        );
        let ([batch, positions, width], device) = (state.dims(), state.device());
        let first = memory.positions();
        let mut x = if first == 0 {
            self.with_register::<Values>(state)
        } else {
            state
        };
        let [_, count, _] = x.dims();
        let rope = Rope::after(first, count, width / self.heads, self.rope_base, &device);
        let cond = self.condition::<Values>(Tensor::zeros([batch], &device), None);
        for (block, past) in self.blocks.iter().zip(&mut memory.blocks) {
            let mix = |qkv, attention| attention_after(qkv, &rope, attention, past);
            let steer = |map: &Linear<B>| modulation::<B, Values>(map, cond.clone());
            x = block.evaluate_with::<Values>(x, steer, mix, &mut Dropout::off());
        }
        let x = x.narrow(1, count - positions, positions);
        self.output_layer.forward(x, cond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DitConfig, Family, apply_tensors, named_tensors};
    use burn::tensor::{Int, Tolerance};
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    /// A causal network with all parameters random.
    fn loud(register_token: bool) -> Dit<Flex> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let config = DitConfig {
            register_token,
            ..DitConfig::new(7, 5, 16, 2, 2).with_family(Family::Autoregressive)
        };
        let model = config.init::<Flex>(&mut rng, &Default::default()).unwrap();
        let mut tensors = named_tensors(&model);
        for tensor in &mut tensors {
            tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
        }
        apply_tensors(model, Path::new("drawn"), tensors).unwrap()
    }

    fn ids() -> Tensor<Flex, 2, Int> {
        Tensor::from_ints([[7, 1, 2, 6, 0], [7, 3, 3, 7, 5]], &Default::default())
    }

    fn whole(model: &Dit<Flex>, ids: Tensor<Flex, 2, Int>) -> Tensor<Flex, 3> {
        let time = Tensor::zeros([2], &Default::default());
        let state = model.read(ids);
        let prediction = model.forward(state, time.clone(), time, &mut Dropout::off());
        prediction.dense_log_probs()
    }

    #[test]
    fn pieces_are_the_whole() {
        for register in [false, true] {
            let model = loud(register);
            for pieces in [vec![5], vec![1; 5], vec![2, 1, 2]] {
                let (mut memory, mut at, mut found) = (model.memory(), 0, Vec::new());
                for count in pieces {
                    let state = model.read(ids().narrow(1, at, count));
                    found.push(model.decode(state, &mut memory).dense_log_probs());
                    at += count;
                }
                // f32 sums in other orders, through two blocks.
                Tensor::cat(found, 1).into_data().assert_approx_eq::<f32>(
                    &whole(&model, ids()).into_data(),
                    Tolerance::absolute(1e-5),
                );
            }
        }
    }

    #[test]
    fn nobody_looks_ahead() {
        let model = loud(false);
        let later = Tensor::from_ints([[7, 1, 2, 5, 4], [7, 3, 3, 1, 1]], &Default::default());
        let change = (whole(&model, ids()) - whole(&model, later)).abs();
        let first: f32 = change.clone().narrow(1, 0, 3).max().into_scalar();
        let last: f32 = change.narrow(1, 3, 2).min().into_scalar();
        assert!(first == 0.0 && last > 0.0, "{first} {last}");
    }

    #[test]
    fn a_mask_token_is_read_as_its_own_vector() {
        let model = loud(false);
        let read = model.read(ids());
        let mask_token = model.mask_token.as_ref().unwrap().val();
        let at = |row, position| {
            let one = read.clone().narrow(0, row, 1).narrow(1, position, 1);
            one.reshape([16]).into_data()
        };
        at(0, 0).assert_eq(&mask_token.clone().into_data(), true);
        at(1, 3).assert_eq(&mask_token.into_data(), true);
        let token = model.embed().embedding.val().narrow(0, 2, 1);
        at(0, 2).assert_eq(&token.reshape([16]).into_data(), true);
    }
}
