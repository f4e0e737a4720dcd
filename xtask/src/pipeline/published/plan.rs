//! The cost of an experiment, before it runs.

use super::{Experiment, SAMPLES, STEPS};
use serde::Deserialize;

/// The settings of a preset that decide its cost.
#[derive(Deserialize)]
pub(super) struct Preset {
    model: Model,
    train: Option<Training>,
    distill: Option<Distill>,
}

#[derive(Deserialize)]
struct Distill {
    train: Training,
}

#[derive(Deserialize)]
struct Model {
    width: u64,
    blocks: u64,
    cond_dim: u64,
}

#[derive(Deserialize)]
struct Training {
    steps: u64,
    batch: u64,
    micro_batch: u64,
}

/// Network evaluations per row of the flow's training: a forward pass, and a backward pass at twice the cost.
const FLOW: f64 = 3.0;
/// Network evaluations per row of the semigroup objective: on the diagonal one more of the teacher,
/// off the diagonal two more of the student, in equal shares.
const SEMIGROUP: f64 = 4.5;
/// f32 values per parameter: itself, its gradient, two moments, its average.
const PER_PARAMETER: f64 = 5.0;
/// f32 values that a block keeps per token and width until the backward pass, about sixteen; attention
/// scores are recomputed.
const PER_BLOCK: f64 = 16.0;

/// The plan in text.
pub(super) fn render(experiment: &Experiment, flow: &Preset, map: &Preset) -> String {
    let tokens =
        |training: &Training| (training.steps * training.batch) as f64 * experiment.length as f64;
    let mut out = format!(
        "\ntext        about {:.0} million tokens, a vocabulary of {}\n",
        experiment.million_tokens, experiment.vocabulary
    );
    let parts = [
        ("flow", flow, flow.train.as_ref(), FLOW, 1.0),
        (
            "flow map",
            map,
            map.distill.as_ref().map(|distill| &distill.train),
            SEMIGROUP,
            2.0,
        ),
    ];
    for (label, preset, training, per_row, networks) in parts {
        let Some(training) = training else {
            continue;
        };
        let parameters = parameters(&preset.model, experiment.vocabulary as f64);
        let rows = (training.steps * training.batch) as f64;
        let operations = operations(preset, parameters, experiment);
        let seen = tokens(training);
        let held = parameters * (PER_PARAMETER + networks - 1.0)
            + (training.micro_batch * preset.model.width) as f64
                * experiment.length as f64
                * (preset.model.blocks as f64 * PER_BLOCK);
        out += &format!(
            "{label:12}{:.0} million parameters, {} steps of {}: {:.1} billion tokens, {:.1} times the text, {:.2e} evaluations of a row, {:.1e} floating point operations; about {:.0} GiB in passes of {}\n",
            parameters / 1e6,
            training.steps,
            training.batch,
            seen / 1e9,
            seen / (experiment.million_tokens * 1e6),
            rows * per_row,
            rows * per_row * operations,
            4.0 * held / f64::from(1 << 30),
            training.micro_batch,
        );
    }
    let evaluations = (2 * STEPS.iter().sum::<usize>() * SAMPLES) as f64;
    out += &format!("samples     {evaluations:.1e} evaluations of a row, of flow and flow map\n");
    out
}

/// Floating point operations per evaluation of a row: two per parameter and token, without the embedding
/// table, and four per pair of positions, width and block for attention.
fn operations(preset: &Preset, parameters: f64, experiment: &Experiment) -> f64 {
    let (width, length) = (preset.model.width as f64, experiment.length as f64);
    let multiplied = parameters - experiment.vocabulary as f64 * width;
    length * (2.0 * multiplied + 4.0 * length * width * preset.model.blocks as f64)
}

/// Number of parameters.
fn parameters(model: &Model, vocabulary: f64) -> f64 {
    let (width, blocks, cond) = (
        model.width as f64,
        model.blocks as f64,
        model.cond_dim as f64,
    );
    // Four matrices of attention, two of the MLP of four times the width, and six modulations.
    let block = 12.0 * width * width + 6.0 * cond * width + 15.0 * width;
    blocks * block + 2.0 * vocabulary * width + vocabulary + 3.0 * cond * width + 257.0 * cond
}
