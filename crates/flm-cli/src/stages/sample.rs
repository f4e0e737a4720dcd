//! Drawing samples from a model.

mod given;
mod guidance;
mod guides;
mod residual;
mod tokens;
mod trace;

pub(crate) use given::{Given, Infill};
pub(crate) use guidance::{Guidance, Typed, is_guided};
pub(crate) use trace::TracedSample;

use super::origin::Origin;
use super::purpose;
use crate::device::{self, Compute, Job, Place};
use crate::error::{CliError, Result};
use crate::files;
use crate::progress::Progress;
use crate::stop;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor};
use flm_data::{Layout, TextTokenizer};
use flm_denoiser::{
    Belief, Dit, DitConfig, Family, Precision, Prior, Residual, Sampling, TemperatureError,
    VocabEmbed, folder,
};
use flm_discrete::Tokens;
use flm_simplex::guidance::{Guided, Steered};
use flm_simplex::sampler::Renewal;
use flm_simplex::stream::generator;
use flm_simplex::{Denoiser, Pinned, Schedule, sampler};
use flm_train::Workers;
use given::{Condition, Frame, Held, Known};
use guides::{Guides, Read, Strong};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use trace::{Trace, TraceFile};

/// How a flow or a flow map goes from noise to text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sampler {
    /// Euler steps of a flow, jumps of a flow map
    #[default]
    Ode,
    /// Draw clean tokens at each step, then follow the Gaussian bridge towards them
    Bridge,
    /// The bridge towards the mean of the tokens
    BridgeMean,
    /// Draw clean tokens at each step, then replace all noise
    Renoise,
}

impl Sampler {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What to draw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) count: usize,
    pub(crate) steps: usize,
    pub(crate) gamma: f64,
    pub(crate) temperature: f64,
    /// Of flows and flow maps.
    pub(crate) sampler: Sampler,
    /// The standard deviation of the noise that a flow or a flow map starts from.
    pub(crate) noise_scale: f64,
    pub(crate) seed: u64,
    /// Samples drawn together. It changes the speed and no sample.
    pub(crate) batch: usize,
    pub(crate) trace: bool,
    /// Tokens are drawn from among the likeliest that together have this chance, or a flow's belief is theirs; 1 for all.
    pub(crate) top_p: f64,
    /// Whether the last step takes the likeliest tokens.
    pub(crate) greedy_tail: bool,
    /// What guides a flow.
    pub(crate) guidance: Guidance,
    /// What of the samples is known; of several texts, `count` samples of each.
    pub(crate) given: Given,
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
        check_gamma(self.gamma)?;
        TemperatureError::check(self.temperature)?;
        check_noise_scale("--noise-scale", self.noise_scale)?;
        if !(0.0..=1.0).contains(&self.top_p) {
            return Err(CliError::input(format!(
                "top-p must lie between 0 and 1, found {}",
                self.top_p
            )));
        }
        Ok(())
    }
}

fn check_gamma(gamma: f64) -> Result<()> {
    if (0.0..=1.0).contains(&gamma) {
        return Ok(());
    }
    Err(sampler::SamplerError::Gamma { gamma }.into())
}

/// Refuses a scale of noise that is none.
pub(crate) fn check_noise_scale(key: &str, found: f64) -> Result<()> {
    if found.is_finite() && found > 0.0 {
        return Ok(());
    }
    Err(CliError::input(format!(
        "{key} must be positive and finite, found {found}"
    )))
}

/// Refuses values of gamma that are none, and one above 0 where no network is a flow map's.
pub(crate) fn check_gammas<'a>(
    gammas: &[f64],
    mut networks: impl Iterator<Item = &'a DitConfig>,
) -> Result<()> {
    gammas.iter().copied().try_for_each(check_gamma)?;
    match gammas.iter().find(|gamma| **gamma > 0.0) {
        Some(gamma) if !networks.any(|network| network.two_time) => Err(CliError::input(format!(
            "--gamma {gamma} is of flow maps, and no model here is one"
        ))),
        _ => Ok(()),
    }
}

impl Request {
    /// A network at the temperature and within the nucleus that are asked for.
    fn sharpen<'a, B: Backend>(&self, network: Sampling<'a, B>) -> Result<Sampling<'a, B>> {
        let network = network.at_temperature(self.temperature)?;
        Ok(network.within_nucleus(self.top_p))
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
    #[serde(default, skip_serializing_if = "Sampler::is_default")]
    pub(crate) sampler: Sampler,
    /// Of the noise at the start; left out where it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) noise_scale: f64,
    /// Chance of the tokens that were drawn from; left out where it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) top_p: f64,
    /// Whether the last step took the likeliest tokens; left out where it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) greedy_tail: bool,
    /// What guided it, and the evaluations that it took then; left out where nothing did.
    #[serde(default, skip_serializing_if = "Guidance::is_none")]
    pub(crate) guidance: Guidance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evaluations: Option<usize>,
    pub(crate) model: String,
    /// Of the model's weights: the beginning of their SHA-256.
    #[serde(default)]
    pub(crate) weights: String,
    /// What the network computed in.
    #[serde(default = "single")]
    pub(crate) dtype: String,
    /// What was given of it; left out where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<Condition>,
}

/// What networks computed in before samples said so.
pub(crate) fn single() -> String {
    "f32".to_owned()
}

/// A setting that changes nothing: all tokens, all noise.
pub(crate) fn one() -> f64 {
    1.0
}

pub(crate) fn is_one(value: &f64) -> bool {
    *value == one()
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
            let (given, model) = (&request.given, &self.text.model);
            request.guidance.check(&config, given, model)?;
        }
        let frame = Frame {
            tokenizer: &self.text.tokenizer,
            layout: self.text.layout,
            length: config.length,
        };
        let known = self.requests.iter();
        let known = known.map(|request| request.given.known(&frame));
        let known = known.collect::<Result<Vec<_>>>()?;
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
        // All of them before the first samples are drawn, as what they need may not be there.
        let mut read = Read::new();
        let guides = |request: &Request| {
            let Network::One { model, .. } = &source.network else {
                return Ok(Guides::none());
            };
            let strong = Strong {
                model,
                config: &source.config,
                tokenizer: &self.text.tokenizer,
                name: &self.text.model,
                device: &place.device,
            };
            Guides::load(
                &request.guidance,
                request.temperature,
                &strong,
                place,
                &mut read,
            )
        };
        let guides = self
            .requests
            .iter()
            .map(guides)
            .collect::<Result<Vec<_>>>()?;
        for ((request, known), guides) in self.requests.iter().zip(&known).zip(&guides) {
            let (text, by) = (&self.text, (known.as_slice(), guides));
            let drawn = source.draw(request, by, text, self.label, place.side_by_side)?;
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
    fn sample(
        &self,
        tokens: Vec<u32>,
        request: &Request,
        known: Option<&Known>,
        dtype: Precision,
    ) -> Result<Sample> {
        let text = text_of(&tokens, &self.tokenizer, self.layout)?;
        Ok(Sample {
            text,
            tokens,
            steps: request.steps,
            seed: request.seed,
            gamma: request.gamma,
            temperature: request.temperature,
            sampler: request.sampler,
            noise_scale: request.noise_scale,
            top_p: request.top_p,
            greedy_tail: request.greedy_tail,
            guidance: request.guidance.clone(),
            evaluations: (!request.guidance.is_none())
                .then(|| request.guidance.evaluations(request.steps)),
            model: self.model.clone(),
            weights: self.weights.clone(),
            dtype: dtype.to_string(),
            condition: known.map(|known| known.condition.clone()),
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

/// The tokens of some samples, and how they came about.
struct Batch {
    tokens: Vec<Vec<u32>>,
    traces: Vec<TracedSample>,
}

impl<B: Backend> Source<B> {
    /// All samples of a request: of each text of which something is known, or of none.
    fn draw(
        &self,
        request: &Request,
        (known, guides): (&[Known], &Guides<B>),
        text: &Text,
        label: &str,
        side_by_side: usize,
    ) -> Result<Drawn> {
        let count = request.count * known.len().max(1);
        let batches = count.div_ceil(request.batch);
        let steps = if request.steps == 1 {
            "1 step".to_owned()
        } else {
            format!("{} steps", request.steps)
        };
        let progress = Progress::new(label, count as u64);
        let done = AtomicU64::new(0);
        let workers = Workers::new(side_by_side.min(batches))?;
        let drawn = workers.map(batches, |batch| {
            if stop::asked() {
                return Err(CliError::interrupted(
                    "stopped before all samples were drawn",
                ));
            }
            let first = batch * request.batch;
            let last = count.min(first + request.batch);
            let held = Held::of(known, request.count, first..last);
            let drawn = self.batch(request, (held.as_ref(), guides), text, first..last)?;
            let done =
                done.fetch_add((last - first) as u64, Ordering::Relaxed) + (last - first) as u64;
            progress.update(done, &format!("sampling in {steps}"));
            Ok(drawn)
        });
        let mut all = Drawn {
            samples: Vec::with_capacity(count),
            traces: Vec::new(),
        };
        for batch in drawn {
            let batch = batch?;
            for tokens in batch.tokens {
                let known = known.get(all.samples.len() / request.count);
                let sample = text.sample(tokens, request, known, self.dtype)?;
                all.samples.push(sample);
            }
            all.traces.extend(batch.traces);
        }
        Ok(all)
    }

    /// The samples of these numbers.
    fn batch(
        &self,
        request: &Request,
        (held, guides): (Option<&Held>, &Guides<B>),
        text: &Text,
        numbers: std::ops::Range<usize>,
    ) -> Result<Batch> {
        let mut trace = Trace::new(numbers.len());
        let mut tokens = match &self.network {
            Network::One { model, prior } => {
                let observe = |step: sampler::Step<'_, Belief<B>>| {
                    if request.trace {
                        trace.record(&step, &text.tokenizer, self.config.vocab_size);
                    }
                };
                let by = (&**model, prior, guides);
                Tokens::of(self.by_one(by, request, held, numbers, observe)?)
            }
            Network::Residual(model) => Tokens::of(self.by_two(model, request, numbers)?),
            Network::OfTokens(model) => self.by_tokens(model, request, held, numbers)?,
        };
        if let Some(held) = held {
            held.write(&mut tokens);
        }
        let row = |row| tokens.row(row).iter().map(|&id| id as u32).collect();
        let tokens = (0..tokens.rows()).map(row).collect();
        Ok(Batch {
            tokens,
            traces: if request.trace {
                trace.finish()
            } else {
                Vec::new()
            },
        })
    }

    /// Tokens by one network, and what guides it, `[samples, length]`.
    fn by_one(
        &self,
        (model, prior, guides): (&Dit<B>, &Prior<B>, &Guides<B>),
        request: &Request,
        held: Option<&Held>,
        numbers: std::ops::Range<usize>,
        observe: impl FnMut(sampler::Step<'_, Belief<B>>),
    ) -> Result<Tensor<B, 2, Int>> {
        // Projected noise, one generator for each sample: a sample does not depend on the ones drawn beside it.
        let noise = |purpose, jump| {
            let rows = numbers.clone().map(|number| {
                let mut rng = generator(request.seed, purpose, number as u64, jump);
                guides.noise(model, prior, self.config.length, &mut rng)
            });
            Tensor::cat(rows.collect(), 0)
        };
        let (mut strong, weak) = guides.networks(model, request.seed, numbers.start);
        let mut pins = None;
        if let Some(held) = held {
            let device = model.embed().embedding.device();
            let (known, tokens) = (held.mask(&device), held.tokens.tensor(&device));
            if self.config.conditioning {
                // What would guide it is refused before.
                strong = strong.knowing(known, tokens);
            } else {
                let clean = guides.states(model).tokens(tokens);
                pins = Some(Pins { known, clean });
            }
        }
        let (strong, by) = (request.sharpen(strong)?, guides.steer());
        let drawn = Drawing {
            noise,
            states: guides.states(model),
            numbers: numbers.clone(),
        };
        let belief = match weak {
            None => {
                let denoiser = strong;
                self.carry(&Steered { denoiser, by }, pins, request, drawn, observe)
            }
            Some((eta, weak)) => {
                let weak = request.sharpen(weak)?;
                let denoiser = Guided { strong, weak, eta };
                self.carry(&Steered { denoiser, by }, pins, request, drawn, observe)
            }
        }?;
        request.guidance.check_finite(&belief)?;
        Ok(belief.argmax())
    }

    /// The last belief of the sampler, around what is held.
    fn carry<D: Denoiser<B, Belief = Belief<B>>>(
        &self,
        denoiser: &D,
        pins: Option<Pins<B>>,
        request: &Request,
        drawn: Drawing<'_, B, impl Fn(u64, u64) -> Tensor<B, 3>>,
        observe: impl FnMut(sampler::Step<'_, Belief<B>>),
    ) -> Result<Belief<B>> {
        let start = (drawn.noise)(purpose::START, 0).mul_scalar(request.noise_scale);
        let Some(Pins { known, clean }) = pins else {
            return self.follow(denoiser, start, request, drawn, observe);
        };
        let pinned = Pinned::new(denoiser, &self.schedule, known, start.clone(), clean);
        self.follow(&pinned, start, request, drawn, observe)
    }

    /// From noise to a belief about tokens, by the sampler that is asked for.
    fn follow<D: Denoiser<B, Belief = Belief<B>>>(
        &self,
        denoiser: &D,
        start: Tensor<B, 3>,
        request: &Request,
        drawn: Drawing<'_, B, impl Fn(u64, u64) -> Tensor<B, 3>>,
        observe: impl FnMut(sampler::Step<'_, Belief<B>>),
    ) -> Result<Belief<B>> {
        let (schedule, steps, gamma) = (&self.schedule, request.steps, request.gamma);
        let mut jump = 0;
        let fresh = || {
            jump += 1;
            (drawn.noise)(purpose::FRESH, jump)
        };
        let renewal = match request.sampler {
            Sampler::Ode if self.config.two_time => {
                let last =
                    sampler::flow_map(denoiser, schedule, start, steps, gamma, fresh, observe);
                return Ok(last?);
            }
            Sampler::Ode => return Ok(sampler::euler(denoiser, schedule, start, steps, observe)?),
            Sampler::Bridge | Sampler::BridgeMean => Renewal::Bridge,
            Sampler::Renoise => Renewal::Full,
        };
        let mut step = 0;
        let endpoint = |belief: &Belief<B>| {
            if request.sampler == Sampler::BridgeMean {
                return denoiser.mean(belief);
            }
            step += 1;
            // As noise, of a generator for each sample.
            let uniform = drawn.numbers.clone().flat_map(|number| {
                let rng = generator(request.seed, purpose::ENDPOINT, number as u64, step);
                rng.random_iter::<f64>().take(self.config.length)
            });
            let uniform: Vec<f64> = uniform.collect();
            drawn.states.tokens(belief.draw_by(1.0, &uniform))
        };
        let last = sampler::bridge(
            denoiser, schedule, start, steps, renewal, endpoint, fresh, observe,
        );
        Ok(last?)
    }
}

/// What a sampler draws on its way.
struct Drawing<'a, B: Backend, N> {
    /// Noise of a purpose and a jump.
    noise: N,
    /// What carries tokens to states.
    states: &'a VocabEmbed<B>,
    /// The numbers of the samples.
    numbers: std::ops::Range<usize>,
}

/// Positions that are held to their line from noise to data, and the states at its end.
struct Pins<B: Backend> {
    /// `[samples, length]`.
    known: Tensor<B, 2, Bool>,
    /// `[samples, length, width]`.
    clean: Tensor<B, 3>,
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
