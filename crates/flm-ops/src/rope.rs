//! Rotary position embedding, half-split: entry i of a head rotates with entry i + half.

use burn::tensor::{Tensor, TensorData, backend::Backend};

/// Cosines and sines for every position of a sequence, each `[length, head_width / 2]`.
#[derive(Clone, Debug)]
pub struct Rope<B: Backend> {
    pub(crate) cos: Tensor<B, 2>,
    pub(crate) sin: Tensor<B, 2>,
}

impl<B: Backend> Rope<B> {
    /// Creates tables for `length` positions and heads of even width `head_width`, with frequencies
    /// base^(−2j/head_width).
    pub fn new(length: usize, head_width: usize, base: f64, device: &B::Device) -> Self {
        Self::after(0, length, head_width, base, device)
    }

    /// [`new`](Self::new) for `length` positions after the first `first` ones.
    pub fn after(
        first: usize,
        length: usize,
        head_width: usize,
        base: f64,
        device: &B::Device,
    ) -> Self {
        let half = head_width / 2;
        let angle = |i: usize| {
            let (position, j) = (first + i / half, i % half);
            position as f64 * base.powf(-2.0 * j as f64 / head_width as f64)
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..length * half).map(|i| f(angle(i)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [length, half]), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates queries or keys `[batch, length, heads, head_width]`.
    pub(crate) fn turn(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let cos = self.cos.clone().unsqueeze_dims::<4>(&[0, 2]);
        let sin = self.sin.clone().unsqueeze_dims::<4>(&[0, 2]);
        Tensor::cat(
            vec![
                first.clone() * cos.clone() - second.clone() * sin.clone(),
                second * cos + first * sin,
            ],
            3,
        )
    }
}
