//! Samples of the families that move tokens, and what only some families have.

use super::{Request, Source};
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
    /// Tokens by a network of tokens, sample by sample.
    pub(super) fn by_tokens(
        &self,
        model: &Dit<B>,
        request: &Request,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<u32>> {
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
        let sampled = match self.config.family {
            Family::Mdlm => {
                let blank = Tokens::filled(vocab, [rngs.len(), length]);
                mdlm::sample(model, blank, sampling, true, &mut rngs)
            }
            Family::Duo => {
                let start = duo::prior(vocab, length, &mut rngs);
                let tail = if request.greedy_tail {
                    Tail::Greedy
                } else {
                    Tail::Ancestral
                };
                duo::sample(model, start, None, sampling, tail, &mut rngs)
            }
            Family::Autoregressive | Family::Flow => {
                let decoding = autoregressive::Decoding::Cached;
                autoregressive::sample(model, None, length, sampling, decoding, &mut rngs)
            }
        };
        let tokens = sampled?.tokens;
        Ok(tokens.ids().iter().map(|&id| id as u32).collect())
    }
}
