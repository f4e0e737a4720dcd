//! Parameter initialization from the caller's generator, so that a seed gives the same network on
//! every backend.

use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::{Rng, RngExt};

/// A parameter drawn uniformly from ±`bound`.
pub(crate) fn uniform<B: Backend, const D: usize>(
    shape: [usize; D],
    bound: f64,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let count = shape.iter().product();
    let bound = bound as f32;
    let values: Vec<f32> = (0..count)
        .map(|_| rng.random_range(-bound..=bound))
        .collect();
    parameter(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A parameter of zeros.
pub(crate) fn zeros<B: Backend, const D: usize>(
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    parameter(Tensor::zeros(shape, device))
}

/// A linear map drawn uniformly from ±1/√fan_in, as is its bias (PyTorch's default).
pub(crate) fn linear<B: Backend>(
    inputs: usize,
    outputs: usize,
    bias: bool,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Linear<B> {
    let bound = 1.0 / (inputs as f64).sqrt();
    let weight = uniform([inputs, outputs], bound, rng, device);
    let bias = bias.then(|| uniform([outputs], bound, rng, device));
    Linear { weight, bias }
}

/// A linear map with zero weight and bias.
pub(crate) fn zero_linear<B: Backend>(
    inputs: usize,
    outputs: usize,
    device: &B::Device,
) -> Linear<B> {
    Linear {
        weight: zeros([inputs, outputs], device),
        bias: Some(zeros([outputs], device)),
    }
}

fn parameter<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::initialized(ParamId::new(), tensor.require_grad())
}
