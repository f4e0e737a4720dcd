//! The `flm sample` command.

use super::print;
use crate::args::{DeviceArgs, GivenArgs, GuidesArgs, SamplerName};
use crate::device::{self, Compute, Job, Place};
use crate::error::{CliError, Result};
use crate::files;
use crate::progress::Progress;
use crate::stop;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use flm::{DenoisingStep, Guidance, ModelFolder, Observer, Record, SampleOptions, Trace};
use std::path::Path;
use std::path::PathBuf;

/// Draw samples from a model
///
/// A flow is sampled by Euler steps, a flow map by jumps, a masked (mdlm) or uniform-state (duo)
/// diffusion by ancestral steps, an autoregressive model token by token. Samples depend on the
/// seed, not on the batch size.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm sample --model quickstart/fmlm --steps 1 --count 10
  flm sample --model quickstart/flm --steps 16 --infill 'the ___ sold two ___ .'
  flm sample --model runs/duo --steps 16 --top-p 0.9 --greedy-tail")]
pub(crate) struct SampleArgs {
    /// A model folder or a finished run
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Network evaluations per sample, one number or several
    ///
    /// Several numbers write one file each to the folder --out. The default is 1 for a flow map, 32
    /// for a flow, 64 for a diffusion; an autoregressive model takes one per token.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub(crate) steps: Vec<usize>,
    #[command(flatten)]
    pub(crate) given: GivenArgs,
    /// Number of samples
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Noise added back after each jump of a flow map: 0 none, 1 all
    #[arg(long, default_value_t = 0.0, value_name = "G", hide_short_help = true)]
    pub(crate) gamma: f64,
    /// Softmax temperature; below 1 favours likely tokens
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Sampler of flows and flow maps
    #[arg(long, value_enum, default_value = "ode", value_name = "NAME")]
    pub(crate) sampler: SamplerName,
    /// Scale of the initial noise; below 1 text is likelier and less varied
    ///
    /// For flows and flow maps. In one step it takes the place of a temperature.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub(crate) noise_scale: f64,
    /// Nucleus sampling: keep the smallest set of tokens with total probability ≥ P
    #[arg(long, default_value_t = 1.0, value_name = "P", hide_short_help = true)]
    pub(crate) top_p: f64,
    /// Take the likeliest tokens in the last step (duo models)
    #[arg(long, hide_short_help = true)]
    pub(crate) greedy_tail: bool,
    /// Autoguidance scale (1 = off)
    ///
    /// For flows and flow maps. Costs one more evaluation per step.
    #[arg(long, value_name = "ETA")]
    pub(crate) guidance: Option<f64>,
    #[command(flatten)]
    pub(crate) guides: GuidesArgs,
    /// Step size along the reward's gradient [default: 0.3]
    #[arg(
        long,
        value_name = "LAMBDA",
        requires = "reward",
        hide_short_help = true
    )]
    pub(crate) reward_scale: Option<f64>,
    /// Batch size; affects speed only
    #[arg(long, default_value_t = 50, value_name = "N", hide_short_help = true)]
    pub(crate) batch: usize,
    /// Write the likeliest tokens of each position and step to a JSON file (flows and flow maps)
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) trace: Option<PathBuf>,
    /// Output: a .jsonl or text file, or a folder for several --steps [default: print]
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

pub(crate) fn run(args: &SampleArgs) -> Result<()> {
    let several = args.steps.len() > 1;
    if several {
        sample_folder(args)?;
    }
    for path in args
        .trace
        .iter()
        .chain(args.out.iter().filter(|_| !several))
    {
        files::free(path, args.force)?;
    }
    let place = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute)?.ok();
    if place(&args.out).is_some_and(|out| place(&args.trace) == Some(out)) {
        return Err(CliError::input(
            "--out and --trace name the same file: they need different files",
        ));
    }
    let model = ModelFolder::open(&args.model)?;
    let (etas, scales) = (args.guidance.as_slice(), args.reward_scale.as_slice());
    // There is at most one value of each, so exactly one guidance.
    let guidance = args.guides.guidances(&model, etas, scales)?.remove(0);
    let conditioning = args.given.conditioning()?;
    let request = |steps: Option<usize>| SampleOptions {
        steps,
        count: args.count,
        seed: args.seed,
        first: 0,
        batch: args.batch,
        temperature: args.temperature,
        top_p: args.top_p,
        gamma: args.gamma,
        sampler: args.sampler.into(),
        noise_scale: args.noise_scale,
        greedy_tail: args.greedy_tail,
        guidance: guidance.clone(),
        conditioning: conditioning.clone(),
    };
    let requests: Vec<_> = match args.steps.as_slice() {
        [] => {
            let steps = SampleOptions::default().steps_of(model.config(), model.name())?;
            eprintln!("steps      {steps} (the default for this {})", model.kind());
            vec![request(None)]
        }
        steps => steps.iter().map(|steps| request(Some(*steps))).collect(),
    };
    let config = model.config();
    let one = requests[0].steps_of(config, model.name())? == 1;
    if one && config.two_time && args.temperature != 1.0 && args.sampler == SamplerName::Ode {
        eprintln!(
            "warning: --temperature {} has no effect in one step of a flow map: use --noise-scale",
            args.temperature
        );
    }
    let mut take = |request: &SampleOptions, records: Vec<Record>| {
        let path = match (&args.out, request.steps) {
            (Some(folder), Some(steps)) if several => folder.join(steps_file(steps)),
            (Some(path), _) => path.clone(),
            (None, _) => return print(&texts(&records)),
        };
        let json = path
            .extension()
            .is_some_and(|extension| extension == "jsonl");
        let content = match json {
            true => flm::json_lines(&records),
            false => texts(&records),
        };
        files::write(&path, content.as_bytes())
    };
    sample(
        &model,
        args.device.into(),
        "samples",
        &requests,
        args.trace.as_deref(),
        &mut take,
    )
}

/// Returns the file name of the samples at one number of steps.
fn steps_file(steps: usize) -> String {
    format!("steps-{steps}.jsonl")
}

/// Checks that several sets of samples have an output folder.
fn sample_folder(args: &SampleArgs) -> Result<()> {
    let Some(folder) = &args.out else {
        return Err(CliError::input(
            "several numbers of steps give several sets of samples: pass a folder with --out",
        ));
    };
    if args.trace.is_some() {
        return Err(CliError::input(
            "--trace needs a single number of steps, found several",
        ));
    }
    let is_file_name =
        ["jsonl", "txt"].map(|extension| folder.extension() == Some(extension.as_ref()));
    if is_file_name.contains(&true) {
        return Err(CliError::input(format!(
            "{} names a file, but several --steps need a folder",
            folder.display()
        )));
    }
    if folder.is_file() {
        return Err(CliError::input(format!(
            "{} is a file, expected a folder for several sets of samples",
            folder.display()
        )));
    }
    for steps in &args.steps {
        files::free(&folder.join(steps_file(*steps)), args.force)?;
    }
    Ok(())
}

/// Draws the samples of several requests from one model, and passes each set to `take` once it is
/// complete.
pub(crate) fn sample(
    model: &ModelFolder,
    compute: Compute,
    label: &str,
    requests: &[SampleOptions],
    trace: Option<&Path>,
    take: &mut dyn FnMut(&SampleOptions, Vec<Record>) -> Result<()>,
) -> Result<()> {
    for request in requests {
        model.check(request)?;
    }
    if trace.is_some() && !Guidance::is_supported(model.config()) {
        return Err(CliError::input(format!(
            "{} is of kind {}: only a flow or a flow map of one network has a trace",
            model.name(),
            model.kind()
        )));
    }
    device::run(
        compute,
        SampleJob {
            model,
            label,
            requests,
            trace,
            take,
        },
    )
}

struct SampleJob<'a> {
    model: &'a ModelFolder,
    label: &'a str,
    requests: &'a [SampleOptions],
    trace: Option<&'a Path>,
    take: &'a mut dyn FnMut(&SampleOptions, Vec<Record>) -> Result<()>,
}

impl Job for SampleJob<'_> {
    type Output = ();

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<()> {
        let model = self.model.clone().load::<B::InnerBackend>(&place.device)?;
        let model = model.with_execution(place.execution);
        // All requests are checked before the first samples are drawn.
        for request in self.requests {
            model.check(request)?;
        }
        for request in self.requests {
            let watch = Watch {
                progress: Progress::new(self.label, request.total() as u64),
                steps: request.steps_of(model.config(), model.name())?,
                trace: self.trace.map(|_| Trace::new(model.tokenizer())),
            };
            let samples = model.sample_with(request, &watch)?;
            let records = samples
                .into_iter()
                .map(|sample| model.record(request, sample))
                .collect::<flm::Result<Vec<_>>>()?;
            if let (Some(path), Some(trace)) = (self.trace, watch.trace) {
                files::write(path, &serde_json::to_vec(&trace.into_file(&records))?)?;
            }
            (self.take)(request, records)?;
        }
        Ok(())
    }
}

/// Shows progress and records the trace.
struct Watch<'a> {
    progress: Progress,
    steps: usize,
    trace: Option<Trace<'a>>,
}

impl<B: Backend> Observer<B> for Watch<'_> {
    fn step(&self, step: &DenoisingStep<'_, B>) {
        if let Some(trace) = &self.trace {
            trace.step(step);
        }
    }

    fn progress(&self, done: usize, _total: usize) {
        let steps = match self.steps {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        let message = format!("sampling in {steps}");
        self.progress.update(done as u64, &message);
    }

    fn is_cancelled(&self) -> bool {
        stop::asked()
    }
}

/// Formats the texts of samples; with a numbered line before each if one has several lines.
pub(crate) fn texts(records: &[Record]) -> String {
    let are_numbered = records.len() > 1 && records.iter().any(|record| record.text.contains('\n'));
    let mut out = String::new();
    for (i, record) in records.iter().enumerate() {
        if are_numbered {
            out.push_str(&format!("── sample {} ──\n", i + 1));
        }
        out.push_str(&record.text);
        out.push('\n');
    }
    out
}
