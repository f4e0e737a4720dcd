//! From uniform tokens to text.

use crate::predict::Predict;
use crate::schedule::{Level, LogLinear};
use crate::{Sampled, SamplingError, TokenSampling, Tokens};
use burn::tensor::backend::Backend;
use flm_denoiser::Dropout;
use rand::{Rng, RngExt};

/// What a token z at level α becomes at an earlier level α′, if a denoiser gives it the probability p_z to be clean: it stays, is drawn from the
/// denoiser, or is uniform, with these probabilities, which sum to one.
///
/// With α″ = α/α′ and the denominator V·α·p_z + 1 − α they are V·α·p_z + α″ − α, α′ − α, and (1 − α″)·(1 − α′) (Duo, equation 3;
/// `mathematics.md`, section 7). So the posterior, which is V wide, is never made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PosteriorWeights {
    /// Probability to stay z.
    pub stay: f64,
    /// Probability to be drawn from the denoiser.
    pub drawn: f64,
    /// Probability to be drawn uniformly.
    pub uniform: f64,
}

impl PosteriorWeights {
    /// From the level `alpha` to `earlier`, which is larger, among V tokens, where the denoiser gives the token `p` to be clean.
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

/// How the last step ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// As every step: tokens are drawn.
    Ancestral,
    /// With the tokens that the denoiser finds likeliest, as the published code does. It does not weigh what is there already.
    #[default]
    Greedy,
}

/// Uniform tokens, which samples start from: a text of `length` by each generator.
pub fn prior<R: Rng>(vocab_size: usize, length: usize, rngs: &mut [R]) -> Tokens {
    let ids = rngs.iter_mut().flat_map(|rng| {
        let token = || rng.random_range(0..vocab_size as i32);
        std::iter::repeat_with(token)
            .take(length)
            .collect::<Vec<_>>()
    });
    Tokens::new(ids.collect(), length)
}

/// Moves `start`, uniform tokens, to texts in `sampling.steps` steps, each an evaluation of all of them. Where `known` says so, a token
/// stays what it is.
///
/// # Errors
///
/// Impossible settings.
///
/// # Panics
///
/// If `known` is not as long as the tokens, or there are not as many generators as texts.
pub fn sample<B: Backend, R: Rng>(
    model: &impl Predict<B>,
    start: Tokens,
    known: Option<&[bool]>,
    sampling: TokenSampling,
    tail: Tail,
    rngs: &mut [R],
) -> Result<Sampled, SamplingError> {
    sampling.check()?;
    assert_eq!(start.rows(), rngs.len(), "a generator for each text");
    if let Some(known) = known {
        assert_eq!(known.len(), start.ids().len(), "a token is known or not");
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

/// A step of the tokens at `free` from `level` to the level `earlier`, or to the likeliest clean ones.
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
