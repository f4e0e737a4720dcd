//! Training steps, checkpoints and model folders.

use super::{Bounds, VOCAB, WIDTH, line, network, objective};
use crate::fixture::relative_error;
use crate::parity::Line;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_data::{Dataset, FnCorpus, PrepareOptions, TokenizerSource};
use flm_denoiser::folder::{self, Existing};
use flm_denoiser::{Dit, DitConfig, Execution, Precision, named_tensors};
use flm_train::{Event, Line as Progress, OptimizerConfig, OptimizerKind, Run, TrainConfig};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prepares rows of words whose vocabulary has the size of the network's.
fn data(folder: &Path) -> Result<Dataset, String> {
    let corpus = FnCorpus::new("words in a circle", || {
        (0..400_usize).map(|row| {
            let words: Vec<String> = (0..14)
                .map(|i| format!("w{}", (row * 7 + i * (row % 5 + 1)) % (VOCAB - 3)))
                .collect();
            Ok(words.join(" "))
        })
    });
    let options = PrepareOptions::new(TokenizerSource::Words, 16);
    let out = folder.join("data");
    flm_data::prepare(&corpus, &options, &out, false, &mut |_| {
        ControlFlow::Continue(())
    })
    .and_then(|_| Dataset::open(&out))
    .map_err(|error| error.to_string())
}

/// The loss of each step, and the final parameters.
struct Trained {
    losses: Vec<f64>,
    parameters: Vec<f32>,
}

fn train<B: AutodiffBackend>(
    data: &Dataset,
    checkpoints: &Path,
    precision: Precision,
    (resume, stop_after): (bool, Option<u64>),
) -> Result<Trained, String> {
    let mut losses = Vec::new();
    let model = run::<B>(data, checkpoints, precision, resume, (8, 1), &mut |line| {
        losses.push(line.loss);
        stop_after == Some(line.step)
    })?;
    Ok(Trained {
        losses,
        parameters: parameters(&model),
    })
}

/// Trains for `steps` steps, or until `heard` returns true. It is called every `log_every` steps.
fn run<B: AutodiffBackend>(
    data: &Dataset,
    checkpoints: &Path,
    precision: Precision,
    resume: bool,
    (steps, log_every): (u64, u64),
    heard: &mut dyn FnMut(&Progress) -> bool,
) -> Result<Dit<B::InnerBackend>, String> {
    let stop = AtomicBool::new(false);
    let config = TrainConfig {
        steps,
        batch: 8,
        micro_batch: 4,
        log_every,
        checkpoint_every: 0,
        validate_every: 0,
        // Uses both optimizers: Muon for matrices, AdamW for the rest.
        optimizer: OptimizerConfig {
            kind: OptimizerKind::Muon,
            warmup: 0,
            ..Default::default()
        },
        ..Default::default()
    };
    let run = Run {
        model: network::<B>().with_execution(Execution {
            precision,
            ..Default::default()
        }),
        objective: objective(),
        train: data.train(),
        validation: data.validation(),
        data: String::new(),
        config,
        dropout: 0.1,
        workers: 1,
        checkpoints: Some(checkpoints.to_owned()),
        resume,
        stop: Some(&stop),
        device: Default::default(),
    };
    let outcome = run
        .start()
        .and_then(|run| {
            run.train(&mut |event| {
                if let Event::Step(line) = event
                    && heard(&line)
                {
                    stop.store(true, Ordering::Relaxed);
                }
            })
        })
        .map_err(|error| error.to_string())?;
    Ok(outcome.ema)
}

/// Memory use in MiB during a training run.
#[derive(Clone, Debug)]
pub struct Soak {
    /// Pairs of steps done and memory in use.
    pub samples: Vec<(u64, f64)>,
}

impl Soak {
    /// The minimum number of steps for a meaningful measurement.
    pub const FEWEST: u64 = 20;
    /// The allowed fluctuation in MiB. A leak of one embedding gradient per step is 14 MiB after
    /// half of 300 steps.
    const ALLOWED: f64 = 8.0;

    /// Returns the growth in MiB from the middle to the end of the run.
    ///
    /// Pools and caches are filled long before the middle.
    pub fn growth(&self) -> f64 {
        let samples = &self.samples;
        samples[samples.len() - 1].1 - samples[(samples.len() - 1) / 2].1
    }

    /// Returns whether the growth is within the allowed fluctuation.
    pub fn holds(&self) -> bool {
        self.growth() <= Self::ALLOWED
    }
}

/// Trains a small flow for `steps` steps and measures memory use at most twenty times.
///
/// # Errors
///
/// A message if there are too few steps, training fails, or `memory` returns `None`.
pub fn soak<B: AutodiffBackend>(
    steps: u64,
    mut memory: impl FnMut() -> Option<f64>,
) -> Result<Soak, String> {
    if steps < Soak::FEWEST {
        return Err(format!(
            "memory measurement needs at least {} steps, found {steps}",
            Soak::FEWEST
        ));
    }
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (data, checkpoints) = (data(home.path())?, home.path().join("soak"));
    let mut samples = Some(Vec::new());
    let often = steps.div_ceil(20);
    run::<B>(
        &data,
        &checkpoints,
        Precision::F32,
        false,
        (steps, often),
        &mut |line| {
            match (memory(), &mut samples) {
                (Some(taken), Some(samples)) => samples.push((line.step, taken)),
                _ => samples = None,
            }
            samples.is_none()
        },
    )?;
    let samples = samples.ok_or("this system does not report how much memory is used")?;
    Ok(Soak { samples })
}

fn parameters<B: burn::tensor::backend::Backend>(model: &Dit<B>) -> Vec<f32> {
    named_tensors(model)
        .into_iter()
        .flat_map(|tensor| tensor.values)
        .collect()
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

pub(super) fn lines<B: AutodiffBackend>(
    bounds: &Bounds,
    lines: &mut Vec<Line>,
) -> Result<(), String> {
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let data = data(home.path())?;
    if data.tokenizer().vocab_size() != VOCAB {
        return Err(format!(
            "expected a vocabulary of {VOCAB}, found {}",
            data.tokenizer().vocab_size()
        ));
    }
    let folder = |name: &str| home.path().join(name);
    let here = train::<B>(&data, &folder("here"), Precision::F32, (false, None))?;
    // The noise differs from the CPU's, so losses agree as those of two seeds do.
    let cpu = train::<burn::backend::Autodiff<Flex>>(
        &data,
        &folder("cpu"),
        Precision::F32,
        (false, None),
    )?;
    let error = (mean(&here.losses) / mean(&cpu.losses) - 1.0).abs();
    line(
        lines,
        "f32: mean loss of eight steps, against the CPU",
        error,
        0.1,
    );
    let again = train::<B>(&data, &folder("again"), Precision::F32, (false, None))?;
    let error = relative_error(&again.parameters, &here.parameters);
    line(
        lines,
        "f32: the same run repeated",
        error,
        0.1 * bounds.half_operation,
    );
    if bounds.precisions.contains(&Precision::Bf16) {
        let half = train::<B>(&data, &folder("half"), Precision::Bf16, (false, None))?;
        let error = (mean(&half.losses) / mean(&here.losses) - 1.0).abs();
        line(
            lines,
            "bf16: mean loss of eight steps, against f32",
            error,
            bounds.half_operation,
        );
    }
    let broken = train::<B>(&data, &folder("broken"), Precision::F32, (false, Some(3)))?;
    let resumed = train::<B>(&data, &folder("broken"), Precision::F32, (true, None))?;
    if (broken.losses.len(), resumed.losses.len()) != (3, 5) {
        return Err(format!(
            "expected a run of 8 steps to stop after 3 and to resume for 5, found {} and {}",
            broken.losses.len(),
            resumed.losses.len()
        ));
    }
    let error = relative_error(&resumed.parameters, &here.parameters);
    line(
        lines,
        "f32: a run stopped and resumed",
        error,
        0.1 * bounds.half_operation,
    );
    let model = network::<B>().valid();
    let config = DitConfig {
        cond_dim: 32,
        ..DitConfig::new(VOCAB, 16, WIDTH, 2, 4)
    };
    let place = folder("model");
    folder::save(&place, &model, &config, &[], Existing::Refuse).map_err(|e| e.to_string())?;
    let (loaded, _) =
        folder::load::<Flex>(&place, &Default::default()).map_err(|error| error.to_string())?;
    let same = parameters(&loaded) == parameters(&model);
    let error = if same { 0.0 } else { 1.0 };
    line(
        lines,
        "a model saved here and loaded on the CPU",
        error,
        0.0,
    );
    Ok(())
}
