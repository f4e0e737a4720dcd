//! AdamW in one pass over each parameter.

use burn::optim::{AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};

/// burn's AdamW with the same state, computed by the fused operation of `flm_ops`.
#[derive(Clone)]
pub(super) struct FusedAdamW {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) epsilon: f64,
    pub(super) weight_decay: f64,
}

impl<B: Backend> SimpleOptimizer<B> for FusedAdamW {
    type State<const D: usize> = AdamWState<B, D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<B, D>, Option<Self::State<D>>) {
        let zeros = || AdaptiveMomentumState::new(0, grad.zeros_like(), grad.zeros_like());
        let AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            ..
        } = state.map_or_else(zeros, |state| state.momentum);
        let rule = flm_ops::AdamW {
            lr,
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            time: time + 1,
        };
        let [tensor, first, second] = flm_ops::adamw(&rule, tensor, grad, moment_1, moment_2);
        let momentum = AdaptiveMomentumState::new(time + 1, first, second);
        (tensor, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(mut state: Self::State<D>, device: &Device<B>) -> Self::State<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}
