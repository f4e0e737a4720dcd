//! Traces of the denoising steps of samples.

use crate::{DenoisingStep, Observer, Record};
use burn::tensor::backend::Backend;
use flm_data::TextTokenizer;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// Number of tokens kept per position.
const TOKENS: usize = 3;

/// Version of the trace file format.
const FORMAT: u32 = 1;

/// An [`Observer`] that records the likeliest tokens of each position at each step of a flow or a
/// flow map.
///
/// A trace records one call of [`Model::sample_with`](crate::Model::sample_with).
#[derive(Debug)]
pub struct Trace<'a> {
    tokenizer: &'a TextTokenizer,
    samples: Mutex<Vec<Vec<TracedStep>>>,
}

/// The distributions of one sample at one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct TracedStep {
    tau: f64,
    t: f64,
    tau_target: f64,
    /// The likeliest tokens of each position, in descending order of probability.
    positions: Vec<Vec<TracedToken>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct TracedToken {
    id: u32,
    token: String,
    probability: f64,
}

/// The content of a trace file: records with their denoising steps.
#[derive(Debug, Serialize)]
pub struct TraceFile<'a> {
    format_version: u32,
    samples: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    sample: &'a Record,
    trace: Vec<TracedStep>,
}

impl<'a> Trace<'a> {
    /// Creates an empty trace for a model with this tokenizer.
    pub fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self {
            tokenizer,
            samples: Mutex::default(),
        }
    }

    /// Combines the trace with the records of the traced samples.
    pub fn into_file(self, records: &[Record]) -> TraceFile<'_> {
        let samples = self.samples.into_inner();
        let mut samples = samples.unwrap_or_else(PoisonError::into_inner);
        samples.resize_with(records.len(), Vec::new);
        let entry = |(sample, trace)| Entry { sample, trace };
        TraceFile {
            format_version: FORMAT,
            samples: records.iter().zip(samples).map(entry).collect(),
        }
    }
}

impl<B: Backend> Observer<B> for Trace<'_> {
    fn step(&self, step: &DenoisingStep<'_, B>) {
        let kept = TOKENS.min(self.tokenizer.vocab_size());
        let (probabilities, ids) = step.distribution.top(kept);
        let [_, length, kept] = probabilities.dims();
        let probabilities: Vec<f64> = probabilities.into_data().iter::<f64>().collect();
        let ids: Vec<u32> = ids.into_data().iter::<i64>().map(|id| id as u32).collect();
        let tokens = ids
            .iter()
            .zip(&probabilities)
            .map(|(&id, &probability)| TracedToken {
                id,
                token: self.tokenizer.token(id).unwrap_or_default(),
                probability,
            });
        let tokens: Vec<TracedToken> = tokens.collect();
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let last = samples.len().max(step.samples.end);
        samples.resize_with(last, Vec::new);
        let rows = tokens.chunks_exact(length * kept);
        for (sample, positions) in samples[step.samples.clone()].iter_mut().zip(rows) {
            sample.push(TracedStep {
                tau: step.tau,
                t: step.t,
                tau_target: step.tau_target,
                positions: positions.chunks_exact(kept).map(likeliest_first).collect(),
            });
        }
    }
}

/// Sorts tokens by descending probability; ties go to the lower token id, as in sampling.
fn likeliest_first(tokens: &[TracedToken]) -> Vec<TracedToken> {
    let mut tokens = tokens.to_vec();
    tokens.sort_by(|a, b| {
        b.probability
            .total_cmp(&a.probability)
            .then(a.id.cmp(&b.id))
    });
    tokens
}
