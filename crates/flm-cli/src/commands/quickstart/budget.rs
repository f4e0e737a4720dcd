//! Choice of the numbers of steps for a time budget.

use crate::command_line::CommandLine;
use crate::commands::{distill, train};
use crate::config::Config;
use crate::device::Compute;
use crate::error::{CliError, Result};
use crate::files::RunFolder;
use crate::run::{Request, Start};
use flm::Card;
use std::path::Path;

/// Number of timed steps per stage.
const TIMED: u64 = 24;
/// Time of an evaluation in sampling, relative to a trained row, which is one forward and one
/// backward pass.
const SAMPLED: f64 = 1.0 / 3.0;

/// Returns an error unless `minutes` is positive and finite.
pub(super) fn check(minutes: f64) -> Result<()> {
    if minutes.is_finite() && minutes > 0.0 {
        return Ok(());
    }
    Err(CliError::input(format!(
        "--minutes must be positive and finite, found {minutes}"
    )))
}

/// Scales the steps of both stages so that they, and the sampling after them, take about `minutes`.
///
/// A few steps of each stage are timed in a temporary folder.
pub(super) fn fit(config: &mut Config, minutes: f64, data: &Path, compute: Compute) -> Result<()> {
    let place = std::env::temp_dir();
    let folder =
        tempfile::tempdir_in(&place).map_err(CliError::io("create a folder in", &place))?;
    let mut trial = config.clone();
    for training in [&mut trial.train, &mut trial.distill.train] {
        training.steps = TIMED;
        training.validate_every = 0;
        training.validation_rows = training.micro_batch;
        training.checkpoint_every = 0;
    }
    let flow = timed(
        &trial,
        data,
        &folder.path().join("flm"),
        compute,
        train::train,
    )?;
    trial.distill.teacher = folder.path().join("flm").display().to_string();
    let map = timed(
        &trial,
        data,
        &folder.path().join("fmlm"),
        compute,
        distill::distill,
    )?;
    let sample = &config.sample;
    let evaluations: usize = sample.flm_steps.iter().chain(&sample.fmlm_steps).sum();
    let sampling = (evaluations * sample.count) as f64 * SAMPLED * flow / config.train.batch as f64;
    [config.train.steps, config.distill.train.steps] = scaled(
        [config.train.steps, config.distill.train.steps],
        [flow, map],
        sampling,
        minutes,
    )?;
    Ok(())
}

/// Scales the steps of both stages by the same factor, so that at `seconds` per step they and the
/// sampling take `minutes`; at least one step each.
fn scaled(steps: [u64; 2], seconds: [f64; 2], sampling: f64, minutes: f64) -> Result<[u64; 2]> {
    let training: f64 = std::iter::zip(steps, seconds)
        .map(|(steps, seconds)| steps as f64 * seconds)
        .sum();
    let share = (minutes * 60.0 - sampling) / training;
    if share <= 0.0 {
        return Err(CliError::input(format!(
            "--minutes {minutes} leaves no time for training: sampling alone takes about {:.1}",
            sampling / 60.0
        )));
    }
    Ok(steps.map(|steps| (steps as f64 * share).round().max(1.0) as u64))
}

/// Returns the seconds per step.
fn timed(
    config: &Config,
    data: &Path,
    out: &Path,
    compute: Compute,
    train: impl Fn(Request<'_>) -> Result<Card>,
) -> Result<f64> {
    let card = train(Request {
        config: config.clone(),
        data,
        out: RunFolder::new(out),
        start: Start::Fresh,
        evaluations: None,
        compute,
        command: CommandLine::current(),
        silent: true,
    })?;
    Ok(card.training.unwrap_or_default().seconds / TIMED as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_fill_the_time_that_sampling_leaves() {
        // 100 · 2 s + 50 · 4 s are 400 s; sampling takes 200 s of the 10 minutes.
        assert_eq!(
            scaled([100, 50], [2.0, 4.0], 200.0, 10.0).unwrap(),
            [100, 50]
        );
        assert_eq!(
            scaled([100, 50], [2.0, 4.0], 200.0, 20.0).unwrap(),
            [250, 125]
        );
        assert_eq!(scaled([100, 50], [2.0, 4.0], 0.0, 0.01).unwrap(), [1, 1]);
        let message = scaled([100, 50], [2.0, 4.0], 90.0, 1.0)
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            "--minutes 1 leaves no time for training: sampling alone takes about 1.5"
        );
    }
}
