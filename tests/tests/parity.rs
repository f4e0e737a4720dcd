//! The network and the samplers agree with the published implementation.
//!
//! The first half needs the golden file alone and runs in any clone; the second half needs the full fixtures. See the root
//! of `flm_tests`.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_flex::Flex;
use flm_denoiser::{Belief, Dit, Dropout, Dual, Prediction, Sampling};
use flm_simplex::{Schedule, flow_map, interpolant, sampler};
use flm_tests::fixture::{self, Fixture, flat, flat_int, relative_error};
use flm_tests::{checkpoint, golden, gradients::named_gradients};
use std::path::Path;

/// A backend for which `flm_ops` has no kernels, so that its compositions are checked as well.
type Composed = Autodiff<Flex, BalancedCheckpointing>;

/// Agreement asked of f32 numbers: two implementations add the same few hundred terms in other orders through two blocks.
/// Rounding of 6e-8 grows to 1e-6 or 3e-6 on the way; a wrong constant or a wrong ε shows at 1e-3.
const TOLERANCE: f64 = 2e-5;

fn assert_agrees<B: Backend, const D: usize>(found: Tensor<B, D>, expected: &[f32], what: &str) {
    let error = relative_error(&flat(found), expected);
    assert!(error < TOLERANCE, "{what}: relative error {error:.1e}");
}

/// The prediction for the state `[batch, length, vocabulary]` called `state`, at the times of these names.
fn predict<B: Backend>(
    model: &Dit<B>,
    file: &Fixture,
    state: &str,
    tau_s: &str,
    tau_t: &str,
) -> Prediction<B> {
    let projected = model.embed().project(file.float(state));
    model.forward(
        projected,
        file.float(tau_s),
        file.float(tau_t),
        &mut Dropout::off(),
    )
}

/// The two-time network's belief about a projected state.
fn believe(
    model: &Dit<Flex>,
    state: Tensor<Flex, 3>,
    file: &Fixture,
    tau_s: &str,
    tau_t: &str,
) -> Belief<Flex> {
    model
        .forward(
            state,
            file.float(tau_s),
            file.float(tau_t),
            &mut Dropout::off(),
        )
        .belief()
}

fn log_probs_agree<B: Backend>() {
    let file = golden::open();
    let model: Dit<B> = golden::model(&file);
    let prediction = predict(
        &model,
        &file,
        "expected.x_t",
        "expected.pair_tau_s",
        "expected.pair_tau_t",
    );
    let expected = file.values("expected.fmlm_log_probs");
    assert_agrees(prediction.dense_log_probs(), &expected, "log-probabilities");
    // The same numbers by the head's other ways to them.
    let tokens = file.int::<B, 2>("expected.tokens");
    let ids = flat_int(tokens.clone());
    let picked: Vec<f32> = expected
        .chunks(61)
        .zip(&ids)
        .map(|(row, id)| -row[*id as usize])
        .collect();
    assert_agrees(-prediction.log_probs(tokens), &picked, "cross-entropy");
    let probabilities: Vec<f32> = expected.iter().map(|value| value.exp()).collect();
    assert_agrees(prediction.belief().dense(), &probabilities, "probabilities");
}

#[test]
fn a_two_time_network_agrees() {
    log_probs_agree::<Flex>();
}

#[test]
fn a_two_time_network_agrees_without_kernels() {
    log_probs_agree::<Composed>();
}

#[test]
fn flow_map_samples_are_the_same_tokens() {
    let file = golden::open();
    let model: Dit<Flex> = golden::model(&file);
    let schedule = Schedule::new(61).unwrap();
    let project = |name: &str| model.embed().project(file.float(name));
    for (gamma, steps) in [
        ("0.0", 1),
        ("0.0", 2),
        ("0.0", 4),
        ("0.0", 8),
        ("0.8", 1),
        ("0.8", 2),
        ("0.8", 4),
    ] {
        let mut draws = 0;
        let fresh = || {
            draws += 1;
            project(&format!("expected.fresh_noise_{}", draws - 1))
        };
        let belief = sampler::flow_map(
            &Sampling::new(&model),
            &schedule,
            project("expected.z0"),
            steps,
            gamma.parse().unwrap(),
            fresh,
            |_| (),
        );
        let tokens = flat_int(belief.unwrap().argmax());
        let name = format!("expected.fmlm_gamma{gamma}_{steps}");
        assert_eq!(tokens, file.integers(&name), "{name}");
    }
}

#[test]
fn the_parts_of_the_semigroup_target_agree() {
    let file = golden::open();
    let model: Dit<Flex> = golden::model(&file);
    let embed = model.embed();
    let (s, u, t) = (
        file.float("flow_map.s"),
        file.float("flow_map.u"),
        file.float::<Flex, 1>("flow_map.t"),
    );
    // I_s and then X_{s,u} are carried as projections, never dense.
    let state = interpolant::interpolate(
        embed.project(file.float("expected.noise")),
        embed.tokens(file.int("expected.tokens")),
        s.clone(),
    );
    let whole = believe(
        &model,
        state.clone(),
        &file,
        "flow_map.tau_s",
        "flow_map.tau_t",
    );
    assert_agrees(whole.dense(), &file.values("flow_map.delta_st"), "δ_{s,t}");

    let first = believe(
        &model,
        state.clone(),
        &file,
        "flow_map.tau_s",
        "flow_map.tau_u",
    );
    let moved = flow_map::transport(state, first.mean(embed), s.clone(), u.clone());
    let expected = embed.project(file.float("flow_map.X_su"));
    assert_agrees(moved.clone(), &flat(expected), "X_{s,u}·E");

    let second = believe(&model, moved, &file, "flow_map.tau_u", "flow_map.tau_t");
    assert_agrees(second.dense(), &file.values("flow_map.delta_ut"), "δ_{u,t}");

    let gamma = flow_map::semigroup_weights(s, u, t);
    assert_agrees(gamma.clone(), &file.values("flow_map.semigroup_gamma"), "γ");
    let target = first.mix(second, gamma);
    assert_agrees(
        target.dense(),
        &file.values("flow_map.semigroup_target"),
        "target",
    );
}

/// The derivatives of δ_{s,t} at I_s along the two times and along the velocity.
fn derivatives_agree<B: Backend>() {
    let file = golden::open();
    let model: Dit<B> = golden::model(&file);
    let embed = model.embed();
    let state = interpolant::interpolate(
        embed.project(file.float("expected.noise")),
        embed.tokens(file.int("expected.tokens")),
        file.float("flow_map.s"),
    );
    let tau = |name: &str| file.float::<B, 1>(name);
    let (tau_s, tau_t) = (tau("flow_map.tau_s"), tau("flow_map.tau_t"));
    let velocity = embed.project(file.float("flow_map.velocity_s"));
    let (still, zero, one) = (velocity.zeros_like(), tau_s.zeros_like(), tau_s.ones_like());
    for (name, direction, by_s, by_t) in [
        ("d_tau_s", still.clone(), one.clone(), zero.clone()),
        ("d_tau_t", still, zero.clone(), one),
        ("along_velocity", velocity, zero.clone(), zero),
    ] {
        let jvp = model.jvp(
            Dual {
                value: state.clone(),
                tangent: direction,
            },
            Dual {
                value: tau_s.clone(),
                tangent: by_s,
            },
            Dual {
                value: tau_t.clone(),
                tangent: by_t,
            },
        );
        let found = jvp.dense();
        assert_agrees(found.value, &file.values("flow_map.delta_st"), "δ_{s,t}");
        let name = format!("flow_map.d_delta_{name}");
        assert_agrees(found.tangent, &file.values(&name), &name);
    }
}

#[test]
fn derivatives_of_a_flow_map_agree() {
    derivatives_agree::<Flex>();
}

#[test]
fn derivatives_of_a_flow_map_agree_without_kernels() {
    derivatives_agree::<Composed>();
}

// From here on with the full fixtures.

/// `expected.safetensors` and the averaged weights of a checkpoint.
fn full<B: Backend>(shared: &Path, checkpoint: &str, two_time: bool) -> (Fixture, Dit<B>) {
    let folder = shared.join("parity/model");
    let expected = Fixture::open(&folder.join("expected.safetensors"));
    let model = checkpoint::load_ema(&folder.join(checkpoint), &fixture::config(two_time));
    (expected, model.unwrap_or_else(|error| panic!("{error}")))
}

fn flow_agrees<B: AutodiffBackend>() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let (file, model) = full::<B>(&shared, "flm.ckpt", false);
    let prediction = predict(&model, &file, "x_t", "tau", "tau");
    assert_agrees(
        prediction.dense_logits(),
        &file.values("flm_logits"),
        "logits",
    );
    assert_agrees(
        prediction.dense_log_probs(),
        &file.values("flm_log_probs"),
        "log-probabilities",
    );
    let tokens = file.int::<B, 2>("tokens");
    let [batch, length] = tokens.dims();
    let mean = Tensor::full(
        [batch, length],
        1.0 / (batch * length) as f64,
        &Default::default(),
    );
    let score = prediction.cross_entropy(tokens, mean);
    assert_agrees(
        score.per_token,
        &file.values("flm_loss_per_token"),
        "loss of each token",
    );

    let gradients = named_gradients(&model, score.loss);
    let pinned: Vec<&str> = file
        .0
        .keys()
        .filter_map(|name| name.strip_prefix("flm_grad."))
        .collect();
    assert_eq!(pinned.len(), 7);
    for name in pinned {
        let found = gradients
            .iter()
            .find(|gradient| gradient.name == name)
            .unwrap();
        let key = format!("flm_grad.{name}");
        assert_eq!(found.shape, file.pinned(&key).shape, "{key}");
        let error = relative_error(&found.values, &file.values(&key));
        assert!(error < TOLERANCE, "{key}: relative error {error:.1e}");
    }
}

#[test]
fn a_flow_agrees_with_its_loss_and_gradients() {
    flow_agrees::<Autodiff<Flex>>();
}

#[test]
fn a_flow_agrees_without_kernels() {
    flow_agrees::<Composed>();
}

#[test]
fn euler_samples_are_the_same_tokens() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let (file, model) = full::<Flex>(&shared, "flm.ckpt", false);
    let schedule = Schedule::new(61).unwrap();
    for steps in [1, 2, 4, 8, 32] {
        let start = model.embed().project(file.float("z0"));
        let belief =
            sampler::euler(&Sampling::new(&model), &schedule, start, steps, |_| ()).unwrap();
        let name = format!("flm_euler_{steps}");
        assert_eq!(flat_int(belief.argmax()), file.integers(&name), "{name}");
    }
}

#[test]
fn the_teacher_of_the_flow_map_agrees() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let (expected, teacher) = full::<Flex>(&shared, "flm.ckpt", false);
    let file = Fixture::open(&shared.join("parity/model/flow_map.safetensors"));
    let belief = predict(&teacher, &file, "I_s", "tau_s", "tau_s").belief();
    assert_agrees(belief.dense(), &file.values("D_s_at_I_s"), "D_s at I_s");
    let belief = predict(&teacher, &file, "X_st", "tau_t", "tau_t").belief();
    assert_agrees(
        belief.dense(),
        &file.values("D_t_at_X_st"),
        "D_t at X_{s,t}",
    );
    let derived = golden::open().values(golden::TEACHER);
    assert_agrees(
        golden::teacher_belief(&teacher, &expected),
        &derived,
        golden::TEACHER,
    );
}

#[test]
fn the_golden_file_is_cut_from_the_fixtures() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let (mut golden, mut made) = (golden::open(), golden::make(&shared));
    // Computed and not copied: compared within its tolerance above.
    assert!(golden.0.remove(golden::TEACHER).is_some() && made.0.remove(golden::TEACHER).is_some());
    assert!(golden.0.keys().eq(made.0.keys()));
    for (name, pinned) in &made.0 {
        assert!(golden.pinned(name) == pinned, "{name} differs");
    }
}
