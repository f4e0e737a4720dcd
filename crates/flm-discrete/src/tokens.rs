//! Tokens in host memory.

use crate::Level;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::{Rng, RngExt};

/// A batch of rows of tokens, all of one length, in host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<i32>,
    length: usize,
}

impl Tokens {
    /// Creates `rows` rows of `length` tokens, all equal to `id`.
    pub fn filled(id: usize, [rows, length]: [usize; 2]) -> Self {
        Self {
            ids: vec![id as i32; rows * length],
            length,
        }
    }

    /// Creates rows from concatenated tokens.
    ///
    /// # Panics
    ///
    /// If `length` is 0 or does not divide the number of tokens.
    pub fn new(ids: Vec<i32>, length: usize) -> Self {
        assert!(
            length > 0 && ids.len().is_multiple_of(length),
            "the number of tokens must be a multiple of the row length {length}, found {}",
            ids.len()
        );
        Self { ids, length }
    }

    /// Copies a tensor `[rows, length]` to the host.
    pub fn of<B: Backend>(ids: Tensor<B, 2, Int>) -> Self {
        let length = ids.dims()[1];
        Self::new(ids.into_data().iter::<i32>().collect(), length)
    }

    /// Copies the tokens to a tensor `[rows, length]`.
    pub fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let data = TensorData::new(self.ids.clone(), [self.rows(), self.length]);
        Tensor::from_data(data, device)
    }

    /// Returns the rows with these indices.
    pub fn select(&self, rows: &[usize]) -> Self {
        let ids = rows.iter().flat_map(|&row| self.row(row)).copied();
        Self {
            ids: ids.collect(),
            length: self.length,
        }
    }

    /// Returns a row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.ids[row * self.length..][..self.length]
    }

    /// Returns all tokens, row by row.
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// Returns all tokens, row by row, mutably.
    pub fn ids_mut(&mut self) -> &mut [i32] {
        &mut self.ids
    }

    /// Returns a copy with tokens replaced by `other` at random, at one noise level per row.
    pub(crate) fn corrupted<R: Rng + ?Sized>(
        &self,
        levels: &[Level],
        rng: &mut R,
        mut other: impl FnMut(&mut R) -> i32,
    ) -> Self {
        let mut noisy = self.clone();
        let rows = noisy.ids.chunks_exact_mut(self.length);
        for (row, level) in rows.zip(levels) {
            for id in row {
                if rng.random::<f64>() >= level.alpha {
                    *id = other(rng);
                }
            }
        }
        noisy
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.ids.len() / self.length
    }

    /// Returns the number of tokens in a row.
    pub fn length(&self) -> usize {
        self.length
    }
}
