//! The sampler of uniform-state diffusion, from uniform tokens to text.

use crate::predict::Predict;
use crate::schedule::{Level, LogLinear};
use crate::{Sampled, SamplingError, TokenSampling, Tokens};
use burn::tensor::backend::Backend;
use flm_denoiser::Dropout;
use rand::{Rng, RngExt};

/// The posterior of a token z at level α for an earlier level α′, as a mixture.
///
/// The token stays, is drawn from the denoiser, or is drawn uniformly, with these probabilities,
/// which sum to one. p_z is the denoiser's probability that the clean token is z.
///
/// With α″ = α/α′ and the denominator V·α·p_z + 1 − α, the numerators are V·α·p_z + α″ − α, α′ − α
/// and (1 − α″)·(1 − α′) (Duo, equation 3; `mathematics.md`, section 7). So the posterior over V
/// tokens is never computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PosteriorWeights {
    /// Probability that the token stays z.
    pub stay: f64,
    /// Probability that the token is drawn from the denoiser.
    pub drawn: f64,
    /// Probability that the token is drawn uniformly.
    pub uniform: f64,
}

impl PosteriorWeights {
    /// Computes the weights for a step from level `alpha` to the larger level `earlier`.
    ///
    /// `p` is the denoiser's probability that the clean token is the current one.
    pub fn new(alpha: f64, earlier: f64, vocab_size: usize, p: f64) -> Self {
        let (own, kept) = (vocab_size as f64 * alpha * p, alpha / earlier);
        let all = own + 1.0 - alpha;
        Self {
            stay: (own + kept - alpha) / all,
            drawn: (earlier - alpha) / all,
            uniform: (1.0 - kept) * (1.0 - earlier) / all,
        }
    }
}

/// The kind of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Draws tokens, as in every step.
    Ancestral,
    /// Takes the denoiser's argmax, as the published code does. It ignores the evidence of the
    /// current tokens.
    #[default]
    Greedy,
}

/// Draws uniform tokens to start sampling from: a text of `length` tokens per generator.
pub fn prior<R: Rng>(vocab_size: usize, length: usize, rngs: &mut [R]) -> Tokens {
    let ids = rngs.iter_mut().flat_map(|rng| {
        let token = || rng.random_range(0..vocab_size as i32);
        std::iter::repeat_with(token)
            .take(length)
            .collect::<Vec<_>>()
    });
    Tokens::new(ids.collect(), length)
}

/// Samples texts from the uniform tokens `start` in `sampling.steps` steps.
///
/// Each step evaluates all texts. Tokens marked in `known` stay unchanged.
///
/// # Errors
///
/// [`SamplingError`] if the settings are invalid.
///
/// # Panics
///
/// If `known` and the tokens differ in length, or the numbers of generators and texts differ.
pub fn sample<B: Backend, R: Rng>(
    model: &impl Predict<B>,
    start: Tokens,
    known: Option<&[bool]>,
    sampling: TokenSampling,
    tail: Tail,
    rngs: &mut [R],
) -> Result<Sampled, SamplingError> {
    sampling.check()?;
    assert_eq!(start.rows(), rngs.len(), "one generator per text");
    if let Some(known) = known {
        assert_eq!(known.len(), start.ids().len(), "one known flag per token");
    }
    let schedule = LogLinear::default();
    let free: Vec<usize> = (0..start.ids().len())
        .filter(|&at| !known.is_some_and(|known| known[at]))
        .collect();
    let mut tokens = start;
    for step in 0..sampling.steps {
        let time = |step| 1.0 - step as f64 / sampling.steps as f64;
        let level = schedule.level(time(step));
        let earlier = schedule.alpha(time(step + 1));
        let greedy = tail == Tail::Greedy && step + 1 == sampling.steps;
        if !free.is_empty() {
            let end = if greedy { None } else { Some(earlier) };
            update(model, &mut tokens, &free, level, end, sampling, rngs);
        }
    }
    let evaluations = (sampling.steps * tokens.rows()) as u64;
    Ok(Sampled {
        tokens,
        evaluations,
    })
}

/// Moves the tokens at `free` from `level` to the level `earlier`, or to the argmax for `None`.
fn update<B: Backend, R: Rng>(
    model: &impl Predict<B>,
    tokens: &mut Tokens,
    free: &[usize],
    level: Level,
    earlier: Option<f64>,
    sampling: TokenSampling,
    rngs: &mut [R],
) {
    let (vocab_size, device) = (model.vocab_size(), model.device());
    let levels = vec![level; tokens.rows()];
    let seen = tokens.tensor::<B>(&device);
    let prediction = model.predict(seen.clone(), &levels, &mut Dropout::off());
    let denoised = prediction.distribution_at(sampling.temperature);
    let Some(earlier) = earlier else {
        let likeliest: Vec<i32> = denoised.argmax().into_data().iter::<i32>().collect();
        for &at in free {
            tokens.ids_mut()[at] = likeliest[at];
        }
        return;
    };
    let own: Vec<f64> = denoised.of(seen).into_data().iter::<f64>().collect();
    let (mut asked, mut uniform) = (Vec::new(), Vec::new());
    for &at in free {
        let rng = &mut rngs[at / tokens.length()];
        let posterior = PosteriorWeights::new(level.alpha, earlier, vocab_size, own[at]);
        let left: f64 = rng.random();
        if left < posterior.drawn {
            asked.push(at);
            uniform.push(rng.random());
        } else if left < posterior.drawn + posterior.uniform {
            tokens.ids_mut()[at] = rng.random_range(0..vocab_size as i32);
        }
    }
    if asked.is_empty() {
        return;
    }
    let drawn = prediction
        .at(&asked)
        .distribution_at(sampling.temperature)
        .draw_by(sampling.nucleus, &uniform)
        .into_data();
    for (&at, id) in asked.iter().zip(drawn.iter::<i32>()) {
        tokens.ids_mut()[at] = id;
    }
}
