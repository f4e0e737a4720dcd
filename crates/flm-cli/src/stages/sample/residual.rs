//! Samples of a residual flow map, on states as wide as the vocabulary.

use super::{Given, Request, Source};
use crate::error::{CliError, Result};
use crate::stages::purpose;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use flm_denoiser::Residual;
use flm_simplex::noise::gaussian;
use flm_simplex::stream::generator;

/// Refuses what only the answer of one network, a softmax, has.
pub(super) fn check(request: &Request, model: &str) -> Result<()> {
    let (what, found) = if request.gamma > 0.0 {
        (
            "takes a gamma above 0",
            format!(", found {}", request.gamma),
        )
    } else if request.top_p < 1.0 {
        (
            "takes a top-p below 1",
            format!(", found {}", request.top_p),
        )
    } else if request.given != Given::Nothing {
        ("takes --prompt, --suffix or --infill", String::new())
    } else if request.temperature == 1.0 {
        if !request.trace {
            return Ok(());
        }
        ("has a trace", String::new())
    } else {
        let found = format!(", found {}", request.temperature);
        ("takes a temperature other than 1", found)
    };
    Err(CliError::input(format!(
        "{model} is a residual flow map: only a model of one network {what}{found}"
    )))
}

impl<B: Backend> Source<B> {
    /// Tokens by two networks, `[samples, length]`.
    pub(super) fn by_two(
        &self,
        model: &Residual<B>,
        request: &Request,
        numbers: std::ops::Range<usize>,
    ) -> Result<Tensor<B, 2, Int>> {
        let device = model.denoiser.embed().embedding.device();
        let shape = [1, self.config.length, self.config.vocab_size];
        // One generator for each sample: a sample does not depend on the ones drawn beside it.
        let rows = numbers.map(|number| {
            let mut rng = generator(request.seed, purpose::START, number as u64, 0);
            gaussian(shape, &mut rng, &device)
        });
        let noise = Tensor::cat(rows.collect(), 0);
        Ok(model.sample(&self.schedule, noise, request.steps)?)
    }
}
