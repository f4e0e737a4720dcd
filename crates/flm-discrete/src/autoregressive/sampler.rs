//! Writing a text from its beginning.

use crate::{Sampled, SamplingError, TokenSampling, Tokens};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Prediction};
use rand::{Rng, RngExt};

/// How the network is asked for one more token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoding {
    /// Keys and values of the positions so far are kept.
    #[default]
    Cached,
    /// The whole text goes through it again: as slow as it is plain.
    Whole,
}

/// Tokens of texts that are known before they are written.
#[derive(Clone, Copy, Debug)]
pub struct KnownTokens<'a> {
    /// As many rows as texts, of their length. What stands where nothing is known does not matter.
    pub tokens: &'a Tokens,
    /// Which of them are known, row by row.
    pub known: &'a [bool],
}

/// Writes a text of `length` tokens by each generator, around what is `given` of it.
///
/// A known token is taken in place of one that is drawn when its turn comes, and what comes after is written after it: a known *beginning* is
/// conditioned on exactly. What is known *behind* a hole is not: the hole is filled as if anything could follow, as this network sees nothing ahead.
/// What all texts know of their beginning is read at once; known tokens take no random number, so a text does not depend on what is known of others, but for
/// the rounding of what is read together.
///
/// Of the settings, steps do not matter: a token is a step, and counted as an evaluation, though with [`Decoding::Cached`] it is one of a single
/// position: `length` of them cost as much as one of a whole text.
///
/// # Errors
///
/// Impossible settings, given tokens of other texts, or a network of another family.
///
/// # Panics
///
/// If `given.known` is not as long as its tokens.
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
        assert_eq!(given.known.len(), rows * length, "a token is known or not");
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
