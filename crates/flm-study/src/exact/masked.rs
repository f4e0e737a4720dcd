//! Masked diffusion by exact marginals.

use flm_eval::{GrammarRows, Posterior};
use rand::{Rng, RngExt};

/// A row of symbols, drawn as `flm_discrete::mdlm` draws: in step k of N each mask token is filled with probability (α′ − α)/(1 − α) = 1/(N − k), since α is linear, by a
/// symbol from its own marginal given what was filled before.
///
/// What was drawn apart may go together in no sentence. Then the distribution says nothing, and what it says of `any` row stands in.
pub(super) fn sample<R: Rng + ?Sized>(
    rows: &GrammarRows<'_>,
    any: &Posterior<'_>,
    steps: usize,
    rng: &mut R,
) -> Vec<usize> {
    let mut row: Vec<Option<usize>> = vec![None; rows.length()];
    for step in 0..steps {
        let probability = 1.0 / (steps - step) as f64;
        let filled: Vec<usize> = (0..row.len())
            .filter(|&place| row[place].is_none() && rng.random::<f64>() < probability)
            .collect();
        if filled.is_empty() {
            continue;
        }
        let known = rows.known(&row);
        let distribution = rows.given(&known);
        let distribution = distribution.as_ref().unwrap_or(any);
        for place in filled {
            // One place of a row of its own: a draw from the marginal.
            row[place] = Some(distribution.draw(rng)[place]);
        }
    }
    row.into_iter().flatten().collect()
}

/// The rate of the bound at time `t` of a row of symbols, of which some become masked here.
pub(super) fn rate<R: Rng + ?Sized>(
    rows: &GrammarRows<'_>,
    row: &[usize],
    t: f64,
    rng: &mut R,
) -> f64 {
    let is_masked: Vec<bool> = row.iter().map(|_| rng.random::<f64>() < t).collect();
    rate_of(rows, row, &is_masked, t)
}

/// The rate of the bound at time `t`, above 0, of a row of symbols of which some are masked, in nats a place: cross-entropy of the masked tokens over t, as α = 1 − t.
pub(super) fn rate_of(rows: &GrammarRows<'_>, row: &[usize], is_masked: &[bool], t: f64) -> f64 {
    if !is_masked.contains(&true) {
        return 0.0;
    }
    let known = row.iter().zip(is_masked);
    let known: Vec<Option<usize>> = known
        .map(|(s, is_masked)| (!is_masked).then_some(*s))
        .collect();
    let distribution = rows.given(&rows.known(&known));
    let probabilities = distribution.expect("the row itself fits").marginals();
    let losses = (row
        .iter()
        .zip(probabilities.chunks(rows.symbols()))
        .zip(is_masked))
    .filter(|(_, is_masked)| **is_masked)
    .map(|((symbol, place), _)| -place[*symbol].ln());
    losses.sum::<f64>() / t / row.len() as f64
}
