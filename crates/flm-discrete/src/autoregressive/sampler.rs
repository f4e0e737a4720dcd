//! Writing a text from its beginning.

use crate::{Sampled, Sampling, SamplingError, Tokens};
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

/// Goes on with `beginning`, if there is one, until there are `length` tokens in a text by each generator.
///
/// Of the settings, steps do not matter: a token is a step, and counted as an evaluation, though with [`Decoding::Cached`] it is one of a single
/// position: `length` of them cost as much as one of a whole text.
///
/// # Errors
///
/// Impossible settings, a beginning that is too long, or a network of another family.
pub fn sample<B: Backend, R: Rng>(
    model: &Dit<B>,
    beginning: Option<&Tokens>,
    length: usize,
    sampling: Sampling,
    decoding: Decoding,
    rngs: &mut [R],
) -> Result<Sampled, SamplingError> {
    sampling.check()?;
    let rows = rngs.len();
    if !(model.is_causal() && model.has_blank()) {
        return Err(SamplingError::Family {
            sampler: "autoregressive",
            expected: "autoregressive",
        });
    }
    let given = beginning.map_or(0, Tokens::length);
    if given > length || beginning.is_some_and(|beginning| beginning.rows() != rows) {
        return Err(SamplingError::Prefix {
            length,
            found: given,
        });
    }
    let device = model.embed().embedding.device();
    let blank = model.embed().embedding.dims()[0] as i64;
    let mut seen: Tensor<B, 2, Int> = Tensor::full([rows, 1], blank, &device);
    if let Some(beginning) = beginning {
        seen = Tensor::cat(vec![seen, beginning.tensor(&device)], 1);
    }
    let (mut memory, mut fresh, mut evaluations) = (model.memory(), seen.clone(), 0);
    for _ in given..length {
        let prediction = match decoding {
            Decoding::Cached => model.decode(model.read(fresh), &mut memory),
            Decoding::Whole => whole(model, seen.clone()),
        };
        evaluations += rows as u64;
        let [_, positions] = prediction.positions();
        let last: Vec<usize> = (1..=rows).map(|row| row * positions - 1).collect();
        let uniform: Vec<f64> = rngs.iter_mut().map(|rng| rng.random()).collect();
        let drawn = (prediction.at(&last))
            .belief_at(sampling.temperature)
            .draw_by(sampling.nucleus, &uniform);
        fresh = drawn.reshape([rows, 1]);
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
