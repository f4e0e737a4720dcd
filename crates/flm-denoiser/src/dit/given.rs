//! Evaluation with known, noise-free positions.

use super::Dit;
use crate::block::modulation;
use crate::dropout::Dropout;
use crate::head::Prediction;
use crate::mode::Values;
use burn::nn::Linear;
use burn::tensor::{Bool, Tensor, backend::Backend};

impl<B: Backend> Dit<B> {
    /// Evaluates the network with some positions known.
    ///
    /// Where `known` `[batch, length]` is true, both times are 1 instead of the sequence's times,
    /// and the state should be the clean embedding, a row of E. Otherwise this
    /// is [`forward`](Self::forward).
    ///
    /// The network must be trained for it (`DitConfig::conditioning`). The modulations then differ
    /// between positions, for which there are no fused kernels.
    ///
    /// # Panics
    ///
    /// Panics if the shapes do not match.
    pub fn forward_given(
        &self,
        state: Tensor<B, 3>,
        tau_s: Tensor<B, 1>,
        tau_t: Tensor<B, 1>,
        known: Tensor<B, 2, Bool>,
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B> {
        let ([batch, ..], device) = (state.dims(), state.device());
        let ratio = self.ratio::<Values>(tau_s.clone());
        let cond = self.condition::<Values>(tau_s, Some(tau_t));
        let end = Tensor::ones([1], &device);
        // Evidence also uses each position's own time.
        let ratio = ratio.zip(self.ratio::<Values>(end.clone()));
        let ratio = ratio.map(|(noisy, clean)| {
            let known = known.clone().unsqueeze_dim::<3>(2);
            let shape = known.dims();
            noisy.expand(shape).mask_where(known, clean.expand(shape))
        });
        let clean = self.condition::<Values>(end.clone(), Some(end));
        let steer = |map: &Linear<B>, known: &Tensor<B, 2, Bool>| {
            let noisy = modulation::<B, Values>(map, cond.clone());
            let clean = modulation::<B, Values>(map, clean.clone());
            let shape = [batch, known.dims()[1], noisy.dims()[2]];
            let known = known.clone().unsqueeze_dim::<3>(2).expand(shape);
            noisy.expand(shape).mask_where(known, clean.expand(shape))
        };
        // A register token keeps the sequence's time.
        let with_register = if self.has_register() {
            let register = Tensor::<B, 2>::zeros([batch, 1], &device).bool();
            Tensor::cat(vec![register, known.clone()], 1)
        } else {
            known.clone()
        };
        let state = self.informed::<Values>(state, ratio);
        let x = self.evaluate::<Values>(state, |map| steer(map, &with_register), dropout);
        self.output_layer.answer(x, |map| steer(map, &known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DitConfig, apply_tensors, named_tensors};
    use burn::tensor::Tolerance;
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    const SHAPE: [usize; 2] = [2, 5];

    /// A two-time network with all parameters random.
    fn loud(register_token: bool) -> Dit<Flex> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let config = DitConfig {
            register_token,
            ..DitConfig::new(7, 5, 16, 2, 2).with_two_time(true)
        };
        let model = config.init::<Flex>(&mut rng, &Default::default()).unwrap();
        let mut tensors = named_tensors(&model);
        for tensor in &mut tensors {
            tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
        }
        apply_tensors(model, Path::new("drawn"), tensors).unwrap()
    }

    fn state() -> Tensor<Flex, 3> {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        flm_simplex::noise::gaussian([2, 5, 16], &mut rng, &Default::default())
    }

    fn row(tau: f64) -> Tensor<Flex, 1> {
        Tensor::full([2], tau, &Default::default())
    }

    fn plain(model: &Dit<Flex>, tau_s: f64, tau_t: f64) -> Tensor<Flex, 3> {
        let prediction = model.forward(state(), row(tau_s), row(tau_t), &mut Dropout::off());
        prediction.dense_log_probs()
    }

    fn given(model: &Dit<Flex>, known: Tensor<Flex, 2>) -> Tensor<Flex, 3> {
        let (s, t, known) = (row(0.2), row(0.6), known.bool());
        let prediction = model.forward_given(state(), s, t, known, &mut Dropout::off());
        prediction.dense_log_probs()
    }

    fn close(found: Tensor<Flex, 3>, expected: Tensor<Flex, 3>) {
        // The same f32 sums, fused and unfused, through two blocks.
        let tolerance = Tolerance::absolute(1e-4);
        let (found, expected) = (found.into_data(), expected.into_data());
        found.assert_approx_eq::<f32>(&expected, tolerance);
    }

    #[test]
    fn where_nothing_is_known_the_row_has_its_times() {
        for register in [false, true] {
            let model = loud(register);
            let found = given(&model, Tensor::zeros(SHAPE, &Default::default()));
            close(found, plain(&model, 0.2, 0.6));
        }
    }

    #[test]
    fn where_all_is_known_the_times_are_one() {
        let model = loud(false);
        let found = given(&model, Tensor::ones(SHAPE, &Default::default()));
        close(found, plain(&model, 1.0, 1.0));
    }

    #[test]
    fn each_position_of_each_row_has_its_own() {
        let model = loud(true);
        let nothing = given(&model, Tensor::zeros(SHAPE, &Default::default()));
        let device = Default::default();
        let one = [[0.0, 0.0, 1.0, 0.0, 0.0], [0.0; 5]];
        let change = (given(&model, Tensor::from_floats(one, &device)) - nothing).abs();
        let most = |row, position| -> f32 {
            let at = change.clone().narrow(0, row, 1).narrow(1, position, 1);
            at.max().into_scalar()
        };
        assert!(most(0, 2) > 1e-2, "{}", most(0, 2));
        // Positions that attend to it change; other sequences do not.
        assert!(most(0, 0) > 1e-4, "{}", most(0, 0));
        assert!((0..5).all(|position| most(1, position) == 0.0));
    }
}
