//! Discrete diffusion on fixed logits: `discrete.safetensors`.
//!
//! The reference's masked network has a column for the mask token, to which it gives no
//! probability; ours has none. So the last column of its logits is dropped, and its log-probability
//! must be at most 0.99·(−1e6).

use super::{Line, Verdict, line_of, numbers, worst};
use crate::fixture::{Fixture, flat, relative_error};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::Prediction;
use flm_discrete::duo::{self, PosteriorWeights};
use flm_discrete::{Level, Tokens, mdlm};
use std::path::Path;

/// Tolerance for formulas on given logits: f32 on both sides, sums of about sixty terms.
const FORMULA: f64 = 1e-5;

/// The value that the reference adds to a forbidden logit.
const NEVER: f32 = -1e6;

const INPUTS: [&str; 8] = [
    "alpha_t",
    "dalpha_t",
    "duo_alpha_s",
    "duo_logits",
    "duo_x_t",
    "mdlm_logits",
    "mdlm_x_t",
    "tokens",
];

/// Compares every tensor of the file with ours.
///
/// # Errors
///
/// A message if the file cannot be read.
pub fn discrete<B: AutodiffBackend>(path: &Path) -> Result<Vec<Line>, String> {
    let file = Fixture::read(path)?;
    Ok(file.0.keys().map(|name| of::<B>(&file, name)).collect())
}

/// Compares a tensor of the file with ours.
pub fn of<B: AutodiffBackend>(file: &Fixture, name: &str) -> Line {
    let known = match name {
        "mdlm_log_probs" => Some(log_probs::<B>(file)),
        "mdlm_nll_per_token" => Some(masked_loss::<B>(file)),
        "duo_posterior" => Some(posterior::<B>(file)),
        "duo_nll_per_token" => Some(uniform_loss::<B>(file)),
        _ => None,
    };
    line_of(name, known, INPUTS.contains(&name))
}

fn tokens(file: &Fixture, name: &str) -> Tokens {
    let ids = file.integers(name).into_iter().map(|id| id as i32);
    Tokens::new(ids.collect(), file.pinned(name).shape[1])
}

fn levels(file: &Fixture) -> Vec<Level> {
    let (alphas, slopes) = (file.values("alpha_t"), file.values("dalpha_t"));
    let level = |(alpha, slope): (f32, f32)| Level {
        alpha: alpha.into(),
        slope: slope.into(),
    };
    alphas.into_iter().zip(slopes).map(level).collect()
}

/// Returns the masked network's prediction without the mask token's column, and that token's id.
fn masked<B: Backend>(file: &Fixture) -> (Prediction<B>, usize) {
    let logits: Tensor<B, 3> = file.float("mdlm_logits");
    let mask_token = logits.dims()[2] - 1;
    (
        Prediction::pinned(logits.narrow(2, 0, mask_token)),
        mask_token,
    )
}

fn uniform<B: Backend>(file: &Fixture) -> Prediction<B> {
    Prediction::pinned(file.float("duo_logits"))
}

/// Compares log-probabilities at masked positions; other positions must keep their token.
fn log_probs<B: Backend>(file: &Fixture) -> Verdict {
    let (prediction, mask_token) = masked::<B>(file);
    let answers = flat(prediction.dense_log_probs());
    let seen = tokens(file, "mdlm_x_t");
    let expected = file.values("mdlm_log_probs");
    let rows = answers
        .chunks(mask_token)
        .zip(expected.chunks(mask_token + 1));
    let error = |((answers, expected), &id): ((&[f32], &[f32]), &i32)| {
        let mask_token = mask_token as i32;
        let never = |expected: f32| expected.is_finite() && expected <= 0.99 * NEVER;
        if id == mask_token {
            let (last, rest) = expected.split_last().expect("a mask token column");
            if never(*last) {
                return relative_error(answers, rest);
            }
        } else if (0..=mask_token).zip(expected).all(|(token, &expected)| {
            if token == id {
                expected == 0.0
            } else {
                never(expected)
            }
        }) {
            return 0.0;
        }
        f64::INFINITY
    };
    Verdict::Numbers {
        error: worst(rows.zip(seen.ids()).map(error)),
        tolerance: FORMULA,
    }
}

fn masked_loss<B: AutodiffBackend>(file: &Fixture) -> Verdict {
    let (prediction, mask_token) = masked::<B>(file);
    let [clean, noisy] = ["tokens", "mdlm_x_t"].map(|name| tokens(file, name));
    let losses = mdlm::losses_of(&prediction, &clean, &noisy, &levels(file), mask_token);
    numbers(
        &flat(losses.per_token),
        &file.values("mdlm_nll_per_token"),
        FORMULA,
    )
}

/// Compares the posterior: its three weights for every position, expanded over the vocabulary.
fn posterior<B: Backend>(file: &Fixture) -> Verdict {
    let denoised = uniform::<B>(file).distribution();
    let [batch, length, vocab] = denoised.dense().dims();
    let seen = tokens(file, "duo_x_t");
    let own = flat(denoised.of(file.int("duo_x_t")));
    let (p, earlier) = (flat(denoised.dense()), file.values("duo_alpha_s"));
    let levels = levels(file);
    let mut found = Vec::with_capacity(batch * length * vocab);
    for (at, p) in p.chunks(vocab).enumerate() {
        let (row, z) = (at / length, seen.ids()[at]);
        let (alpha, earlier) = (levels[row].alpha, f64::from(earlier[row]));
        let probabilities = PosteriorWeights::new(alpha, earlier, vocab, own[at].into());
        found.extend((0..vocab).map(|token| {
            let stay = if token as i32 == z {
                probabilities.stay
            } else {
                0.0
            };
            let drawn = probabilities.drawn * f64::from(p[token]);
            (stay + drawn + probabilities.uniform / vocab as f64) as f32
        }));
    }
    numbers(&found, &file.values("duo_posterior"), FORMULA)
}

fn uniform_loss<B: AutodiffBackend>(file: &Fixture) -> Verdict {
    let [clean, noisy] = ["tokens", "duo_x_t"].map(|name| tokens(file, name));
    let losses = duo::losses_of(&uniform::<B>(file), &clean, &noisy, &levels(file));
    numbers(
        &flat(losses.per_token),
        &file.values("duo_nll_per_token"),
        FORMULA,
    )
}
