//! How samples come about, step by step.

use super::Sample;
use burn::tensor::backend::Backend;
use flm_data::TextTokenizer;
use flm_denoiser::Belief;
use flm_simplex::sampler::Step;
use serde::Serialize;

/// Tokens told for each position.
const TOKENS: usize = 3;

/// Version of the format of trace files.
const FORMAT: u32 = 1;

/// The content of a trace file.
#[derive(Debug, Serialize)]
pub(crate) struct TraceFile<'a> {
    format_version: u32,
    samples: Vec<Entry<'a>>,
}

/// A sample with the steps that made it.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    sample: &'a Sample,
    trace: &'a [TracedStep],
}

impl<'a> TraceFile<'a> {
    pub(super) fn new(samples: impl Iterator<Item = (&'a Sample, &'a TracedSample)>) -> Self {
        let samples = samples
            .map(|(sample, traced)| Entry {
                sample,
                trace: &traced.0,
            })
            .collect();
        Self {
            format_version: FORMAT,
            samples,
        }
    }
}

/// All steps of one sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct TracedSample(Vec<TracedStep>);

/// What the network believed at one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TracedStep {
    /// Network time of the state.
    pub(crate) tau: f64,
    /// The same in t.
    pub(crate) t: f64,
    /// Network time that was looked ahead to.
    pub(crate) tau_target: f64,
    /// For each position the likeliest tokens, likeliest first.
    pub(crate) positions: Vec<Vec<TracedToken>>,
}

/// A token and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TracedToken {
    pub(crate) id: u32,
    pub(crate) token: String,
    pub(crate) probability: f64,
}

/// The traces of a batch while it is drawn.
pub(super) struct Trace(Vec<TracedSample>);

impl Trace {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![TracedSample::default(); count])
    }

    pub(super) fn record<B: Backend>(
        &mut self,
        step: &Step<'_, Belief<B>>,
        tokenizer: &TextTokenizer,
        vocab_size: usize,
    ) {
        let (probabilities, ids) = step.belief.top(TOKENS.min(vocab_size));
        let [_, length, kept] = probabilities.dims();
        let probabilities: Vec<f64> = probabilities.into_data().iter::<f64>().collect();
        let ids: Vec<u32> = ids.into_data().iter::<i64>().map(|id| id as u32).collect();
        let tokens = ids
            .iter()
            .zip(&probabilities)
            .map(|(&id, &probability)| TracedToken {
                id,
                token: tokenizer.token(id).unwrap_or_default(),
                probability,
            });
        let tokens: Vec<TracedToken> = tokens.collect();
        for (sample, positions) in self.0.iter_mut().zip(tokens.chunks_exact(length * kept)) {
            sample.0.push(TracedStep {
                tau: step.tau,
                t: step.t,
                tau_target: step.tau_target,
                positions: positions.chunks_exact(kept).map(likeliest_first).collect(),
            });
        }
    }

    pub(super) fn finish(self) -> Vec<TracedSample> {
        self.0
    }
}

/// Among equally likely tokens the first of the vocabulary leads, as in the sample itself.
fn likeliest_first(tokens: &[TracedToken]) -> Vec<TracedToken> {
    let mut tokens = tokens.to_vec();
    tokens.sort_by(|a, b| {
        b.probability
            .total_cmp(&a.probability)
            .then(a.id.cmp(&b.id))
    });
    tokens
}
