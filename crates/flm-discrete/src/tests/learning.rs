//! Tests that small networks learn a distribution of four texts with each objective.

use crate::autoregressive::{self, AutoregressiveObjective};
use crate::duo::curriculum::{Curriculum, Transform};
use crate::duo::{self, DuoObjective};
use crate::mdlm::{self, MdlmObjective};
use crate::tests::toy::{Kind, LENGTH, Toy, VOCAB};
use crate::{Bound, LogLinear, Tokens};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn_flex::Flex;
use flm_denoiser::{Dit, DitConfig, Dropout, Family};
use flm_objective::Losses;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Train = Autodiff<Flex>;

const STEPS: u64 = 300;
const BATCH: usize = 64;

/// Trains a network with `STEPS` steps of Adam.
fn trained(
    family: Family,
    losses: impl Fn(&Dit<Train>, &Tokens, u64, &mut ChaCha8Rng) -> Losses<Train>,
) -> Dit<Flex> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // Rotary attention alone cannot distinguish the first token from the second, so add a
    // register token.
    let config = DitConfig {
        cond_dim: 16,
        register_token: true,
        ..DitConfig::new(VOCAB, LENGTH, 32, 2, 2).with_family(family)
    };
    let mut model = config.init::<Train>(&mut rng, &Default::default()).unwrap();
    let mut optimizer = AdamConfig::new().init();
    let texts = Toy::new(Kind::Masked).thousand();
    for step in 0..STEPS {
        let rows: Vec<usize> = (0..BATCH)
            .map(|_| rng.random_range(0..texts.rows()))
            .collect();
        let loss = losses(&model, &texts.select(&rows), step, &mut rng).mean;
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(3e-3, model, grads);
    }
    model.valid()
}

/// Asserts that the bound is close to the entropy, which is the bound of an exact network.
fn assert_learned(nats: &[f64]) {
    let (found, exact) = (
        Bound::of(nats, LENGTH),
        Toy::new(Kind::Masked).entropy() / LENGTH as f64,
    );
    assert!(found.nats > exact - 4.0 * found.error, "{found:?}, {exact}");
    assert!(
        found.nats < 1.1 * exact + 4.0 * found.error,
        "{found:?}, {exact}"
    );
    // A uniform distribution has 1.1 nats per token, and independent tokens with the right
    // frequencies 1.06.
    assert!(found.error < 0.02, "{found:?}");
}

#[test]
fn masked_diffusion_learns() {
    let device = Default::default();
    let model = trained(Family::Mdlm, |model, tokens, _, rng| {
        let objective = MdlmObjective::default();
        let times = objective.times(tokens.rows(), rng);
        let tokens = tokens.tensor(&device);
        objective.score(model, tokens, &times, rng, &mut Dropout::off())
    });
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    assert_learned(&mdlm::nats(
        &model,
        &Toy::new(Kind::Masked).thousand(),
        32,
        &mut rng,
    ));
}

#[test]
fn uniform_state_diffusion_learns_after_a_curriculum() {
    let device = Default::default();
    let gamma = Transform::new(VOCAB).covering();
    let curriculum = Curriculum::new(VOCAB, gamma, 0.1, STEPS / 2);
    let objective = DuoObjective::new(LogLinear::default(), Some(curriculum));
    let model = trained(Family::Duo, |model, tokens, step, rng| {
        let times = objective.times(tokens.rows(), rng);
        let tokens = tokens.tensor(&device);
        objective.score(model, tokens, &times, step, rng, &mut Dropout::off())
    });
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    assert_learned(&duo::nats(
        &model,
        &Toy::new(Kind::Uniform).thousand(),
        64,
        &mut rng,
    ));
}

#[test]
fn an_autoregression_learns() {
    let device = Default::default();
    let model = trained(Family::Autoregressive, |model, tokens, _, _| {
        AutoregressiveObjective.score(model, tokens.tensor(&device), &mut Dropout::off())
    });
    let nats = autoregressive::nats(&model, &Toy::new(Kind::Masked).thousand());
    let found = Bound::of(&nats, LENGTH);
    let exact = Toy::new(Kind::Masked).entropy() / LENGTH as f64;
    // The cross-entropy is at least the entropy, without estimation error.
    assert!(
        (exact - 1e-6..1.03 * exact).contains(&found.nats),
        "{found:?}, {exact}"
    );
}
