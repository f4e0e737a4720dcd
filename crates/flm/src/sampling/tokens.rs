//! Sampling of residual flow maps and of discrete models.

use super::draw::{Request, Row};
use crate::conditioning::KnownBatch;
use crate::{Model, Result, purpose};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use flm_denoiser::{Dit, Family, Residual};
use flm_discrete::duo::Tail;
use flm_discrete::{TokenSampling, Tokens, autoregressive, duo, mdlm};
use flm_simplex::noise::gaussian;

impl<B: Backend> Model<B> {
    /// Draws tokens from a residual flow map, on states as wide as the vocabulary.
    pub(super) fn residual_tokens(
        &self,
        model: &Residual<B>,
        request: &Request<'_, B>,
        rows: &[Row<'_>],
    ) -> Result<Tokens> {
        let shape = [1, self.config().length, self.config().vocab_size];
        let noise = rows.iter().map(|row| {
            let mut rng = row.generator(purpose::START, 0);
            gaussian(shape, &mut rng, self.device())
        });
        let noise = Tensor::cat(noise.collect(), 0).mul_scalar(request.options.noise_scale);
        Ok(Tokens::of(model.sample(
            self.schedule(),
            noise,
            request.steps,
        )?))
    }

    /// Draws tokens from a discrete model with one generator per sample, and keeps known tokens.
    pub(super) fn discrete_tokens(
        &self,
        model: &Dit<B>,
        request: &Request<'_, B>,
        known: Option<&KnownBatch>,
        rows: &[Row<'_>],
    ) -> Result<Tokens> {
        let options = request.options;
        let generator = |row: &Row<'_>| row.generator(purpose::START, 0);
        let mut rngs: Vec<_> = rows.iter().map(generator).collect();
        let (vocab, length) = (self.config().vocab_size, self.config().length);
        let sampling = TokenSampling {
            steps: request.steps,
            temperature: options.temperature,
            nucleus: options.top_p,
        };
        let around = |mut start: Tokens| {
            if let Some(known) = known {
                known.write(&mut start);
            }
            start
        };
        let sampled = match self.config().family {
            Family::Mdlm => {
                let masked = around(Tokens::filled(vocab, [rngs.len(), length]));
                mdlm::sample(model, masked, sampling, true, &mut rngs)
            }
            Family::Duo => {
                let start = around(duo::prior(vocab, length, &mut rngs));
                let known = known.map(|known| &known.known[..]);
                let tail = if options.greedy_tail {
                    Tail::Greedy
                } else {
                    Tail::Ancestral
                };
                duo::sample(model, start, known, sampling, tail, &mut rngs)
            }
            Family::Autoregressive | Family::Flow => {
                let decoding = autoregressive::Decoding::Cached;
                let given = known.map(|known| autoregressive::KnownTokens {
                    tokens: &known.tokens,
                    known: &known.known,
                });
                autoregressive::sample(model, given, length, sampling, decoding, &mut rngs)
            }
        };
        Ok(sampled?.tokens)
    }
}
