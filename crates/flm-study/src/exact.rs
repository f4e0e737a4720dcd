//! Flows and diffusion models with exact denoisers for a grammar's distribution.
//!
//! Nothing is trained here. States are as wide as the vocabulary, which is small for a grammar.
//! Exact denoisers compute on the host in double precision.

mod flow;
mod losses;
mod masked;
#[cfg(test)]
mod tests;
mod uniform;

pub use flow::{ExactFlow, NoisyRow};
pub use losses::{Loss, Nats, Rate, Readers, TIMES, Whose};
pub use uniform::ExactUniform;

use crate::{Error, Result, Watch, purpose};
use burn::tensor::backend::Backend;
use flm_denoiser::Family;
use flm_simplex::stream::generator;
use flm_train::Workers;
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws rows of tokens from the exact model of a family in `steps` steps.
///
/// # Errors
///
/// [`Error::Input`] if no sentence of the grammar fits a row, [`Error::Cancelled`] if `watch`
/// returns `false`.
pub fn samples<B: Backend>(
    flow: &ExactFlow<'_>,
    family: Family,
    steps: usize,
    (count, seed): (usize, u64),
    watch: Watch<'_>,
) -> Result<Vec<Vec<u32>>> {
    let rows = flow.rows;
    let unknown = rows.known(&vec![None; rows.length()]);
    let any = rows.given(&unknown).ok_or_else(|| {
        Error::Input(format!(
            "no sentence of the grammar fits into rows of {} tokens",
            rows.length()
        ))
    })?;
    let uniform = ExactUniform::of(flow);
    let label = format!("{} in {steps} steps", name(family));
    side_by_side(count, &label, watch, |index| {
        let mut rng = generator(seed, purpose::PERFECT, index as u64, 0);
        let row = match family {
            Family::Flow => flow.sample::<B, _>(steps, &mut rng),
            Family::Duo => uniform.sample(steps, &mut rng),
            _ => masked::sample(rows, &any, steps, &mut rng),
        };
        let tokens = flow.symbols.tokens();
        Ok(row.into_iter().map(|symbol| tokens[symbol]).collect())
    })
}

/// Returns the display name of an exact model.
pub fn name(family: Family) -> &'static str {
    match family {
        Family::Flow => "flow",
        Family::Duo => "uniform-state diffusion",
        _ => "masked diffusion",
    }
}

/// Computes `count` results in parallel on all cores.
fn side_by_side<T: Send>(
    count: usize,
    label: &str,
    watch: Watch<'_>,
    answer: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let done = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let answers = Workers::new(cores.min(count))?.map(count, |index| {
        if !watch(done.load(Ordering::Relaxed), label) {
            return Err(Error::Cancelled {
                work: "rows were finished",
            });
        }
        let answer = answer(index)?;
        watch(done.fetch_add(1, Ordering::Relaxed) + 1, label);
        Ok(answer)
    });
    answers.into_iter().collect()
}
