//! Models behind the server, independent of the backend.

use burn::tensor::backend::Backend;
use flm::data::Layout;
use flm::{DenoisingStep, Frame, Guidance, Model, Observer, Sample, SampleOptions};

/// Facts about a model.
#[derive(Clone, Debug)]
pub struct About {
    /// "flow", "flow map", "mdlm", ….
    pub kind: &'static str,
    /// Positions of a row.
    pub length: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Number of parameters.
    pub parameters: u64,
    /// Layout of the rows.
    pub layout: Layout,
    /// Steps of a request that sets none; `None` if the model takes one per token.
    pub default_steps: Option<usize>,
    /// Whether steps can be observed.
    pub has_frames: bool,
    /// First digits of the SHA-256 of the weights.
    pub weights: String,
    /// The token that ends a text.
    pub end: u32,
    /// The token that pads a row.
    pub padding: u32,
}

impl About {
    /// Steps of a request: its own, the default, or one per token.
    pub(crate) fn steps(&self, options: &SampleOptions) -> usize {
        options.steps.or(self.default_steps).unwrap_or(self.length)
    }
}

/// Receives frames while samples are drawn. Called from several threads.
pub trait Watch: Sync {
    /// Number of tokens per position to report for a sample at a step; 0 for none. Samples are
    /// numbered over all requests of the call.
    fn top(&self, sample: usize, step: usize) -> usize;

    /// Receives the frame of a sample.
    fn frame(&self, sample: usize, frame: Frame);

    /// Returns `true` if nobody waits for the samples any more.
    fn is_cancelled(&self) -> bool;
}

/// A loaded model.
pub trait Engine: Send + Sync {
    /// Facts about the model.
    fn about(&self) -> &About;

    /// Checks that the model supports a request.
    ///
    /// # Errors
    ///
    /// The errors of [`Model::check`].
    fn check(&self, options: &SampleOptions) -> flm::Result<()>;

    /// Draws the samples of requests that [fit together](SampleOptions::fits).
    ///
    /// # Errors
    ///
    /// The errors of [`Model::sample_many`].
    fn sample(
        &self,
        requests: &[SampleOptions],
        watch: &dyn Watch,
    ) -> flm::Result<Vec<Vec<Sample>>>;

    /// Decodes tokens, with every special token visible.
    ///
    /// # Errors
    ///
    /// [`flm::Error::Data`] if a token is not in the vocabulary.
    fn decode(&self, tokens: &[u32]) -> flm::Result<String>;

    /// The spelling of a token.
    fn token(&self, id: u32) -> String;
}

/// An [`Engine`] on a backend.
#[derive(Debug)]
pub struct Loaded<B: Backend> {
    model: Model<B>,
    about: About,
    /// Batches that run in parallel.
    side_by_side: usize,
}

impl<B: Backend> Loaded<B> {
    /// Wraps a model that computes this many batches in parallel.
    pub fn new(model: Model<B>, side_by_side: usize) -> Self {
        let (config, tokenizer) = (model.config(), model.tokenizer());
        let steps = SampleOptions::default().steps_of(config, model.name());
        let about = About {
            kind: flm::kind(config),
            length: config.length,
            vocabulary: config.vocab_size,
            parameters: model.card().parameters,
            layout: model.layout(),
            default_steps: steps
                .ok()
                .filter(|_| config.family != flm::denoiser::Family::Autoregressive),
            has_frames: Guidance::is_supported(config),
            weights: model.weights().to_owned(),
            end: tokenizer.eos_id(),
            padding: tokenizer.pad_id(),
        };
        Self {
            model,
            about,
            side_by_side: side_by_side.max(1),
        }
    }
}

impl<B: Backend> Engine for Loaded<B>
where
    Model<B>: Send + Sync,
{
    fn about(&self) -> &About {
        &self.about
    }

    fn check(&self, options: &SampleOptions) -> flm::Result<()> {
        self.model.check(options)
    }

    fn sample(
        &self,
        requests: &[SampleOptions],
        watch: &dyn Watch,
    ) -> flm::Result<Vec<Vec<Sample>>> {
        let rows: usize = requests.iter().map(SampleOptions::total).sum();
        // The rows are shared over the workers.
        let batch = rows.div_ceil(self.side_by_side).max(1);
        let mut requests = requests.to_vec();
        if let Some(first) = requests.first_mut() {
            first.batch = batch;
        }
        let tokenizer = self.model.tokenizer();
        self.model
            .sample_many(&requests, &Adapter { watch, tokenizer })
    }

    fn decode(&self, tokens: &[u32]) -> flm::Result<String> {
        Ok(self.model.tokenizer().decode_all(tokens)?)
    }

    fn token(&self, id: u32) -> String {
        self.model.tokenizer().token(id).unwrap_or_default()
    }
}

struct Adapter<'a> {
    watch: &'a dyn Watch,
    tokenizer: &'a flm::TextTokenizer,
}

impl<B: Backend> Observer<B> for Adapter<'_> {
    fn step(&self, step: &DenoisingStep<'_, B>) {
        let samples = step.samples.clone();
        let tops: Vec<usize> = samples
            .clone()
            .map(|sample| self.watch.top(sample, step.index))
            .collect();
        let Some(most) = tops.iter().copied().max().filter(|most| *most > 0) else {
            return;
        };
        let frames = Frame::of(step, self.tokenizer, most);
        for ((sample, frame), top) in samples.zip(frames).zip(tops) {
            if top > 0 {
                self.watch.frame(sample, frame.truncated(top));
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }
}
