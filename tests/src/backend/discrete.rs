//! Losses, gradients and samples of discrete diffusion and autoregression, compared with the CPU
//! kernels in f32.

use super::{Bounds, VOCAB, ids, line, network_of};
use crate::fixture::{flat, relative_error};
use crate::parity::{ANSWER, Line};
use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_flex::Flex;
use flm_denoiser::{Dit, Dropout, Execution, Family, Precision};
use flm_discrete::autoregressive::{self, AutoregressiveObjective, Decoding};
use flm_discrete::duo::curriculum::{Curriculum, Transform};
use flm_discrete::duo::{self, DuoObjective, Tail};
use flm_discrete::mdlm::{self, MdlmObjective};
use flm_discrete::{LogLinear, TokenSampling, Tokens};
use flm_objective::Losses;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const LENGTH: usize = 16;
const TEXTS: usize = 3;
const STEPS: usize = 4;

/// An objective under test.
#[derive(Clone, Copy)]
enum Objective {
    Masked,
    Uniform,
    Curriculum,
    Autoregressive,
}

impl Objective {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Masked, "masked diffusion"),
        (Self::Uniform, "uniform-state diffusion"),
        (Self::Curriculum, "Duo's curriculum"),
        (Self::Autoregressive, "autoregression"),
    ];

    fn family(self) -> Family {
        match self {
            Self::Masked => Family::Mdlm,
            Self::Uniform | Self::Curriculum => Family::Duo,
            Self::Autoregressive => Family::Autoregressive,
        }
    }

    fn losses<A: AutodiffBackend>(self, model: &Dit<A>) -> Losses<A> {
        let tokens = ids::<A>(TEXTS * LENGTH, VOCAB as i32).reshape([TEXTS, LENGTH]);
        let rng = &mut ChaCha8Rng::seed_from_u64(60);
        let off = &mut Dropout::off();
        let times = [0.2, 0.5, 0.9];
        match self {
            Self::Masked => MdlmObjective::default().score(model, tokens, &times, rng, off),
            Self::Uniform => DuoObjective::default().score(model, tokens, &times, 0, rng, off),
            Self::Curriculum => {
                let gamma = Transform::new(VOCAB).covering();
                let curriculum = Curriculum::new(VOCAB, gamma, 0.1, 1);
                let objective = DuoObjective::new(LogLinear::default(), Some(curriculum));
                objective.score(model, tokens, &times, 0, rng, off)
            }
            Self::Autoregressive => AutoregressiveObjective.score(model, tokens, off),
        }
    }

    /// Returns the losses of all tokens and the gradient of each matrix.
    fn trained<A: AutodiffBackend>(self, precision: Precision) -> (Vec<f32>, Vec<Vec<f32>>) {
        let model = network_of::<A>(self.family()).with_execution(Execution {
            precision,
            ..Default::default()
        });
        let losses = self.losses(&model);
        let grads = losses.mean.backward();
        let gradients = model
            .matrices()
            .into_iter()
            .map(|(_, matrix)| flat(matrix.grad(&grads).expect("every matrix has a gradient")))
            .collect();
        (flat(losses.per_token), gradients)
    }

    /// Samples texts from the network. `None` for the curriculum, which changes training only.
    fn written<B: Backend>(self) -> Option<Tokens> {
        let model = network_of::<B>(self.family());
        let mut rngs = [61, 62, 63].map(ChaCha8Rng::seed_from_u64);
        let sampling = TokenSampling::new(STEPS);
        let sampled = match self {
            Self::Masked => {
                let start = Tokens::filled(VOCAB, [TEXTS, LENGTH]);
                mdlm::sample(&model, start, sampling, false, &mut rngs)
            }
            Self::Uniform => {
                let start = duo::prior(VOCAB, LENGTH, &mut rngs);
                duo::sample(&model, start, None, sampling, Tail::Greedy, &mut rngs)
            }
            Self::Autoregressive => {
                let cached = Decoding::Cached;
                autoregressive::sample(&model, None, LENGTH, sampling, cached, &mut rngs)
            }
            Self::Curriculum => return None,
        };
        Some(sampled.expect("valid settings").tokens)
    }
}

pub(super) fn lines<A: AutodiffBackend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    for (objective, name) in Objective::ALL {
        let (expected, gradients) = objective.trained::<Autodiff<Flex>>(Precision::F32);
        for &precision in bounds.precisions {
            let bound = match precision {
                Precision::F32 => ANSWER * bounds.network,
                Precision::Bf16 => bounds.half_network,
            };
            let (found, found_gradients) = objective.trained::<A>(precision);
            let error = relative_error(&found, &expected);
            line(
                lines,
                format!("{precision}: losses of {name}"),
                error,
                bound,
            );
            let worst = std::iter::zip(&found_gradients, &gradients)
                .map(|(found, expected)| relative_error(found, expected))
                .fold(0.0, f64::max);
            let what = format!("{precision}: gradients of the matrices, {name}");
            line(lines, what, worst, bound);
        }
        let texts = (
            objective.written::<A::InnerBackend>(),
            objective.written::<Flex>(),
        );
        if let (Some(here), Some(expected)) = texts {
            let other = (0..TEXTS).filter(|&row| here.row(row) != expected.row(row));
            line(
                lines,
                format!("texts sampled by {name}"),
                other.count() as f64,
                bounds.texts as f64,
            );
        }
    }
}
