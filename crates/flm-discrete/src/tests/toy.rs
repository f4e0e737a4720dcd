//! A distribution of a few short texts with exact denoisers.

use crate::schedule::Level;
use crate::{Predict, Tokens};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use flm_denoiser::{Dit, DitConfig, Dropout, Family, Prediction, apply_tensors, named_tensors};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Number of tokens in the vocabulary.
pub(crate) const VOCAB: usize = 3;
/// Number of tokens in a text.
pub(crate) const LENGTH: usize = 2;

/// The noise process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Tokens are masked.
    Masked,
    /// Tokens are replaced by uniform ones.
    Uniform,
}

/// Texts with their probabilities, and the quality of their denoiser.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    pub(crate) kind: Kind,
    pub(crate) texts: Vec<([i32; LENGTH], f64)>,
    /// Factor of the denoiser's log-probabilities; 1 is exact.
    pub(crate) boldness: f64,
}

impl Toy {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            texts: vec![([0, 1], 0.4), ([2, 1], 0.1), ([1, 2], 0.3), ([2, 0], 0.2)],
            boldness: 1.0,
        }
    }

    /// Returns the entropy of a text, in nats.
    pub(crate) fn entropy(&self) -> f64 {
        -self.texts.iter().map(|(_, p)| p * p.ln()).sum::<f64>()
    }

    /// Returns the probability of a text.
    pub(crate) fn probability(&self, text: &[i32]) -> f64 {
        let found = self.texts.iter().find(|(known, _)| known == text);
        found.map_or(0.0, |(_, p)| *p)
    }

    /// Returns a thousand rows with each text in its exact share.
    pub(crate) fn thousand(&self) -> Tokens {
        let rows = self.texts.iter().flat_map(|(text, p)| {
            let count = (p * 1_000.0).round() as usize;
            std::iter::repeat_n(*text, count).flatten()
        });
        Tokens::new(rows.collect(), LENGTH)
    }

    /// Returns the probability that a token becomes another at a noise level.
    pub(crate) fn kernel(&self, from: i32, to: i32, alpha: f64) -> f64 {
        let same = if from == to { alpha } else { 0.0 };
        match self.kind {
            Kind::Masked if to == VOCAB as i32 => 1.0 - alpha,
            Kind::Masked => same,
            Kind::Uniform => same + (1.0 - alpha) / VOCAB as f64,
        }
    }

    /// Returns the probability of `token` at `position` given all *other* positions,
    /// by enumeration.
    ///
    /// A mask token carries no evidence of its own. For replaced tokens, the bound and the
    /// posterior add the evidence of the token itself.
    fn posterior(&self, noisy: &[i32], position: usize, token: i32, alpha: f64) -> f64 {
        let joint = |text: &[i32; LENGTH], p: f64| {
            let others = (0..LENGTH).filter(|&at| at != position);
            p * others
                .map(|at| self.kernel(text[at], noisy[at], alpha))
                .product::<f64>()
        };
        let all: f64 = self.texts.iter().map(|(text, p)| joint(text, *p)).sum();
        let with = self
            .texts
            .iter()
            .filter(|(text, _)| text[position] == token);
        with.map(|(text, p)| joint(text, *p)).sum::<f64>() / all
    }
}

impl Predict<Flex> for Toy {
    fn predict(
        &self,
        noisy: Tensor<Flex, 2, Int>,
        levels: &[Level],
        _: &mut Dropout<'_>,
    ) -> Prediction<Flex> {
        let noisy = Tokens::of(noisy);
        let mut logits = Vec::new();
        for (row, level) in levels.iter().enumerate() {
            // A masked row at α = 0 has no posterior, so use the limit of small α.
            let alpha = level.alpha.max(1e-9);
            for position in 0..LENGTH {
                for token in 0..VOCAB as i32 {
                    let p = self.posterior(noisy.row(row), position, token, alpha);
                    logits.push((self.boldness * p.max(1e-30).ln()) as f32);
                }
            }
        }
        let shape = [noisy.rows(), LENGTH, VOCAB];
        Prediction::pinned(Tensor::from_data(
            TensorData::new(logits, shape),
            &Default::default(),
        ))
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn device(&self) -> FlexDevice {
        Default::default()
    }
}

/// Creates a small network with random parameters.
pub(crate) fn loud<B: Backend>([vocab, length]: [usize; 2], family: Family, seed: u64) -> Dit<B> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A small conditioning width keeps logits of order one and probabilities away from 0 and 1.
    let config = DitConfig {
        cond_dim: 4,
        ..DitConfig::new(vocab, length, 16, 2, 2).with_family(family)
    };
    let model = config.init::<B>(&mut rng, &Default::default()).unwrap();
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
    }
    apply_tensors(model, Path::new("drawn"), tensors).unwrap()
}

/// Returns the share of each possible text.
pub(crate) fn shares(tokens: &Tokens) -> Vec<([i32; LENGTH], f64)> {
    let texts = (0..VOCAB as i32).flat_map(|a| (0..VOCAB as i32).map(move |b| [a, b]));
    texts
        .map(|text| {
            let count = (0..tokens.rows()).filter(|&row| tokens.row(row) == text);
            (text, count.count() as f64 / tokens.rows() as f64)
        })
        .collect()
}
