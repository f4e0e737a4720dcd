//! The `flm watch` command.

mod screen;

use super::print;
use crate::args::{DeviceArgs, GivenArgs, SamplerName};
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::stop;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use flm::{DenoisingStep, Frame, Guidance, Model, ModelFolder, Observer, SampleOptions};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Watch a flow or a flow map write, step by step
///
/// Certain tokens are bright, uncertain ones faint. Keys: space plays, ← and → step, n draws other
/// noise, q quits. Without a terminal each step is a line.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm watch quickstart/flm --steps 8
  flm watch quickstart/flm --steps 16 --infill 'the ___ sold two ___ .'")]
pub(crate) struct WatchArgs {
    /// A model folder or a finished run
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Network evaluations per sample [default: 1 for a flow map, 32 for a flow]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    #[command(flatten)]
    given: GivenArgs,
    /// Number of samples
    #[arg(long, default_value_t = 4, value_name = "N")]
    count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Softmax temperature; below 1 favours likely tokens
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    temperature: f64,
    /// Sampler
    #[arg(long, value_enum, default_value = "ode", value_name = "NAME")]
    sampler: SamplerName,
    /// Scale of the initial noise; below 1 text is likelier and less varied
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    noise_scale: f64,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &WatchArgs) -> Result<()> {
    let model = ModelFolder::open(&args.model)?;
    if !Guidance::is_supported(model.config()) {
        return Err(CliError::input(format!(
            "{} is of kind {}: only a flow or a flow map of one network can be watched",
            model.name(),
            model.kind()
        )));
    }
    let options = SampleOptions {
        steps: args.steps,
        count: args.count,
        seed: args.seed,
        temperature: args.temperature,
        sampler: args.sampler.into(),
        noise_scale: args.noise_scale,
        conditioning: args.given.conditioning()?,
        ..SampleOptions::default()
    };
    model.check(&options)?;
    device::run(args.device, WatchJob { model, options })
}

/// The frames of all samples, and the final texts.
#[derive(Debug, Default)]
struct Film {
    samples: Vec<Vec<Frame>>,
    texts: Vec<String>,
}

impl Film {
    /// Steps that every sample has reached.
    fn steps(&self) -> usize {
        self.samples.iter().map(Vec::len).min().unwrap_or(0)
    }
}

/// Collects frames while samples are drawn.
struct Camera<'a> {
    tokenizer: &'a flm::TextTokenizer,
    film: &'a Mutex<Film>,
    stop: &'a AtomicBool,
}

impl<B: Backend> Observer<B> for Camera<'_> {
    fn step(&self, step: &DenoisingStep<'_, B>) {
        let frames = Frame::of(step, self.tokenizer, 1);
        let mut film = lock(self.film);
        for (i, frame) in step.samples.clone().zip(frames) {
            film.samples[i].push(frame);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct WatchJob {
    model: ModelFolder,
    options: SampleOptions,
}

impl Job for WatchJob {
    type Output = ();

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<()> {
        let model = self.model.load::<B::InnerBackend>(&place.device)?;
        let model = model.with_execution(place.execution);
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if !terminal {
            let film = Mutex::default();
            shoot(&model, &self.options, &film, stop::flag())?;
            return print(&lines(&lock(&film), &model));
        }
        let mut options = self.options;
        while screen::show(&model, &options)? == screen::Next::Noise {
            options.seed = options.seed.wrapping_add(1);
        }
        Ok(())
    }
}

/// Draws the samples and records their frames.
fn shoot<B: Backend>(
    model: &Model<B>,
    options: &SampleOptions,
    film: &Mutex<Film>,
    stop: &AtomicBool,
) -> flm::Result<()> {
    lock(film).samples = vec![Vec::new(); options.total()];
    let tokenizer = model.tokenizer();
    let camera = Camera {
        tokenizer,
        film,
        stop,
    };
    let samples = model.sample_with(options, &camera)?;
    lock(film).texts = samples.into_iter().map(|sample| sample.text).collect();
    Ok(())
}

/// Each step as a line per sample, and the texts.
fn lines<B: Backend>(film: &Film, model: &Model<B>) -> String {
    let mut out = String::new();
    for step in 0..film.steps() {
        out += &format!("τ = {:.2}\n", film.samples[0][step].tau);
        for sample in &film.samples {
            let ids: Vec<u32> = sample[step]
                .positions
                .iter()
                .map(|likely| likely[0].id)
                .collect();
            let text = model.decode(&ids).unwrap_or_default();
            out += &format!("  {}\n", text.replace('\n', " ⏎ "));
        }
    }
    out += "text\n";
    for text in &film.texts {
        out += &format!("  {}\n", text.replace('\n', " ⏎ "));
    }
    out
}
