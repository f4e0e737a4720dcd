//! Likelihoods of a data set, or bounds of them.

use crate::Tokens;
use rand::{Rng, RngExt};

/// Where time begins in an estimate: before it, rates are beyond f32.
const BEGINNING: f64 = 1e-6;

/// A mean over texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Nats per token.
    pub nats: f64,
    /// The standard error of that, of the choice of texts and of what was drawn.
    pub error: f64,
    /// How many texts.
    pub texts: usize,
}

impl Bound {
    /// Of the nats of each text of `length` tokens; of fewer than two texts there is no standard error.
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

/// The mean over a data set: of rows of one length, `batch` at a time, by `nats`, which answers for each row of a batch
/// ([`mdlm::nats`](crate::mdlm::nats), [`duo::nats`](crate::duo::nats), [`autoregressive::nats`](crate::autoregressive::nats)).
///
/// Nothing is answered if there is no row.
///
/// # Panics
///
/// If the rows are of several lengths, or a batch is of none.
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
            assert_eq!(row.len(), length, "rows are of one length");
            row.iter().map(|&id| id as i32)
        });
        all.extend(nats(&Tokens::new(ids.collect(), length)));
    }
    Some(Bound::of(&all, length))
}

/// The mean of `nats`, which answers for each row at its time, over `draws` times that are stratified for each row.
pub(crate) fn mean_over_times<R: Rng + ?Sized>(
    tokens: &Tokens,
    draws: usize,
    rng: &mut R,
    mut nats: impl FnMut(&[f64], &mut R) -> Vec<f64>,
) -> Vec<f64> {
    assert!(draws > 0, "an estimate needs a draw");
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
