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
    samples: Mutex<Vec<Vec<Frame>>>,
}

/// The likeliest tokens of one sample at one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Frame {
    /// Network time τ of the state.
    pub tau: f64,
    /// Time t of the state, from 0 (noise) to 1 (text).
    pub t: f64,
    /// Target network time of a flow map; τ itself for a flow.
    pub tau_target: f64,
    /// The likeliest tokens of each position, in descending order of probability.
    pub positions: Vec<Vec<LikelyToken>>,
}

/// A token and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LikelyToken {
    /// The token.
    pub id: u32,
    /// Its spelling.
    pub token: String,
    /// Its probability.
    pub probability: f64,
}

impl Frame {
    /// Returns a frame for each sample of a step, with at most `top` tokens per position.
    pub fn of<B: Backend>(
        step: &DenoisingStep<'_, B>,
        tokenizer: &TextTokenizer,
        top: usize,
    ) -> Vec<Self> {
        let kept = top.min(tokenizer.vocab_size());
        let (probabilities, ids) = step.distribution.top(kept);
        let [_, length, kept] = probabilities.dims();
        let probabilities: Vec<f64> = probabilities.into_data().iter::<f64>().collect();
        let ids: Vec<u32> = ids.into_data().iter::<i64>().map(|id| id as u32).collect();
        let tokens = ids
            .iter()
            .zip(&probabilities)
            .map(|(&id, &probability)| LikelyToken {
                id,
                token: tokenizer.token(id).unwrap_or_default(),
                probability,
            });
        let tokens: Vec<LikelyToken> = tokens.collect();
        let rows = tokens.chunks_exact(length * kept);
        rows.map(|positions| Self {
            tau: step.tau,
            t: step.t,
            tau_target: step.tau_target,
            positions: positions.chunks_exact(kept).map(likeliest_first).collect(),
        })
        .collect()
    }

    /// Keeps at most `top` tokens per position.
    pub fn truncated(mut self, top: usize) -> Self {
        self.positions
            .iter_mut()
            .for_each(|tokens| tokens.truncate(top));
        self
    }
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
    trace: Vec<Frame>,
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
        let frames = Frame::of(step, self.tokenizer, TOKENS);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let last = samples.len().max(step.samples.end);
        samples.resize_with(last, Vec::new);
        for (sample, frame) in samples[step.samples.clone()].iter_mut().zip(frames) {
            sample.push(frame);
        }
    }
}

/// Sorts tokens by descending probability; ties go to the lower token id, as in sampling.
fn likeliest_first(tokens: &[LikelyToken]) -> Vec<LikelyToken> {
    let mut tokens = tokens.to_vec();
    tokens.sort_by(|a, b| {
        b.probability
            .total_cmp(&a.probability)
            .then(a.id.cmp(&b.id))
    });
    tokens
}
