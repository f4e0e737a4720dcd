//! The autoregressive sampler.

use crate::{Sampled, SamplingError, TokenSampling, Tokens};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Prediction};
use rand::{Rng, RngExt};

/// How the next token is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoding {
    /// Caches keys and values of previous positions.
    #[default]
    Cached,
    /// Evaluates the whole text again for each token; slow and simple.
    Whole,
}

/// Tokens of texts that are known before sampling.
#[derive(Clone, Copy, Debug)]
pub struct KnownTokens<'a> {
    /// One row per text. Tokens at unknown positions are ignored.
    pub tokens: &'a Tokens,
    /// Whether each token is known, row by row.
    pub known: &'a [bool],
}

/// Samples one text of `length` tokens per generator, and keeps the `given` tokens.
///
/// At a known position the known token replaces a draw. A known *prefix* is therefore conditioned
/// on exactly. Tokens *after* a hole do not affect its fill, because the network is causal. The
/// prefix that is known in all texts is evaluated at once. Known tokens consume no random number,
/// so a text does not depend on known tokens of other texts, except for rounding.
///
/// `sampling.steps` is ignored: each token is one step and counts as one evaluation. With
/// [`Decoding::Cached`] an evaluation covers one position, so `length` of them cost as much as one
/// of a whole text.
///
/// # Errors
///
/// [`SamplingError`] if the settings are invalid, the given tokens have another shape, or the
/// network is of another family.
///
/// # Panics
///
/// If `given.known` and the tokens differ in length.
pub fn sample<B: Backend, R: Rng>(
    model: &Dit<B>,
    given: Option<KnownTokens<'_>>,
    length: usize,
    sampling: TokenSampling,
    decoding: Decoding,
    rngs: &mut [R],
) -> Result<Sampled, SamplingError> {
    sampling.check()?;
    let rows = rngs.len();
    if !(model.is_causal() && model.has_mask_token()) {
        return Err(SamplingError::Family {
            sampler: "autoregressive",
            expected: "autoregressive",
        });
    }
    if let Some(given) = given {
        let found = [given.tokens.rows(), given.tokens.length()];
        if found != [rows, length] {
            let expected = [rows, length];
            return Err(SamplingError::KnownTokens { expected, found });
        }
        assert_eq!(given.known.len(), rows * length, "one known flag per token");
    }
    let known = |row: usize, at: usize| {
        let given = given.filter(|given| given.known[row * length + at])?;
        Some(given.tokens.row(row)[at])
    };
    let all_know = |at: &usize| (0..rows).all(|row| known(row, *at).is_some());
    let beginning = (0..length).take_while(all_know).count();
    let device = model.embed().embedding.device();
    let mask_token = model.embed().embedding.dims()[0] as i64;
    let mut seen: Tensor<B, 2, Int> = Tensor::full([rows, 1], mask_token, &device);
    if let (Some(given), 1..) = (given, beginning) {
        let tokens = given.tokens.tensor(&device).narrow(1, 0, beginning);
        seen = Tensor::cat(vec![seen, tokens], 1);
    }
    let (mut memory, mut fresh, mut evaluations) = (model.memory(), seen.clone(), 0);
    for at in beginning..length {
        let prediction = match decoding {
            Decoding::Cached => model.decode(model.read(fresh), &mut memory),
            Decoding::Whole => whole(model, seen.clone()),
        };
        evaluations += rows as u64;
        let [_, positions] = prediction.positions();
        let last: Vec<usize> = (1..=rows).map(|row| row * positions - 1).collect();
        let forced: Vec<Option<i32>> = (0..rows).map(|row| known(row, at)).collect();
        let uniform = (rngs.iter_mut().zip(&forced))
            .map(|(rng, forced)| forced.map_or_else(|| rng.random(), |_| 0.0));
        let uniform: Vec<f64> = uniform.collect();
        let drawn = (prediction.at(&last))
            .distribution_at(sampling.temperature)
            .draw_by(sampling.nucleus, &uniform);
        fresh = drawn.reshape([rows, 1]);
        if forced.iter().any(Option::is_some) {
            let mut tokens = Tokens::of(fresh);
            for (token, forced) in tokens.ids_mut().iter_mut().zip(forced) {
                *token = forced.unwrap_or(*token);
            }
            fresh = tokens.tensor(&device);
        }
        seen = Tensor::cat(vec![seen, fresh.clone()], 1);
    }
    let tokens = Tokens::of(seen.narrow(1, 1, length));
    Ok(Sampled {
        tokens,
        evaluations,
    })
}

fn whole<B: Backend>(model: &Dit<B>, seen: Tensor<B, 2, Int>) -> Prediction<B> {
    let time = Tensor::zeros([seen.dims()[0]], &seen.device());
    model.forward(model.read(seen), time.clone(), time, &mut Dropout::off())
}
