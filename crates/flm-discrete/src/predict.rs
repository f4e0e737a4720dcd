//! The interface of denoisers.

use crate::schedule::Level;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use flm_denoiser::{Dit, Dropout, Prediction};

/// A denoiser of noisy tokens.
pub trait Predict<B: Backend> {
    /// Predicts the clean tokens from `noisy` `[rows, length]`, at one noise level per row.
    fn predict(
        &self,
        noisy: Tensor<B, 2, Int>,
        levels: &[Level],
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B>;

    /// Returns the number of tokens V, which is also the id of the mask token.
    fn vocab_size(&self) -> usize;

    /// Returns the device.
    fn device(&self) -> B::Device;
}

impl<B: Backend> Predict<B> for Dit<B> {
    /// The time input is −log α, as published. For a network with a mask token it is 0, because the
    /// masked tokens imply the time.
    fn predict(
        &self,
        noisy: Tensor<B, 2, Int>,
        levels: &[Level],
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B> {
        let device = noisy.device();
        let sigma = |level: &Level| {
            if self.has_mask_token() {
                0.0
            } else {
                level.sigma()
            }
        };
        let sigma = row(levels.iter().map(sigma), &device);
        self.forward(self.read(noisy), sigma.clone(), sigma, dropout)
    }

    fn vocab_size(&self) -> usize {
        self.embed().embedding.dims()[0]
    }

    fn device(&self) -> B::Device {
        self.embed().embedding.device()
    }
}

/// Creates a tensor from numbers.
pub(crate) fn row<B: Backend>(
    numbers: impl Iterator<Item = f64>,
    device: &B::Device,
) -> Tensor<B, 1> {
    let numbers: Vec<f32> = numbers.map(|number| number as f32).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}
