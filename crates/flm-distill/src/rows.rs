//! The training times of each row of a batch.

use flm_simplex::Clock;
use flm_simplex::times::stratified;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The part of the objective that a row trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// s = t: the denoiser itself.
    Diagonal,
    /// (s, t) = (0, 1): the jump of one-step generation.
    Boundary,
    /// Any other s < t: the flow map between the two.
    OffDiagonal,
}

impl RowKind {
    /// Returns the name under which the row's loss is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diagonal => "diagonal",
            Self::Boundary => "boundary",
            Self::OffDiagonal => "off_diagonal",
        }
    }
}

/// Where a jump off the diagonal is cut in two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Midpoint {
    /// Half way in τ.
    #[default]
    Half,
    /// Anywhere, uniformly in τ.
    Random,
}

/// The network times of a row: from `tau_s` over `tau_u` to `tau_t`. On the diagonal the three are
/// equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeRow {
    /// The part of the objective that the row trains.
    pub kind: RowKind,
    /// τ of the state.
    pub tau_s: f64,
    /// τ of the midpoint.
    pub tau_u: f64,
    /// τ of the target.
    pub tau_t: f64,
}

impl TimeRow {
    /// Creates a row on the diagonal.
    pub fn diagonal(tau: f64) -> Self {
        Self {
            kind: RowKind::Diagonal,
            tau_s: tau,
            tau_u: tau,
            tau_t: tau,
        }
    }

    /// Creates a row off the diagonal, with its midpoint half way in τ.
    pub fn span(kind: RowKind, tau_s: f64, tau_t: f64) -> Self {
        Self {
            kind,
            tau_s,
            tau_u: (tau_s + tau_t) / 2.0,
            tau_t,
        }
    }
}

/// Returns the names under which the losses of rows are reported.
pub(crate) fn kinds(rows: &[TimeRow]) -> Vec<&'static str> {
    rows.iter().map(|row| row.kind.name()).collect()
}

/// Returns the rows on a clock: a share of the whole time becomes its τ.
pub(crate) fn on_clock(rows: Vec<TimeRow>, clock: &Clock) -> Vec<TimeRow> {
    let on_clock = |row: TimeRow| TimeRow {
        kind: row.kind,
        tau_s: clock.tau(row.tau_s),
        tau_u: clock.tau(row.tau_u),
        tau_t: clock.tau(row.tau_t),
    };
    rows.into_iter().map(on_clock).collect()
}

/// Draws diagonal rows only, stratified in τ.
pub fn diagonal_rows<R: Rng + ?Sized>(batch: usize, rng: &mut R) -> Vec<TimeRow> {
    stratified(batch, rng)
        .into_iter()
        .map(TimeRow::diagonal)
        .collect()
}

/// Returns how many of `batch` rows are diagonal, rounded to the nearest.
pub(crate) fn diagonal_count(batch: usize, share: f64) -> usize {
    (batch as f64 * share).round() as usize
}

/// Draws the times of a flow map batch in fixed shares (`mathematics.md`, section 4): diagonal rows
/// first, then boundary rows, then rows of a width w ~ U(0, 1) starting at τ_s ~ U(0, 1 − w).
///
/// `diagonal` is the share of diagonal rows, and `boundary` is the share of boundary rows among the
/// others. Counts are rounded to the nearest row. `midpoint` selects where jumps are cut.
pub fn flow_map_rows<R: Rng + ?Sized>(
    batch: usize,
    diagonal: f64,
    boundary: f64,
    midpoint: Midpoint,
    rng: &mut R,
) -> Vec<TimeRow> {
    let on = diagonal_count(batch, diagonal);
    let edge = ((batch - on) as f64 * boundary).round() as usize;
    let mut rows = diagonal_rows(on, rng);
    rows.extend((0..edge).map(|_| TimeRow::span(RowKind::Boundary, 0.0, 1.0)));
    rows.extend((on + edge..batch).map(|_| {
        let width: f64 = rng.random();
        let tau_s = rng.random::<f64>() * (1.0 - width);
        TimeRow::span(RowKind::OffDiagonal, tau_s, (tau_s + width).min(1.0))
    }));
    if midpoint == Midpoint::Random {
        for row in &mut rows[on..] {
            row.tau_u = row.tau_s + rng.random::<f64>() * (row.tau_t - row.tau_s);
        }
    }
    rows
}

/// Draws diagonal rows first, then rows over one of `segments` equal parts of τ each. All parts
/// occur equally often, as far as the count allows.
pub(crate) fn segment_rows<R: Rng + ?Sized>(
    batch: usize,
    diagonal: f64,
    segments: usize,
    rng: &mut R,
) -> Vec<TimeRow> {
    let on = diagonal_count(batch, diagonal);
    let mut rows = diagonal_rows(on, rng);
    let kind = match segments {
        1 => RowKind::Boundary,
        _ => RowKind::OffDiagonal,
    };
    rows.extend(stratified(batch - on, rng).into_iter().map(|place| {
        let segment = ((place * segments as f64) as usize).min(segments - 1) as f64;
        let [from, to] = [segment, segment + 1.0].map(|end| end / segments as f64);
        TimeRow::span(kind, from, to)
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
        let rows = flow_map_rows(
            128,
            0.5,
            1.0 / 32.0,
            Midpoint::Half,
            &mut ChaCha8Rng::seed_from_u64(0),
        );
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
    fn segments_are_drawn_in_equal_shares() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let rows = segment_rows(40, 0.2, 4, &mut rng);
        assert!(rows[..8].iter().all(|row| row.kind == RowKind::Diagonal));
        for segment in 0..4 {
            let from = f64::from(segment) / 4.0;
            let here = rows[8..].iter().filter(|row| row.tau_s == from);
            assert!(here.clone().all(|row| row.tau_t == from + 0.25));
            assert_eq!(here.count(), 8);
        }
        let whole = segment_rows(3, 0.0, 1, &mut rng);
        assert!(
            whole
                .iter()
                .all(|row| row.kind == RowKind::Boundary && row.tau_t == 1.0)
        );
    }

    #[test]
    fn random_midpoints_are_uniform_between_the_ends_and_leave_the_ends_alone() {
        let rows = |midpoint| {
            let mut rng = ChaCha8Rng::seed_from_u64(2);
            flow_map_rows(20_000, 0.25, 0.1, midpoint, &mut rng)
        };
        let (half, random) = (rows(Midpoint::Half), rows(Midpoint::Random));
        let mut shares = Vec::new();
        for (half, random) in half.iter().zip(&random) {
            assert_eq!((half.tau_s, half.tau_t), (random.tau_s, random.tau_t));
            if random.kind == RowKind::Diagonal {
                assert_eq!(random.tau_u, random.tau_s);
            } else {
                shares.push((random.tau_u - random.tau_s) / (random.tau_t - random.tau_s));
            }
        }
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        let count = shares.len() as f64;
        let mean = shares.iter().sum::<f64>() / count;
        let spread = shares.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        // Five standard errors of a uniform mean, and of its variance of 1/12.
        assert!(
            (mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / count).sqrt(),
            "{mean}"
        );
        assert!(
            (spread - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0 / count).sqrt(),
            "{spread}"
        );
    }

    #[test]
    fn widths_are_uniform() {
        let rows = flow_map_rows(
            20_000,
            0.0,
            0.0,
            Midpoint::Half,
            &mut ChaCha8Rng::seed_from_u64(1),
        );
        let mean = rows.iter().map(|row| row.tau_t - row.tau_s).sum::<f64>() / rows.len() as f64;
        // Five standard errors of a uniform mean: false alarm about 6e-7.
        assert!(
            (mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / rows.len() as f64).sqrt(),
            "{mean}"
        );
    }
}
