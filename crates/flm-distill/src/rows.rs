//! Which times each row of a batch is trained at.

use flm_simplex::times::stratified;
use rand::{Rng, RngExt};

/// What a row of a batch teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// s = t: the denoiser itself.
    Diagonal,
    /// (s, t) = (0, 1): the jump of one-step generation.
    Boundary,
    /// Any other s < t: the flow map in between.
    OffDiagonal,
}

impl RowKind {
    /// The name under which its loss is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diagonal => "diagonal",
            Self::Boundary => "boundary",
            Self::OffDiagonal => "off_diagonal",
        }
    }
}

/// The network times of a row: from `tau_s` to `tau_t` by way of `tau_u`. On the diagonal the three are equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeRow {
    /// What the row teaches.
    pub kind: RowKind,
    /// τ of the state.
    pub tau_s: f64,
    /// τ of the midpoint.
    pub tau_u: f64,
    /// τ of the target.
    pub tau_t: f64,
}

impl TimeRow {
    /// A row on the diagonal.
    pub fn diagonal(tau: f64) -> Self {
        Self {
            kind: RowKind::Diagonal,
            tau_s: tau,
            tau_u: tau,
            tau_t: tau,
        }
    }

    /// A row off the diagonal, its midpoint half way in τ.
    pub fn span(kind: RowKind, tau_s: f64, tau_t: f64) -> Self {
        Self {
            kind,
            tau_s,
            tau_u: (tau_s + tau_t) / 2.0,
            tau_t,
        }
    }
}

/// Diagonal rows only, stratified in τ.
pub fn diagonal_rows<R: Rng + ?Sized>(batch: usize, rng: &mut R) -> Vec<TimeRow> {
    stratified(batch, rng)
        .into_iter()
        .map(TimeRow::diagonal)
        .collect()
}

/// A batch for a flow map, split in fixed shares (`mathematics.md`, section 4): diagonal rows first, then boundary rows,
/// then rows of a width w ~ U(0, 1) starting at τ_s ~ U(0, 1 − w).
///
/// `diagonal` is the share of diagonal rows, `boundary` the share of boundary rows among the others; counts are rounded
/// to the nearest row.
pub fn flow_map_rows<R: Rng + ?Sized>(
    batch: usize,
    diagonal: f64,
    boundary: f64,
    rng: &mut R,
) -> Vec<TimeRow> {
    let on = (batch as f64 * diagonal).round() as usize;
    let edge = ((batch - on) as f64 * boundary).round() as usize;
    let mut rows = diagonal_rows(on, rng);
    rows.extend((0..edge).map(|_| TimeRow::span(RowKind::Boundary, 0.0, 1.0)));
    rows.extend((on + edge..batch).map(|_| {
        let width: f64 = rng.random();
        let tau_s = rng.random::<f64>() * (1.0 - width);
        TimeRow::span(RowKind::OffDiagonal, tau_s, (tau_s + width).min(1.0))
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_batch_is_split_in_fixed_shares_and_ordered_times() {
        let rows = flow_map_rows(128, 0.5, 1.0 / 32.0, &mut ChaCha8Rng::seed_from_u64(0));
        let count = |kind| rows.iter().filter(|row| row.kind == kind).count();
        assert_eq!(count(RowKind::Diagonal), 64);
        assert_eq!(count(RowKind::Boundary), 2);
        assert_eq!(count(RowKind::OffDiagonal), 62);
        for row in &rows {
            assert!(
                0.0 <= row.tau_s
                    && row.tau_s <= row.tau_u
                    && row.tau_u <= row.tau_t
                    && row.tau_t <= 1.0
            );
            match row.kind {
                RowKind::Diagonal => assert_eq!(row.tau_s, row.tau_t),
                RowKind::Boundary => assert_eq!((row.tau_s, row.tau_u, row.tau_t), (0.0, 0.5, 1.0)),
                RowKind::OffDiagonal => assert!(row.tau_s < row.tau_t),
            }
        }
    }

    #[test]
    fn widths_are_uniform() {
        let rows = flow_map_rows(20_000, 0.0, 0.0, &mut ChaCha8Rng::seed_from_u64(1));
        let mean = rows.iter().map(|row| row.tau_t - row.tau_s).sum::<f64>() / rows.len() as f64;
        // Five standard errors of a uniform mean: false alarm about 6e-7.
        assert!(
            (mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / rows.len() as f64).sqrt(),
            "{mean}"
        );
    }
}
