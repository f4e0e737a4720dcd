//! Sampled tokens, which must equal the pinned ones.

use super::{ANSWER, Parity, Verdict};
use crate::fixture::{flat, flat_int};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Residual, SamplingDenoiser, TokenDistribution};
use flm_simplex::sampler;

/// Compares the most likely tokens of a distribution with the expected ones.
///
/// A differing token counts as a tie if its probability, or its entry of a state, is within the
/// numeric tolerance of the expected token's.
pub(super) fn tokens<B: Backend>(denoised: &TokenDistribution<B>, expected: &[i64]) -> Verdict {
    let found = flat_int(denoised.argmax());
    let dense = denoised.dense();
    let [.., vocabulary] = dense.dims();
    let dense = flat(dense);
    let tolerance = ANSWER as f32;
    let (mut wrong, mut ties) = (found.len().abs_diff(expected.len()), 0);
    for ((row, found), expected) in dense.chunks(vocabulary).zip(&found).zip(expected) {
        if found == expected {
            continue;
        }
        let best = row[*found as usize];
        let other = usize::try_from(*expected)
            .ok()
            .and_then(|token| row.get(token));
        match other {
            Some(other) if best - other <= tolerance * best.abs() => ties += 1,
            _ => wrong += 1,
        }
    }
    Verdict::Tokens {
        count: expected.len(),
        wrong,
        ties,
    }
}

impl<B: AutodiffBackend> Parity<B> {
    /// Compares samples that a network draws from the pinned noise.
    pub(super) fn sample(&self, name: &str) -> Option<Verdict> {
        let denoised = if let Some(steps) = name.strip_prefix("flm_euler_") {
            self.by_euler(steps.parse().ok()?)
        } else if let Some(rest) = name.strip_prefix("fmlm_gamma") {
            let (gamma, steps) = rest.split_once('_')?;
            self.by_flow_map(gamma.parse().ok()?, steps.parse().ok()?)
        } else if let Some(steps) = name.strip_prefix("residual_sample_") {
            self.by_residual(steps.parse().ok()?)
        } else {
            None
        };
        Some(tokens(&denoised?, &self.expected.integers(name)))
    }

    fn by_euler(&self, steps: usize) -> Option<TokenDistribution<B::InnerBackend>> {
        let model = self.flow.as_ref()?.valid();
        let start = model.embed().project(self.expected.float("z0"));
        sampler::euler(
            &SamplingDenoiser::new(&model),
            &self.schedule,
            start,
            steps,
            |_| (),
        )
        .ok()
    }

    fn by_flow_map(&self, gamma: f64, steps: usize) -> Option<TokenDistribution<B::InnerBackend>> {
        let model = self.flow_map.as_ref()?.valid();
        let project = |name: &str| model.embed().project(self.expected.float(name));
        let mut draws = 0;
        let fresh = || {
            draws += 1;
            project(&format!("fresh_noise_{}", draws - 1))
        };
        sampler::flow_map(
            &SamplingDenoiser::new(&model),
            &self.schedule,
            project("z0"),
            steps,
            gamma,
            fresh,
            |_| (),
        )
        .ok()
    }

    fn by_residual(&self, steps: usize) -> Option<TokenDistribution<B::InnerBackend>> {
        let (denoiser, second) = self.residual.as_ref()?;
        let model = Residual {
            denoiser: denoiser.clone(),
            second: second.valid(),
        };
        let noise = self.expected.float("z0");
        model.carry(&self.schedule, noise, steps).ok()
    }
}
