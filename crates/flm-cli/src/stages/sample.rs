//! Drawing samples from a model.

mod residual;
mod tokens;
mod trace;

pub(crate) use trace::TracedSample;

use super::origin::Origin;
use super::purpose;
use crate::device::{self, Compute, Job, Place};
use crate::error::{CliError, Result};
use crate::files;
use crate::progress::Progress;
use crate::stop;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_data::{Layout, TextTokenizer};
use flm_denoiser::{Dit, DitConfig, Family, Precision, Prior, Residual, Sampling, folder};
use flm_simplex::stream::generator;
use flm_simplex::{Schedule, sampler};
use flm_train::Workers;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use trace::{Trace, TraceFile};

/// What to draw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) count: usize,
    pub(crate) steps: usize,
    pub(crate) gamma: f64,
    pub(crate) temperature: f64,
    pub(crate) seed: u64,
    /// Samples drawn together. It changes the speed and no sample.
    pub(crate) batch: usize,
    pub(crate) trace: bool,
    /// Tokens are drawn from among the likeliest that together have this chance; 1 for all.
    pub(crate) top_p: f64,
    /// Whether the last step takes the likeliest tokens.
    pub(crate) greedy_tail: bool,
}

impl Request {
    fn validate(&self) -> Result<()> {
        for (key, value) in [
            ("count", self.count),
            ("steps", self.steps),
            ("batch", self.batch),
        ] {
            if value == 0 {
                return Err(CliError::input(format!(
                    "the number of {key} must be at least 1, found 0",
                    key = match key {
                        "count" => "samples",
                        "batch" => "samples in a batch",
                        other => other,
                    }
                )));
            }
        }
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(sampler::SamplerError::Gamma { gamma: self.gamma }.into());
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(flm_denoiser::TemperatureError {
                found: self.temperature,
            }
            .into());
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return Err(CliError::input(format!(
                "top-p must lie between 0 and 1, found {}",
                self.top_p
            )));
        }
        Ok(())
    }
}

/// The numbers of steps to sample a model in: those that are asked for or, of one that writes token after token, one for each.
pub(crate) fn steps(model: &Path, asked: &[usize]) -> Result<Vec<usize>> {
    let config = folder::read_config(&files::model_folder(model)?)?;
    match (config.family, asked) {
        (Family::Autoregressive, []) => Ok(vec![config.length]),
        (Family::Autoregressive, _) => Err(CliError::input(format!(
            "{} is autoregressive and takes a step for each of its {} tokens: leave --steps out",
            model.display(),
            config.length
        ))),
        (_, []) => Err(CliError::input(format!(
            "{} is sampled in a number of steps: name it by --steps",
            model.display()
        ))),
        _ => Ok(asked.to_vec()),
    }
}

/// One sample with where it came from, as a line of a `.jsonl` file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) steps: usize,
    pub(crate) seed: u64,
    pub(crate) gamma: f64,
    pub(crate) temperature: f64,
    /// Chance of the tokens that were drawn from; left out where it is 1.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub(crate) top_p: f64,
    /// Whether the last step took the likeliest tokens; left out where it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) greedy_tail: bool,
    pub(crate) model: String,
    /// Of the model's weights: the beginning of their SHA-256.
    #[serde(default)]
    pub(crate) weights: String,
    /// What the network computed in.
    #[serde(default = "single")]
    pub(crate) dtype: String,
}

/// What networks computed in before samples said so.
pub(crate) fn single() -> String {
    "f32".to_owned()
}

/// A top-p that leaves no token out.
pub(crate) fn all() -> f64 {
    1.0
}

pub(crate) fn is_all(top_p: &f64) -> bool {
    *top_p == all()
}

/// The samples of one request.
pub(crate) struct Drawn {
    pub(crate) samples: Vec<Sample>,
    /// One for each sample, if it was asked for.
    pub(crate) traces: Vec<TracedSample>,
}

/// Draws the samples of several requests from one model and hands each set to `take` as soon as it is there.
pub(crate) fn sample(
    model: &Path,
    compute: Compute,
    label: &str,
    requests: &[Request],
    take: &mut dyn FnMut(&Request, Drawn) -> Result<()>,
) -> Result<()> {
    requests.iter().try_for_each(Request::validate)?;
    let folder = files::model_folder(model)?;
    let origin = Origin::read(&folder)?;
    let text = Text {
        tokenizer: origin.tokenizer(&folder)?,
        layout: origin.layout,
        model: model.display().to_string(),
        weights: weights(&folder)?,
    };
    device::run(
        compute,
        SampleJob {
            folder,
            text,
            label,
            requests,
            take,
        },
    )
}

/// What samples say about the weights they were drawn with: of both networks, where there are two.
pub(crate) fn weights(folder: &Path) -> Result<String> {
    let files = [folder.to_path_buf(), folder.join(folder::DENOISER_FOLDER)];
    let files = files.iter().map(|folder| folder.join(folder::TENSORS_FILE));
    let hashes = files
        .filter(|file| file.is_file())
        .map(|file| Ok(format!("{:.16}", files::hash(&file)?)));
    Ok(hashes.collect::<Result<Vec<_>>>()?.join("+"))
}

struct SampleJob<'a> {
    folder: PathBuf,
    text: Text,
    label: &'a str,
    requests: &'a [Request],
    take: &'a mut dyn FnMut(&Request, Drawn) -> Result<()>,
}

impl Job for SampleJob<'_> {
    type Output = ();

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<()> {
        let config = folder::read_config(&self.folder)?;
        let vocabulary = self.text.tokenizer.vocab_size();
        if config.vocab_size != vocabulary {
            return Err(CliError::input(format!(
                "the tokenizer in {} has {vocabulary} tokens, but its model has {}",
                self.folder.display(),
                config.vocab_size
            )));
        }
        for request in self.requests {
            tokens::check(request, &config, &self.text.model)?;
        }
        let network = if config.residual {
            self.requests
                .iter()
                .try_for_each(|request| residual::check(request, &self.text.model))?;
            let (model, _) = folder::load_residual(&self.folder, &place.device)?;
            Network::Residual(Box::new(model.with_execution(place.execution)))
        } else {
            let (model, _) = folder::load::<B::InnerBackend>(&self.folder, &place.device)?;
            let prior = Prior::new(model.embed());
            let model = Box::new(model.with_execution(place.execution));
            match config.family {
                Family::Flow => Network::One { model, prior },
                _ => Network::OfTokens(model),
            }
        };
        let source: Source<B::InnerBackend> = Source {
            schedule: config.schedule()?,
            network,
            config,
            dtype: place.execution.precision,
        };
        for request in self.requests {
            let drawn = source.draw(request, &self.text, self.label, place.side_by_side)?;
            (self.take)(request, drawn)?;
        }
        Ok(())
    }
}

/// How tokens become text.
struct Text {
    tokenizer: TextTokenizer,
    layout: Layout,
    model: String,
    weights: String,
}

impl Text {
    fn sample(&self, tokens: Vec<u32>, request: &Request, dtype: Precision) -> Result<Sample> {
        let text = text_of(&tokens, &self.tokenizer, self.layout)?;
        Ok(Sample {
            text,
            tokens,
            steps: request.steps,
            seed: request.seed,
            gamma: request.gamma,
            temperature: request.temperature,
            top_p: request.top_p,
            greedy_tail: request.greedy_tail,
            model: self.model.clone(),
            weights: self.weights.clone(),
            dtype: dtype.to_string(),
        })
    }
}

/// What a row of tokens says: of a packed block the frame of begin and end token goes, and documents inside it start new lines.
pub(crate) fn text_of(tokens: &[u32], tokenizer: &TextTokenizer, layout: Layout) -> Result<String> {
    if layout == Layout::Rows {
        return Ok(tokenizer.decode(tokens)?);
    }
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let tokens = tokens.strip_prefix(&[bos]).unwrap_or(tokens);
    let tokens = tokens.strip_suffix(&[eos]).unwrap_or(tokens);
    let documents = tokens
        .split(|&token| token == eos)
        .map(|document| tokenizer.decode_all(document));
    Ok(documents
        .collect::<std::result::Result<Vec<_>, _>>()?
        .join("\n"))
}

struct Source<B: Backend> {
    network: Network<B>,
    config: DitConfig,
    schedule: Schedule,
    dtype: Precision,
}

/// What samples are drawn with.
enum Network<B: Backend> {
    /// One network, on projected states.
    One { model: Box<Dit<B>>, prior: Prior<B> },
    /// Two networks, on states as wide as the vocabulary.
    Residual(Box<Residual<B>>),
    /// One network, on tokens.
    OfTokens(Box<Dit<B>>),
}

/// Tokens, row by row.
fn ids<B: Backend>(tokens: Tensor<B, 2, Int>) -> Vec<u32> {
    let ids = tokens.into_data();
    ids.iter::<i64>().map(|token| token as u32).collect()
}

/// The tokens of some samples, and how they came about.
struct Batch {
    tokens: Vec<Vec<u32>>,
    traces: Vec<TracedSample>,
}

impl<B: Backend> Source<B> {
    fn draw(
        &self,
        request: &Request,
        text: &Text,
        label: &str,
        side_by_side: usize,
    ) -> Result<Drawn> {
        let batches = request.count.div_ceil(request.batch);
        let steps = if request.steps == 1 {
            "1 step".to_owned()
        } else {
            format!("{} steps", request.steps)
        };
        let progress = Progress::new(label, request.count as u64);
        let done = AtomicU64::new(0);
        let workers = Workers::new(side_by_side.min(batches))?;
        let drawn = workers.map(batches, |batch| {
            if stop::asked() {
                return Err(CliError::interrupted(
                    "stopped before all samples were drawn",
                ));
            }
            let first = batch * request.batch;
            let last = request.count.min(first + request.batch);
            let drawn = self.batch(request, text, first..last)?;
            let done =
                done.fetch_add((last - first) as u64, Ordering::Relaxed) + (last - first) as u64;
            progress.update(done, &format!("sampling in {steps}"));
            Ok(drawn)
        });
        let mut all = Drawn {
            samples: Vec::with_capacity(request.count),
            traces: Vec::new(),
        };
        for batch in drawn {
            let batch = batch?;
            for tokens in batch.tokens {
                all.samples.push(text.sample(tokens, request, self.dtype)?);
            }
            all.traces.extend(batch.traces);
        }
        Ok(all)
    }

    /// The samples of these numbers.
    fn batch(
        &self,
        request: &Request,
        text: &Text,
        numbers: std::ops::Range<usize>,
    ) -> Result<Batch> {
        let mut trace = Trace::new(numbers.len());
        let tokens = match &self.network {
            Network::One { model, prior } => {
                ids(self.by_one(model, prior, request, text, numbers, &mut trace)?)
            }
            Network::Residual(model) => ids(self.by_two(model, request, numbers)?),
            Network::OfTokens(model) => self.by_tokens(model, request, numbers)?,
        };
        let tokens = tokens
            .chunks_exact(self.config.length)
            .map(<[u32]>::to_vec)
            .collect();
        Ok(Batch {
            tokens,
            traces: if request.trace {
                trace.finish()
            } else {
                Vec::new()
            },
        })
    }

    /// Tokens by one network, `[samples, length]`.
    fn by_one(
        &self,
        model: &Dit<B>,
        prior: &Prior<B>,
        request: &Request,
        text: &Text,
        numbers: std::ops::Range<usize>,
        trace: &mut Trace,
    ) -> Result<Tensor<B, 2, Int>> {
        // Projected noise, one generator for each sample: a sample does not depend on the ones drawn beside it.
        let noise = |purpose, jump| {
            let rows = numbers.clone().map(|number| {
                let mut rng = generator(request.seed, purpose, number as u64, jump);
                let noise = prior.draw(1, self.config.length, &mut rng);
                noise.seen(model.embed())
            });
            Tensor::cat(rows.collect(), 0)
        };
        let denoiser = Sampling::new(model).at_temperature(request.temperature)?;
        let start = noise(purpose::START, 0);
        let observe = |step: sampler::Step<'_, flm_denoiser::Belief<B>>| {
            if request.trace {
                trace.record(&step, &text.tokenizer, self.config.vocab_size);
            }
        };
        let belief = if self.config.two_time {
            let mut jump = 0;
            let fresh = || {
                jump += 1;
                noise(purpose::FRESH, jump)
            };
            sampler::flow_map(
                &denoiser,
                &self.schedule,
                start,
                request.steps,
                request.gamma,
                fresh,
                observe,
            )?
        } else {
            sampler::euler(&denoiser, &self.schedule, start, request.steps, observe)?
        };
        Ok(belief.argmax())
    }
}

/// The traces of what was drawn, as the content of a file.
pub(crate) fn trace_file(drawn: &Drawn) -> TraceFile<'_> {
    TraceFile::new(drawn.samples.iter().zip(&drawn.traces))
}

/// Samples as the lines of a file: JSON lines, or texts.
pub(crate) fn lines(samples: &[Sample], json: bool) -> Result<String> {
    let mut out = String::new();
    for sample in samples {
        if json {
            out.push_str(&serde_json::to_string(sample)?);
        } else {
            out.push_str(&sample.text);
            if sample.text.contains('\n') {
                // Texts of several lines are set apart by an empty one.
                out.push('\n');
            }
        }
        out.push('\n');
    }
    Ok(out)
}
