//! Sampling of flows and flow maps with one network.

use super::draw::{Request, Row};
use super::{SampleOptions, Sampler};
use crate::conditioning::KnownBatch;
use crate::{Result, purpose};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};
use flm_denoiser::{Dit, DitConfig, Prior, SamplingDenoiser, TokenDistribution};
use flm_simplex::guidance::{Autoguidance, RewardGuidance};
use flm_simplex::sampler::{self, Renewal, Step};
use flm_simplex::{Denoiser, Pinned, Schedule};
use rand::RngExt;
use std::ops::ControlFlow;

/// A network and the rows to draw.
pub(super) struct Noised<'a, B: Backend> {
    pub(super) model: &'a Dit<B>,
    pub(super) prior: &'a Prior<B>,
    pub(super) config: &'a DitConfig,
    pub(super) schedule: &'a Schedule,
    pub(super) rows: &'a [Row<'a>],
}

/// Known positions, which follow the straight line from noise to data, and their clean states.
struct Pins<B: Backend> {
    /// `[samples, length]`.
    known: Tensor<B, 2, Bool>,
    /// `[samples, length, width]`.
    clean: Tensor<B, 3>,
}

impl<B: Backend> Noised<'_, B> {
    /// Draws tokens `[samples, length]`.
    pub(super) fn sample(
        &self,
        request: &Request<'_, B>,
        known: Option<&KnownBatch>,
        observe: impl FnMut(Step<'_, TokenDistribution<B>>) -> ControlFlow<()>,
    ) -> Result<Tensor<B, 2, Int>> {
        let (options, guides) = (request.options, &request.guides);
        let (mut strong, weak) =
            guides.networks(self.model, options.seed, self.rows[0].number as usize);
        let mut pins = None;
        if let Some(known) = known {
            let device = self.model.embed().embedding.device();
            let (mask, tokens) = (known.mask(&device), known.tokens.tensor(&device));
            if self.config.conditioning {
                // `Guidance::check` rejects guidance in this case.
                strong = strong.knowing(mask, tokens);
            } else {
                let clean = guides.states(self.model).tokens(tokens);
                pins = Some(Pins { known: mask, clean });
            }
        }
        let (strong, by) = (sharpened(strong, options)?, guides.steer());
        let denoised = match weak {
            None => {
                let denoiser = strong;
                self.carry(&RewardGuidance { denoiser, by }, pins, request, observe)
            }
            Some((eta, weak)) => {
                let weak = sharpened(weak, options)?;
                let denoiser = Autoguidance { strong, weak, eta };
                self.carry(&RewardGuidance { denoiser, by }, pins, request, observe)
            }
        }?;
        options.guidance.check_finite(&denoised)?;
        Ok(denoised.argmax())
    }

    /// Draws projected noise.
    fn noise(&self, request: &Request<'_, B>, purpose: u64, jump: u64) -> Tensor<B, 3> {
        let rows = self.rows.iter().map(|row| {
            let mut rng = row.generator(purpose, jump);
            let length = self.config.length;
            request
                .guides
                .noise(self.model, self.prior, length, &mut rng)
        });
        Tensor::cat(rows.collect(), 0)
    }

    /// Runs the sampler with the known positions pinned, and returns its last distributions.
    fn carry<D: Denoiser<B, TokenDistribution = TokenDistribution<B>>>(
        &self,
        denoiser: &D,
        pins: Option<Pins<B>>,
        request: &Request<'_, B>,
        observe: impl FnMut(Step<'_, TokenDistribution<B>>) -> ControlFlow<()>,
    ) -> Result<TokenDistribution<B>> {
        let start = self.noise(request, purpose::START, 0);
        let start = start.mul_scalar(request.options.noise_scale);
        let Some(Pins { known, clean }) = pins else {
            return self.follow(denoiser, start, request, observe);
        };
        let pinned = Pinned::new(denoiser, self.schedule, known, start.clone(), clean);
        self.follow(&pinned, start, request, observe)
    }

    /// Runs the chosen sampler from noise to token distributions.
    fn follow<D: Denoiser<B, TokenDistribution = TokenDistribution<B>>>(
        &self,
        denoiser: &D,
        start: Tensor<B, 3>,
        request: &Request<'_, B>,
        observe: impl FnMut(Step<'_, TokenDistribution<B>>) -> ControlFlow<()>,
    ) -> Result<TokenDistribution<B>> {
        let (schedule, options, steps) = (self.schedule, request.options, request.steps);
        let mut jump = 0;
        let fresh = || {
            jump += 1;
            self.noise(request, purpose::FRESH, jump)
        };
        let renewal = match options.sampler {
            Sampler::Ode if self.config.two_time => {
                let gamma = options.gamma;
                let last =
                    sampler::flow_map(denoiser, schedule, start, steps, gamma, fresh, observe);
                return Ok(last?);
            }
            Sampler::Ode => return Ok(sampler::euler(denoiser, schedule, start, steps, observe)?),
            Sampler::Bridge | Sampler::BridgeMean => Renewal::Bridge,
            Sampler::Renoise => Renewal::Full,
        };
        let states = request.guides.states(self.model);
        let mut step = 0;
        let endpoint = |denoised: &TokenDistribution<B>| {
            if options.sampler == Sampler::BridgeMean {
                return denoiser.mean(denoised);
            }
            step += 1;
            let uniform = self.rows.iter().flat_map(|row| {
                let rng = row.generator(purpose::ENDPOINT, step);
                rng.random_iter::<f64>().take(self.config.length)
            });
            let uniform: Vec<f64> = uniform.collect();
            states.tokens(denoised.draw_by(1.0, &uniform))
        };
        let last = sampler::bridge(
            denoiser, schedule, start, steps, renewal, endpoint, fresh, observe,
        );
        Ok(last?)
    }
}

/// Applies temperature and nucleus of the options to a network.
fn sharpened<'a, B: Backend>(
    network: SamplingDenoiser<'a, B>,
    options: &SampleOptions,
) -> Result<SamplingDenoiser<'a, B>> {
    let network = network.at_temperature(options.temperature)?;
    Ok(network.within_nucleus(options.top_p))
}
