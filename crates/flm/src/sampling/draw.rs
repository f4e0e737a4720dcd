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
use flm_train::Workers;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sampling options that were checked against a model, with the loaded guidance.
pub(super) struct Request<'a, B: Backend> {
    pub(super) options: &'a SampleOptions,
    pub(super) steps: usize,
    pub(super) guides: Guides<B>,
    known: Vec<KnownRow>,
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
        let request = self.request(options)?;
        let count = options.total();
        let batches = count.div_ceil(options.batch);
        let done = AtomicUsize::new(0);
        let workers = Workers::new(side_by_side::<B>().min(batches))?;
        let drawn = workers.map(batches, |batch| {
            if observer.is_cancelled() {
                return Err(Error::Cancelled {
                    work: "samples were drawn",
                });
            }
            let first = batch * options.batch;
            let numbers = first..count.min(first + options.batch);
            let drawn = numbers.len();
            let tokens = self.batch(&request, numbers, observer)?;
            let done = done.fetch_add(drawn, Ordering::Relaxed) + drawn;
            observer.progress(done, count);
            Ok(tokens)
        });
        let mut samples = Vec::with_capacity(count);
        for batch in drawn {
            for tokens in batch? {
                let known = request.known.get(samples.len() / options.count);
                samples.push(Sample {
                    text: text_of(&tokens, self.tokenizer(), self.layout())?,
                    tokens,
                    condition: known.map(|known| known.condition.clone()),
                });
            }
        }
        Ok(samples)
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
        let known = known(options, self.config(), self.tokenizer(), self.layout())?;
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
            known,
            options,
            guides,
        })
    }

    /// Draws the tokens of the samples `numbers`.
    fn batch(
        &self,
        request: &Request<'_, B>,
        numbers: Range<usize>,
        observer: &(impl Observer<B> + ?Sized),
    ) -> Result<Vec<Vec<u32>>> {
        let known = KnownBatch::of(&request.known, request.options.count, numbers.clone());
        let known = known.as_ref();
        let mut tokens = match self.network() {
            ModelNetwork::Flow(model, prior) => {
                let noised = Noised {
                    model,
                    prior,
                    config: self.config(),
                    schedule: self.schedule(),
                    numbers: numbers.clone(),
                };
                let tokens = noised.sample(request, known, |step| {
                    observer.step(&DenoisingStep {
                        samples: numbers.clone(),
                        index: step.index,
                        t: step.t,
                        tau: step.tau,
                        tau_target: step.tau_target,
                        distribution: step.distribution,
                    });
                })?;
                Tokens::of(tokens)
            }
            ModelNetwork::Residual(model) => self.residual_tokens(model, request, numbers)?,
            ModelNetwork::Tokens(model) => self.discrete_tokens(model, request, known, numbers)?,
        };
        if let Some(known) = known {
            known.write(&mut tokens);
        }
        let row = |row| tokens.row(row).iter().map(|&id| id as u32).collect();
        Ok((0..tokens.rows()).map(row).collect())
    }
}
