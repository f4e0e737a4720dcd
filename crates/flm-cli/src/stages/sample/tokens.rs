//! Samples of the families that move tokens, and what only some families have.

use super::given::Held;
use super::{Request, Sampler, Source};
use crate::error::{CliError, Result};
use crate::stages::{inspect, purpose};
use burn::tensor::backend::Backend;
use flm_denoiser::{Dit, DitConfig, Family};
use flm_discrete::duo::Tail;
use flm_discrete::{Sampling, Tokens, autoregressive, duo, mdlm};
use flm_simplex::stream::generator;

/// Refuses what the model has not.
pub(super) fn check(request: &Request, config: &DitConfig, model: &str) -> Result<()> {
    let of_points = config.family == Family::Flow;
    let refusal = if request.gamma > 0.0 && !config.two_time {
        format!("a flow map takes a gamma above 0, found {}", request.gamma)
    } else if request.trace && !of_points {
        "a flow or a flow map has a trace".to_owned()
    } else if request.greedy_tail && config.family != Family::Duo {
        "a duo model takes --greedy-tail".to_owned()
    } else if request.sampler != Sampler::Ode && (!of_points || config.residual) {
        "a flow or a flow map takes a --sampler".to_owned()
    } else if request.noise_scale != 1.0 && !of_points {
        "a flow or a flow map takes a --noise-scale".to_owned()
    } else if request.sampler != Sampler::Ode && request.gamma > 0.0 {
        return Err(CliError::input(format!(
            "--gamma {} is of the sampler `ode`: the others say themselves how much noise they put back",
            request.gamma
        )));
    } else if matches!(request.sampler, Sampler::Bridge | Sampler::Renoise)
        && request.guidance.is_auto()
    {
        return Err(CliError::input(
            "--guidance leaves the simplex, so no tokens can be drawn: use --sampler ode or bridge-mean",
        ));
    } else {
        return Ok(());
    };
    let kind = inspect::kind(config);
    let kind = if of_points {
        format!("a {kind}")
    } else {
        format!("of family {kind}")
    };
    Err(CliError::input(format!(
        "{model} is {kind}: only {refusal}"
    )))
}

impl<B: Backend> Source<B> {
    /// Tokens by a network of tokens, sample by sample, around those that are held.
    pub(super) fn by_tokens(
        &self,
        model: &Dit<B>,
        request: &Request,
        held: Option<&Held>,
        numbers: std::ops::Range<usize>,
    ) -> Result<Tokens> {
        // One generator for each sample: a sample does not depend on the ones drawn beside it.
        let mut rngs: Vec<_> = numbers
            .map(|number| generator(request.seed, purpose::START, number as u64, 0))
            .collect();
        let (vocab, length) = (self.config.vocab_size, self.config.length);
        let sampling = Sampling {
            steps: request.steps,
            temperature: request.temperature,
            nucleus: request.top_p,
        };
        let around = |mut start: Tokens| {
            if let Some(held) = held {
                held.write(&mut start);
            }
            start
        };
        let sampled = match self.config.family {
            Family::Mdlm => {
                let blank = around(Tokens::filled(vocab, [rngs.len(), length]));
                mdlm::sample(model, blank, sampling, true, &mut rngs)
            }
            Family::Duo => {
                let start = around(duo::prior(vocab, length, &mut rngs));
                let known = held.map(|held| &held.known[..]);
                let tail = if request.greedy_tail {
                    Tail::Greedy
                } else {
                    Tail::Ancestral
                };
                duo::sample(model, start, known, sampling, tail, &mut rngs)
            }
            Family::Autoregressive | Family::Flow => {
                let decoding = autoregressive::Decoding::Cached;
                let given = held.map(|held| autoregressive::Given {
                    tokens: &held.tokens,
                    known: &held.known,
                });
                autoregressive::sample(model, given, length, sampling, decoding, &mut rngs)
            }
        };
        Ok(sampled?.tokens)
    }
}
