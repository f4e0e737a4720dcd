//! Who says what the clean tokens are.

use crate::schedule::Level;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use flm_denoiser::{Dit, Dropout, Prediction};

/// A denoiser of noisy tokens.
pub trait Predict<B: Backend> {
    /// What it says about the clean tokens when it sees `noisy` `[rows, length]`, at a level of noise for each row.
    fn predict(
        &self,
        noisy: Tensor<B, 2, Int>,
        levels: &[Level],
        dropout: &mut Dropout<'_>,
    ) -> Prediction<B>;

    /// Number of tokens, V, which is also the id of the mask token.
    fn vocab_size(&self) -> usize;

    /// Where it computes.
    fn device(&self) -> B::Device;
}

impl<B: Backend> Predict<B> for Dit<B> {
    /// A network with a mask token sees how many tokens are noisy, and is told no time; another is told −log α, as published.
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

/// Numbers as a tensor.
pub(crate) fn row<B: Backend>(
    numbers: impl Iterator<Item = f64>,
    device: &B::Device,
) -> Tensor<B, 1> {
    let numbers: Vec<f32> = numbers.map(|number| number as f32).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}
