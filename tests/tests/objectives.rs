//! The flow map's objectives agree with the published implementation, loss and gradient.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::Flex;
use flm_denoiser::{Dit, Dropout, Noise};
use flm_distill::{FlowMapConfig, FlowMapObjective, RowKind, TimeRow};
use flm_simplex::Schedule;
use flm_tests::fixture::{self, Fixture, flat, relative_error};
use flm_tests::{checkpoint, golden, gradients::named_gradients};

type Train = Autodiff<Flex>;

/// As in the parity of the network, twice through it: the target is itself an answer of the network.
const TOLERANCE: f64 = 1e-4;

/// The rows of the pinned losses, in the fixture's order: diagonal, boundary, off-diagonal twice.
fn rows(file: &Fixture, prefix: &str) -> Vec<TimeRow> {
    let times = |name: &str| file.values(&format!("{prefix}{name}"));
    let spans = times("row_tau_s").into_iter().zip(times("row_tau_t"));
    file.integers(&format!("{prefix}row_kind"))
        .into_iter()
        .zip(spans)
        .map(|(kind, (tau_s, tau_t))| match kind {
            0 => TimeRow::diagonal(tau_s.into()),
            1 => TimeRow::span(RowKind::Boundary, tau_s.into(), tau_t.into()),
            _ => TimeRow::span(RowKind::OffDiagonal, tau_s.into(), tau_t.into()),
        })
        .collect()
}

fn schedule() -> Schedule {
    Schedule::new(61).expect("a vocabulary of 61")
}

fn losses(
    file: &Fixture,
    prefix: &str,
    student: &Dit<Train>,
    teacher: Option<Dit<Flex>>,
    rows: &[TimeRow],
) -> Tensor<Train, 2> {
    let objective = FlowMapObjective::new(schedule(), FlowMapConfig::default(), teacher);
    let noise = Noise::pinned(file.float(&format!("{prefix}noise")));
    let tokens = file.int(&format!("{prefix}tokens"));
    objective
        .losses(student, tokens, noise, rows, &mut Dropout::off())
        .per_token
}

#[test]
fn the_semigroup_loss_and_its_gradient_agree() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let folder = shared.join("parity/model");
    let file = Fixture::open(&folder.join("expected.safetensors"));
    let student: Dit<Train> =
        checkpoint::load_ema(&folder.join("fmlm.ckpt"), &fixture::config(true)).unwrap();
    let teacher: Dit<Flex> =
        checkpoint::load_ema(&folder.join("flm.ckpt"), &fixture::config(false)).unwrap();
    let loss = losses(&file, "", &student, Some(teacher), &rows(&file, ""));
    let error = relative_error(&flat(loss.clone()), &file.values("fmlm_psd_loss_per_token"));
    assert!(
        error < TOLERANCE,
        "loss of each token: relative error {error:.1e}"
    );

    let name = "output_layer.linear.weight";
    let gradients = named_gradients(&student, loss.mean());
    let found = gradients
        .iter()
        .find(|gradient| gradient.name == name)
        .unwrap();
    let error = relative_error(
        &found.values,
        &file.values(&format!("fmlm_psd_grad.{name}")),
    );
    assert!(
        error < TOLERANCE,
        "gradient of {name}: relative error {error:.1e}"
    );
}

#[test]
fn the_semigroup_loss_agrees_off_the_diagonal_in_any_clone() {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    let rows = rows(&file, "expected.");
    // Without the teacher the diagonal row learns from the tokens; the others do not ask it.
    let found = flat(losses(&file, "expected.", &student, None, &rows));
    let expected = file.values("expected.fmlm_psd_loss_per_token");
    let error = relative_error(&found[16..], &expected[16..]);
    assert!(
        error < TOLERANCE,
        "loss of each token: relative error {error:.1e}"
    );
}

#[test]
fn without_a_teacher_the_diagonal_learns_from_the_tokens() {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    let rows: Vec<TimeRow> = [0.2, 0.5, 0.7, 0.9].map(TimeRow::diagonal).to_vec();
    let distilled = flat(losses(&file, "expected.", &student, None, &rows));
    let flow = flm_distill::FlowObjective::new(schedule());
    let (tokens, noise) = (
        file.int("expected.tokens"),
        Noise::pinned(file.float("expected.noise")),
    );
    let trained = flow.losses(&student, tokens, noise, &rows, &mut Dropout::off());
    // The same sum, once as a distribution with all its mass on a token.
    assert!(relative_error(&distilled, &flat(trained.per_token)) < 1e-5);
}
