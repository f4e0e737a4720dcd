//! Tokens on the host, where they are drawn.

use crate::Level;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::{Rng, RngExt};

/// Rows of tokens of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<i32>,
    length: usize,
}

impl Tokens {
    /// `rows` rows of `length` times the same.
    pub fn filled(id: usize, [rows, length]: [usize; 2]) -> Self {
        Self {
            ids: vec![id as i32; rows * length],
            length,
        }
    }

    /// Rows one after the other.
    ///
    /// # Panics
    ///
    /// If they are not whole.
    pub fn new(ids: Vec<i32>, length: usize) -> Self {
        assert!(
            length > 0 && ids.len().is_multiple_of(length),
            "rows of {length} tokens are whole, found {} tokens",
            ids.len()
        );
        Self { ids, length }
    }

    /// Those of a tensor `[rows, length]`.
    pub fn of<B: Backend>(ids: Tensor<B, 2, Int>) -> Self {
        let length = ids.dims()[1];
        Self::new(ids.into_data().iter::<i32>().collect(), length)
    }

    /// As a tensor `[rows, length]`.
    pub fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let data = TensorData::new(self.ids.clone(), [self.rows(), self.length]);
        Tensor::from_data(data, device)
    }

    /// Some of the rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        let ids = rows.iter().flat_map(|&row| self.row(row)).copied();
        Self {
            ids: ids.collect(),
            length: self.length,
        }
    }

    /// A row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.ids[row * self.length..][..self.length]
    }

    /// All tokens, row by row.
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// All tokens, row by row, to be changed.
    pub fn ids_mut(&mut self) -> &mut [i32] {
        &mut self.ids
    }

    /// The same with others in the place of those that are lost at a level of noise for each row.
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

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.ids.len() / self.length
    }

    /// Tokens in a row.
    pub fn length(&self) -> usize {
        self.length
    }
}
