//! Objectives on tokens.
//!
//! None of them starts from noise that is projected: it would be as wide as the vocabulary, which costs nothing as nobody draws it.

use super::{Draw, Losses, Objective, purpose};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout};
use flm_discrete::TokenLosses;
use flm_discrete::autoregressive::AutoregressiveObjective;
use flm_discrete::dcd::DcdObjective;
use flm_discrete::duo::DuoObjective;
use flm_discrete::mdlm::MdlmObjective;
use flm_discrete::sdtt::SdttObjective;
use rand_chacha::ChaCha8Rng;

impl<B: AutodiffBackend> Draw<'_, B> {
    /// What `losses` says of this part: of its share of the batch's `times`, with corruption and dropout of its own.
    fn score_tokens(
        &self,
        times: &[f64],
        losses: impl FnOnce(&[f64], &mut ChaCha8Rng, &mut Dropout<'_>) -> TokenLosses<B>,
    ) -> Losses<B> {
        let mut generator = self.stream.own(purpose::DROPOUT);
        let mut dropout = Dropout::on(self.dropout, &mut generator);
        let mut corruption = self.stream.own(purpose::CORRUPTION);
        losses(&self.stream.share(times), &mut corruption, &mut dropout).into()
    }

    fn times(&self) -> ChaCha8Rng {
        self.stream.shared(purpose::TIMES)
    }
}

/// The two methods that all of them share.
macro_rules! on_tokens {
    ($evaluations:path) => {
        fn evaluations(&self, batch: usize) -> f64 {
            $evaluations(self, batch)
        }

        fn wide_noise(&self) -> bool {
            true
        }
    };
}

impl<B: AutodiffBackend> Objective<B> for AutoregressiveObjective {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        _: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        draw.score_tokens(&[], |_, _, dropout| {
            AutoregressiveObjective::losses(self, model, tokens, dropout)
        })
    }

    on_tokens!(AutoregressiveObjective::evaluations);
}

impl<B: AutodiffBackend> Objective<B> for MdlmObjective {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let times = self.times(batch, &mut draw.times());
        draw.score_tokens(&times, |times, rng, dropout| {
            MdlmObjective::losses(self, model, tokens, times, rng, dropout)
        })
    }

    on_tokens!(MdlmObjective::evaluations);
}

/// A validation is in no step of the curriculum, so its loss is always the bound.
impl<B: AutodiffBackend> Objective<B> for DuoObjective {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let (times, step) = (self.times(batch, &mut draw.times()), draw.stream.step);
        draw.score_tokens(&times, |times, rng, dropout| {
            DuoObjective::losses(self, model, tokens, times, step, rng, dropout)
        })
    }

    on_tokens!(DuoObjective::evaluations);
}

impl<B: AutodiffBackend> Objective<B> for SdttObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let times = self.times(batch, &mut draw.times());
        draw.score_tokens(&times, |times, rng, dropout| {
            SdttObjective::losses(self, model, tokens, times, rng, dropout)
        })
    }

    on_tokens!(SdttObjective::evaluations);
}

impl<B: AutodiffBackend> Objective<B> for DcdObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let times = self.times(batch, &mut draw.times());
        draw.score_tokens(&times, |times, rng, dropout| {
            DcdObjective::losses(self, model, tokens, times, rng, dropout)
        })
    }

    on_tokens!(DcdObjective::evaluations);
}
