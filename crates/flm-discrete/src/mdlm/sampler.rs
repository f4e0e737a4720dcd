//! The sampler of masked diffusion, from masked tokens to text.

use super::masked_positions;
use crate::schedule::{Level, LogLinear};
use crate::{Predict, Sampled, SamplingError, TokenSampling, Tokens};
use burn::tensor::backend::Backend;
use flm_denoiser::Dropout;
use rand::{Rng, RngExt};

/// Fills the mask tokens of `start` in `sampling.steps` ancestral steps; other tokens stay.
///
/// In a step from α to α′ each mask token is filled with probability (α′ − α)/(1 − α), with a token
/// drawn from the network's prediction. The last step fills all remaining ones. The choice of
/// positions does not depend on the network, so it is drawn first. With `cached`, texts without a
/// filled position in a step are not evaluated. Samples stay the same, because the network has no
/// time input.
///
/// # Errors
///
/// [`SamplingError`] if the settings are invalid.
///
/// # Panics
///
/// If the numbers of generators and texts differ. Each text has its own generator, so that it does
/// not depend on its batch.
pub fn sample<B: Backend, R: Rng>(
    model: &impl Predict<B>,
    start: Tokens,
    sampling: TokenSampling,
    cached: bool,
    rngs: &mut [R],
) -> Result<Sampled, SamplingError> {
    sampling.check()?;
    assert_eq!(start.rows(), rngs.len(), "one generator per text");
    let (mask_token, schedule) = (model.vocab_size(), LogLinear::default());
    let (mut tokens, mut evaluations) = (start, 0);
    for step in 0..sampling.steps {
        let time = |step| 1.0 - step as f64 / sampling.steps as f64;
        let level = schedule.level(time(step));
        let probability = if step + 1 == sampling.steps {
            1.0
        } else {
            (schedule.alpha(time(step + 1)) - level.alpha) / (1.0 - level.alpha)
        };
        let filled: Vec<usize> = masked_positions(&tokens, mask_token)
            .into_iter()
            .filter(|at| rngs[at / tokens.length()].random::<f64>() < probability)
            .collect();
        let rows = touched(&filled, &tokens, cached);
        if rows.is_empty() {
            continue;
        }
        evaluations += rows.len() as u64;
        fill(model, &mut tokens, &rows, &filled, level, sampling, rngs);
    }
    Ok(Sampled {
        tokens,
        evaluations,
    })
}

/// Returns the rows to evaluate: those of `positions` if `cached`, otherwise all.
fn touched(positions: &[usize], tokens: &Tokens, cached: bool) -> Vec<usize> {
    if !cached {
        return (0..tokens.rows()).collect();
    }
    let mut rows: Vec<usize> = positions.iter().map(|at| at / tokens.length()).collect();
    rows.dedup();
    rows
}

/// Draws tokens at `positions`, which lie in `rows`.
fn fill<B: Backend, R: Rng>(
    model: &impl Predict<B>,
    tokens: &mut Tokens,
    rows: &[usize],
    positions: &[usize],
    level: Level,
    sampling: TokenSampling,
    rngs: &mut [R],
) {
    let (length, seen) = (tokens.length(), tokens.select(rows).tensor(&model.device()));
    let levels = vec![level; rows.len()];
    let prediction = model.predict(seen, &levels, &mut Dropout::off());
    if positions.is_empty() {
        return;
    }
    let place = |at: &usize| {
        let row = rows.partition_point(|&row| row < at / length);
        row * length + at % length
    };
    let asked: Vec<usize> = positions.iter().map(place).collect();
    let uniform: Vec<f64> = positions
        .iter()
        .map(|at| rngs[at / length].random())
        .collect();
    let drawn = prediction
        .at(&asked)
        .distribution_at(sampling.temperature)
        .draw_by(sampling.nucleus, &uniform)
        .into_data();
    for (&at, id) in positions.iter().zip(drawn.iter::<i32>()) {
        tokens.ids_mut()[at] = id;
    }
}
