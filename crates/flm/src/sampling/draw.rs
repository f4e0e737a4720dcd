//! Sampling in batches.

use super::flow::Noised;
use super::{DenoisingStep, Observer, Sample, SampleOptions};
use crate::conditioning::{Frame, KnownBatch, KnownRow};
use crate::guidance::{Guides, Strong};
use crate::model::side_by_side;
use crate::{Error, Model, ModelFolder, ModelNetwork, Provenance, Record, Result, text_of};
use burn::tensor::backend::Backend;
use flm_data::{Layout, TextTokenizer};
use flm_denoiser::DitConfig;
use flm_discrete::Tokens;
use flm_simplex::stream::generator;
use flm_train::Workers;
use rand_chacha::ChaCha8Rng;
use std::ops::{ControlFlow, Range};
use std::slice;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sampling options that were checked against a model, with the loaded guidance.
pub(super) struct Request<'a, B: Backend> {
    pub(super) options: &'a SampleOptions,
    pub(super) steps: usize,
    pub(super) guides: Guides<B>,
}

/// The error of a cancelled call.
const CANCELLED: Error = Error::Cancelled {
    work: "samples were drawn",
};

/// One row to draw.
pub(super) struct Row<'a> {
    pub(super) seed: u64,
    /// Index of the sample under its seed.
    pub(super) number: u64,
    known: Option<&'a KnownRow>,
}

impl Row<'_> {
    /// Returns a generator of this row, so that a sample does not depend on its batch.
    pub(super) fn generator(&self, purpose: u64, step: u64) -> ChaCha8Rng {
        generator(self.seed, purpose, self.number, step)
    }
}

/// Returns the rows to condition on.
fn known(
    options: &SampleOptions,
    config: &DitConfig,
    tokenizer: &TextTokenizer,
    layout: Layout,
) -> Result<Vec<KnownRow>> {
    options.conditioning.rows(&Frame {
        tokenizer,
        layout,
        length: config.length,
    })
}

impl ModelFolder {
    /// Checks that the model supports the options, without reading weights or loading guidance.
    ///
    /// # Errors
    ///
    /// The errors of [`Model::sample`].
    pub fn check(&self, options: &SampleOptions) -> Result<()> {
        options.check(self.config(), self.name())?;
        let tokenizer = self.tokenizer()?;
        let of_tokens = (&tokenizer, self.name());
        let guidance = &options.guidance;
        guidance.check(self.config(), &options.conditioning, of_tokens)?;
        known(options, self.config(), &tokenizer, self.layout()).map(drop)
    }
}

impl<B: Backend> Model<B> {
    /// Draws samples.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], [`Error::Unsupported`] or [`Error::Conditioning`] if this model does not
    /// support the options, the errors of loading the guidance, [`Error::NotFinite`] if a guidance
    /// scale is too large.
    pub fn sample(&self, options: SampleOptions) -> Result<Vec<Sample>> {
        self.sample_with(&options, &())
    }

    /// Draws samples and reports to `observer`.
    ///
    /// # Errors
    ///
    /// The errors of [`sample`](Self::sample), and [`Error::Cancelled`] if the observer cancels.
    pub fn sample_with(
        &self,
        options: &SampleOptions,
        observer: &(impl Observer<B> + ?Sized),
    ) -> Result<Vec<Sample>> {
        self.sample_many(slice::from_ref(options), observer)
            .map(|mut samples| samples.remove(0))
    }

    /// Draws the samples of several requests in common batches, of the size that the first request
    /// sets. The samples equal those of single calls.
    ///
    /// # Errors
    ///
    /// The errors of [`sample_with`](Self::sample_with), and [`Error::Option`] if the requests do not
    /// [fit together](SampleOptions::fits).
    pub fn sample_many(
        &self,
        requests: &[SampleOptions],
        observer: &(impl Observer<B> + ?Sized),
    ) -> Result<Vec<Vec<Sample>>> {
        let Some(options) = requests.first() else {
            return Ok(Vec::new());
        };
        if let Some(other) = requests[1..].iter().find(|other| !options.fits(other)) {
            return Err(Error::Option(format!(
                "requests in one batch may differ in seed, count and known text only, found {options:?} and {other:?}"
            )));
        }
        let request = self.request(options)?;
        let known = requests
            .iter()
            .map(|request| known(request, self.config(), self.tokenizer(), self.layout()))
            .collect::<Result<Vec<_>>>()?;
        let rows: Vec<Row<'_>> = (requests.iter().zip(&known))
            .flat_map(|(request, known)| {
                (0..request.total()).map(move |i| Row {
                    seed: request.seed,
                    number: (request.first + i) as u64,
                    known: known.get(i / request.count),
                })
            })
            .collect();
        let tokens = self.batches(&request, &rows, observer)?;
        let mut drawn = rows.iter().zip(tokens).map(|(row, tokens)| {
            Ok(Sample {
                text: text_of(&tokens, self.tokenizer(), self.layout())?,
                tokens,
                condition: row.known.map(|known| known.condition.clone()),
            })
        });
        let samples = |request: &SampleOptions| drawn.by_ref().take(request.total()).collect();
        requests.iter().map(samples).collect()
    }

    /// Draws the tokens of all rows, in batches.
    fn batches(
        &self,
        request: &Request<'_, B>,
        rows: &[Row<'_>],
        observer: &(impl Observer<B> + ?Sized),
    ) -> Result<Vec<Vec<u32>>> {
        let size = request.options.batch;
        let batches = rows.len().div_ceil(size);
        let done = AtomicUsize::new(0);
        let workers = Workers::new(side_by_side::<B>().min(batches))?;
        let drawn = workers.map(batches, |batch| {
            if observer.is_cancelled() {
                return Err(CANCELLED);
            }
            let range = batch * size..rows.len().min((batch + 1) * size);
            let drawn = range.len();
            let tokens = self.batch(request, rows, range, observer)?;
            let done = done.fetch_add(drawn, Ordering::Relaxed) + drawn;
            observer.progress(done, rows.len());
            Ok(tokens)
        });
        let drawn = drawn.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(drawn.concat())
    }

    /// Draws samples that fill the blanks `___` of `text`.
    ///
    /// # Errors
    ///
    /// The errors of [`sample`](Self::sample).
    pub fn infill(&self, text: &str, options: SampleOptions) -> Result<Vec<Sample>> {
        self.sample(options.conditioning(crate::Conditioning::infill(text)))
    }

    /// Checks that this model supports the options, and loads the guidance.
    ///
    /// # Errors
    ///
    /// The errors of [`sample`](Self::sample).
    pub fn check(&self, options: &SampleOptions) -> Result<()> {
        known(options, self.config(), self.tokenizer(), self.layout())?;
        self.request(options).map(drop)
    }

    /// Combines a sample with a record of how it was drawn.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if this model does not support the number of steps.
    pub fn record(&self, options: &SampleOptions, sample: Sample) -> Result<Record> {
        let precision = self.execution().precision;
        let named = (self.name(), self.weights());
        Ok(Record {
            text: sample.text,
            tokens: sample.tokens,
            drawn: Provenance::new(options, self.config(), named, precision)?,
            condition: sample.condition,
        })
    }

    fn request<'a>(&self, options: &'a SampleOptions) -> Result<Request<'a, B>> {
        options.check(self.config(), self.name())?;
        let of_tokens = (self.tokenizer(), self.name());
        let (guidance, conditioning) = (&options.guidance, &options.conditioning);
        guidance.check(self.config(), conditioning, of_tokens)?;
        let guides = match self.network() {
            ModelNetwork::Flow(model, _) => {
                let strong = Strong {
                    model,
                    config: self.config(),
                    tokenizer: self.tokenizer(),
                    name: self.name(),
                    device: self.device(),
                };
                let mut loaded = self.weak.lock().unwrap_or_else(PoisonError::into_inner);
                Guides::load(guidance, options.temperature, &strong, &mut loaded)?
            }
            _ => Guides::none(),
        };
        Ok(Request {
            steps: options.steps_of(self.config(), self.name())?,
            options,
            guides,
        })
    }

    /// Draws the tokens of the rows in a range.
    fn batch(
        &self,
        request: &Request<'_, B>,
        rows: &[Row<'_>],
        range: Range<usize>,
        observer: &(impl Observer<B> + ?Sized),
    ) -> Result<Vec<Vec<u32>>> {
        let rows = &rows[range.clone()];
        let known = KnownBatch::of(rows.iter().map(|row| row.known));
        let known = known.as_ref();
        let mut tokens = match self.network() {
            ModelNetwork::Flow(model, prior) => {
                let noised = Noised {
                    model,
                    prior,
                    config: self.config(),
                    schedule: self.schedule(),
                    rows,
                };
                let tokens = noised.sample(request, known, |step| {
                    observer.step(&DenoisingStep {
                        samples: range.clone(),
                        index: step.index,
                        t: step.t,
                        tau: step.tau,
                        tau_target: step.tau_target,
                        distribution: step.distribution,
                    });
                    match observer.is_cancelled() {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                })?;
                if observer.is_cancelled() {
                    return Err(CANCELLED);
                }
                Tokens::of(tokens)
            }
            ModelNetwork::Residual(model) => self.residual_tokens(model, request, rows)?,
            ModelNetwork::Tokens(model) => self.discrete_tokens(model, request, known, rows)?,
        };
        if let Some(known) = known {
            known.write(&mut tokens);
        }
        let row = |row| tokens.row(row).iter().map(|&id| id as u32).collect();
        Ok((0..tokens.rows()).map(row).collect())
    }
}
