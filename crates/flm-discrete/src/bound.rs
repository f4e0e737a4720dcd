//! Mean likelihoods, or likelihood bounds, of a data set.

use crate::Tokens;
use rand::{Rng, RngExt};

/// The earliest time of an estimate. At earlier times rates overflow f32.
const BEGINNING: f64 = 1e-6;

/// A mean negative log-likelihood over texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Nats per token.
    pub nats: f64,
    /// The standard error of the mean, over texts and draws.
    pub error: f64,
    /// Number of texts.
    pub texts: usize,
}

impl Bound {
    /// Computes the mean from the nats of texts of `length` tokens.
    ///
    /// The standard error is NaN for fewer than two texts.
    pub fn of(nats: &[f64], length: usize) -> Self {
        let (count, length) = (nats.len() as f64, length as f64);
        let mean = nats.iter().sum::<f64>() / count;
        let squares: f64 = nats.iter().map(|nats| (nats - mean).powi(2)).sum();
        Self {
            nats: mean / length,
            error: (squares / (count - 1.0) / count).sqrt() / length,
            texts: nats.len(),
        }
    }
}

/// Computes the mean over a data set, `batch` rows at a time.
///
/// `nats` returns the nats of each row of a batch ([`mdlm::nats`](crate::mdlm::nats),
/// [`duo::nats`](crate::duo::nats), [`autoregressive::nats`](crate::autoregressive::nats)).
///
/// Returns `None` if there are no rows.
///
/// # Panics
///
/// If rows differ in length, or `batch` is 0.
pub fn bound<'a>(
    rows: impl IntoIterator<Item = &'a [u32]>,
    batch: usize,
    mut nats: impl FnMut(&Tokens) -> Vec<f64>,
) -> Option<Bound> {
    let rows: Vec<&[u32]> = rows.into_iter().collect();
    let length = rows.first()?.len();
    let mut all = Vec::with_capacity(rows.len());
    for rows in rows.chunks(batch) {
        let ids = rows.iter().flat_map(|row| {
            assert_eq!(row.len(), length, "all rows must have the same length");
            row.iter().map(|&id| id as i32)
        });
        all.extend(nats(&Tokens::new(ids.collect(), length)));
    }
    Some(Bound::of(&all, length))
}

/// Returns the mean of `nats` for each row over `draws` stratified times.
///
/// `nats` takes one time per row and returns one value per row.
pub(crate) fn mean_over_times<R: Rng + ?Sized>(
    tokens: &Tokens,
    draws: usize,
    rng: &mut R,
    mut nats: impl FnMut(&[f64], &mut R) -> Vec<f64>,
) -> Vec<f64> {
    assert!(draws > 0, "the number of draws must be at least 1");
    let mut means = vec![0.0; tokens.rows()];
    for draw in 0..draws {
        let mut time = || ((draw as f64 + rng.random::<f64>()) / draws as f64).max(BEGINNING);
        let times: Vec<f64> = (0..tokens.rows()).map(|_| time()).collect();
        for (mean, nats) in means.iter_mut().zip(nats(&times, rng)) {
            *mean += nats / draws as f64;
        }
    }
    means
}
