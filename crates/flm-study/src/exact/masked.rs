//! Masked diffusion with exact marginals.

use flm_eval::{GrammarRows, Posterior};
use rand::{Rng, RngExt};

/// Draws a row of symbols with the sampler of `flm_discrete::mdlm`.
///
/// In step k of N each mask token is filled with probability (α′ − α)/(1 − α) = 1/(N − k), since α
/// is linear. Its symbol is drawn from the marginal given the symbols filled before.
///
/// Symbols that were drawn independently may fit no sentence. The conditional distribution is then
/// undefined, and the unconditional one, `any`, replaces it.
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
            // One position of a separate draw of the row is a draw from the marginal.
            row[place] = Some(distribution.draw(rng)[place]);
        }
    }
    row.into_iter().flatten().collect()
}

/// Masks a row of symbols at random and returns the rate of the bound at time `t`.
pub(super) fn rate<R: Rng + ?Sized>(
    rows: &GrammarRows<'_>,
    row: &[usize],
    t: f64,
    rng: &mut R,
) -> f64 {
    let is_masked: Vec<bool> = row.iter().map(|_| rng.random::<f64>() < t).collect();
    rate_of(rows, row, &is_masked, t)
}

/// Returns the rate of the bound at time `t` > 0 for a partly masked row, in nats per position.
///
/// It is the cross-entropy of the masked tokens divided by t, as α = 1 − t.
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
