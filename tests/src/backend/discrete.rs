//! Discrete diffusion and autoregression: losses, gradients and samples, against the CPU's kernels in f32.

use super::{Bounds, VOCAB, ids, line, network_of};
use crate::fixture::{flat, relative_error};
use crate::parity::Line;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_flex::Flex;
use flm_denoiser::{Dit, Dropout, Execution, Family, Precision};
use flm_discrete::autoregressive::{self, AutoregressiveObjective, Decoding};
use flm_discrete::duo::curriculum::{Curriculum, Transform};
use flm_discrete::duo::{self, DuoObjective, Tail};
use flm_discrete::mdlm::{self, MdlmObjective};
use flm_discrete::{LogLinear, Sampling, TokenLosses, Tokens};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const LENGTH: usize = 16;
const TEXTS: usize = 3;
const STEPS: usize = 4;
/// What the CPU without its kernels may be off, with sums of a loss over all positions behind it.
const ROUNDING: f64 = 2e-5;

/// Every way to train, by its name.
#[derive(Clone, Copy)]
enum Way {
    Masked,
    Uniform,
    Curriculum,
    Autoregressive,
}

const WAYS: [(&str, Way, Family); 4] = [
    ("masked diffusion", Way::Masked, Family::Mdlm),
    ("uniform-state diffusion", Way::Uniform, Family::Duo),
    ("its curriculum", Way::Curriculum, Family::Duo),
    (
        "autoregression",
        Way::Autoregressive,
        Family::Autoregressive,
    ),
];

fn losses<A: AutodiffBackend>(model: &Dit<A>, way: Way) -> TokenLosses<A> {
    let tokens = ids::<A>(TEXTS * LENGTH, VOCAB as i32).reshape([TEXTS, LENGTH]);
    let (rng, off) = (
        &mut ChaCha8Rng::seed_from_u64(60),
        &mut Dropout::<'_>::off(),
    );
    let times = [0.2, 0.5, 0.9];
    match way {
        Way::Masked => MdlmObjective::default().losses(model, tokens, &times, rng, off),
        Way::Uniform => DuoObjective::default().losses(model, tokens, &times, 0, rng, off),
        Way::Curriculum => {
            let gamma = Transform::new(VOCAB).covering();
            let curriculum = Curriculum::new(VOCAB, gamma, 0.1, 1);
            let objective = DuoObjective::new(LogLinear::default(), Some(curriculum));
            objective.losses(model, tokens, &times, 0, rng, off)
        }
        Way::Autoregressive => AutoregressiveObjective.losses(model, tokens, off),
    }
}

/// Losses of all tokens, and gradients to all matrices.
fn trained<A: AutodiffBackend>(family: Family, way: Way, precision: Precision) -> [Vec<f32>; 2] {
    let model = network_of::<A>(family).with_execution(Execution {
        precision,
        ..Default::default()
    });
    let losses = losses(&model, way);
    let grads = losses.mean.backward();
    let gradients = model
        .matrices()
        .into_iter()
        .filter_map(|(_, matrix)| matrix.grad(&grads));
    [flat(losses.per_token), gradients.flat_map(flat).collect()]
}

/// Texts that a network of each family writes.
fn written<B: Backend>(model: &Dit<B>, family: Family) -> Tokens {
    let mut rngs = [61, 62, 63].map(ChaCha8Rng::seed_from_u64);
    let sampling = Sampling::new(STEPS);
    let sampled = match family {
        Family::Mdlm => {
            let start = Tokens::filled(VOCAB, [TEXTS, LENGTH]);
            mdlm::sample(model, start, sampling, false, &mut rngs)
        }
        Family::Duo => {
            let start = duo::prior(VOCAB, LENGTH, &mut rngs);
            duo::sample(model, start, None, sampling, Tail::Greedy, &mut rngs)
        }
        _ => autoregressive::sample(model, None, LENGTH, sampling, Decoding::Cached, &mut rngs),
    };
    sampled.expect("possible settings").tokens
}

pub(super) fn lines<A: AutodiffBackend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    for (name, way, family) in WAYS {
        let expected = trained::<Autodiff<Flex>>(family, way, Precision::F32);
        for &precision in bounds.precisions {
            let bound = match precision {
                Precision::F32 => ROUNDING * bounds.network,
                Precision::Bf16 => bounds.half_network,
            };
            let found = trained::<A>(family, way, precision);
            for ((what, found), expected) in ["losses", "gradients"]
                .into_iter()
                .zip(found)
                .zip(&expected)
            {
                let error = relative_error(&found, expected);
                line(
                    lines,
                    format!("{precision}: {what} of {name}"),
                    error,
                    bound,
                );
            }
        }
    }
    // A curriculum is sampled as what comes after it.
    for (name, way, family) in WAYS {
        if matches!(way, Way::Curriculum) {
            continue;
        }
        let here = written(&network_of::<A>(family).valid(), family);
        let expected = written(&network_of::<Flex>(family), family);
        let pairs = here.ids().iter().zip(expected.ids());
        let other = pairs.filter(|(here, expected)| here != expected).count();
        // One draw that falls between two roundings is enough for another text.
        let texts = if bounds.network > 1.0 { 1.0 } else { 0.0 };
        line(
            lines,
            format!("tokens written by {name}"),
            other as f64 / expected.ids().len() as f64,
            texts / TEXTS as f64,
        );
    }
}
