//! The residual objectives agree with their formulas on dense states. `parity.rs` compares them
//! with the published numbers.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use burn_flex::Flex;
use flm_denoiser::{Dit, Dropout, Noise, Residual, SamplingDenoiser, apply_tensors, named_tensors};
use flm_distill::{ResidualObjective, ResidualStudent, RowKind, TimeRow};
use flm_objective::Losses;
use flm_simplex::{Schedule, sampler};
use flm_tests::fixture::{self, Fixture, flat, flat_int, relative_error};
use flm_tests::{golden, gradients::named_gradients};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

type Train = Autodiff<Flex>;

/// As for the other objectives: outputs of networks are inputs of networks.
const TOLERANCE: f64 = 1e-4;

fn schedule() -> Schedule {
    Schedule::new(61).expect("a vocabulary of 61")
}

/// A one-time network with the golden file's weights, scaled by 0.9.
fn denoiser(file: &Fixture) -> Dit<Flex> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let fresh = fixture::config(false).init::<Flex>(&mut rng, &Default::default());
    let mut tensors = named_tensors(&golden::model::<Flex>(file));
    tensors.retain(|tensor| !tensor.name.starts_with("sigma_map_prime"));
    for value in tensors.iter_mut().flat_map(|tensor| &mut tensor.values) {
        *value *= 0.9;
    }
    apply_tensors(fresh.unwrap(), Path::new("smaller"), tensors).unwrap()
}

/// Four spans: an inner one, the whole interval, one that ends just before 1, and a very short one.
fn spans() -> Vec<TimeRow> {
    [(0.2, 0.8), (0.0, 1.0), (0.5, 0.9999), (0.4, 0.4001)]
        .map(|(tau_s, tau_t)| TimeRow::span(RowKind::OffDiagonal, tau_s, tau_t))
        .to_vec()
}

fn noise(file: &Fixture) -> Noise<Flex> {
    Noise::pinned(file.float("expected.noise"))
}

/// Returns I_s of row `i`, `[1, length, vocabulary]`.
fn dense_state(file: &Fixture, i: usize, s: f64) -> Tensor<Flex, 3> {
    let noise = file.float::<Flex, 3>("expected.noise").narrow(0, i, 1);
    let tokens = file.int::<Flex, 2>("expected.tokens").narrow(0, i, 1);
    let clean: Tensor<Flex, 3> = tokens.one_hot(61).float();
    noise.mul_scalar(1.0 - s) + clean.mul_scalar(s)
}

/// Returns the logits of a network for a V-wide state, before the softcap.
fn outputs<B: Backend>(
    network: &Dit<B>,
    state: &Tensor<B, 3>,
    [tau_s, tau_t]: [f64; 2],
) -> Tensor<B, 3> {
    let at = |value: f64| Tensor::<B, 1>::full([1], value, &Default::default());
    let seen = network.embed().project(state.clone());
    let prediction = network.forward(seen, at(tau_s), at(tau_t), &mut Dropout::off());
    prediction.dense_logits()
}

fn denoise(network: &Dit<Flex>, state: &Tensor<Flex, 3>, taus: [f64; 2]) -> Tensor<Flex, 3> {
    let logits = outputs(network, state, taus);
    let capped = logits.div_scalar(30.0).tanh().mul_scalar(30.0);
    burn::tensor::activation::softmax(capped, 2)
}

/// Returns the published target for ½(t−s)(1−s)·g_{s,t} on a dense state, and that factor.
///
/// The target leaves out the state's share due to the guard, ε/(1−s+ε)·x with ε = 1e-5.
fn dense_target(
    denoiser: &Dit<Flex>,
    second: &Dit<Flex>,
    x: &Tensor<Flex, 3>,
    row: &TimeRow,
) -> (Tensor<Flex, 3>, f64) {
    let [tau_s, tau_u, tau_t] = [row.tau_s, row.tau_u, row.tau_t];
    let [s, u, t] = [tau_s, tau_u, tau_t].map(|tau| schedule().t_of_tau(tau));
    let guarded = |time: f64| 1.0 - time + 1e-5;
    let clean = denoise(denoiser, x, [tau_s, tau_s]);
    let velocity = (clean.clone() - x.clone()).div_scalar(guarded(s));
    let to_middle = velocity + outputs(second, x, [tau_s, tau_u]).mul_scalar(0.5 * (u - s));
    let middle = x.clone() + to_middle.clone().mul_scalar(u - s);
    let there = denoise(denoiser, &middle, [tau_u, tau_u]);
    let velocity = (there - middle.clone()).div_scalar(guarded(u));
    let to_end = velocity + outputs(second, &middle, [tau_u, tau_t]).mul_scalar(0.5 * (t - u));
    let way = to_middle.mul_scalar(u - s) + to_end.mul_scalar(t - u);
    let left_out = x.clone().mul_scalar(1e-5 / guarded(s));
    let target = x.clone() + way.mul_scalar((1.0 - s) / (t - s)) - clean - left_out;
    (target, 0.5 * (t - s) * (1.0 - s))
}

#[test]
fn the_loss_and_its_gradient_are_those_of_the_formula_on_dense_states() {
    let file = golden::open();
    let (denoiser, second) = (denoiser(&file), golden::model::<Train>(&file));
    let plain: Dit<Flex> = golden::model(&file);
    let mut losses = Vec::new();
    for (i, row) in spans().iter().enumerate() {
        let state = dense_state(&file, i, schedule().t_of_tau(row.tau_s));
        let (target, scale) = dense_target(&denoiser, &plain, &state, row);
        let state = Tensor::<Train, 3>::from_inner(state);
        let answer = outputs(&second, &state, [row.tau_s, row.tau_t]).mul_scalar(scale);
        let error = answer - Tensor::from_inner(target);
        losses.push((error.clone() * error).sum_dim(2).squeeze_dim::<2>(2));
    }
    let expected = Tensor::cat(losses, 0);
    let found: Losses<Train> = ResidualObjective::new(schedule(), denoiser).score(
        &second,
        file.int("expected.tokens"),
        &noise(&file),
        &spans(),
        &mut Dropout::off(),
    );
    let (ours, by_hand) = (flat(found.per_token), flat(expected.clone()));
    let length = ours.len() / spans().len();
    for (row, (found, expected)) in ours.chunks(length).zip(by_hand.chunks(length)).enumerate() {
        let error = relative_error(found, expected);
        // The short span divides f32 differences of states of order one by a length of 1e-4.
        let tolerance = if row == 3 { 1e-2 } else { TOLERANCE };
        assert!(error < tolerance, "row {row}: relative error {error:.1e}");
    }
    let gradients = [found.mean, expected.mean()].map(|loss| named_gradients(&second, loss));
    let [ours, by_hand] = gradients;
    for (found, expected) in ours.iter().zip(&by_hand) {
        let error = relative_error(&found.values, &expected.values);
        let name = &expected.name;
        assert!(error < TOLERANCE, "{name}: relative error {error:.1e}");
    }
}

#[test]
fn the_students_loss_is_the_distance_of_dense_states() {
    let file = golden::open();
    let (denoiser, second) = (denoiser(&file), golden::model::<Flex>(&file));
    let student: Dit<Train> = golden::model(&file);
    let plain: Dit<Flex> = golden::model(&file);
    let mut expected = Vec::new();
    for (i, row) in spans().iter().enumerate() {
        let taus = [row.tau_s, row.tau_t];
        let [s, t] = taus.map(|tau| schedule().t_of_tau(tau));
        let x = dense_state(&file, i, s);
        let toward = |answer: Tensor<Flex, 3>| {
            let velocity = (answer - x.clone()).div_scalar(1.0 - s);
            x.clone() + velocity.mul_scalar(t - s)
        };
        let bend = outputs(&second, &x, taus).mul_scalar(0.5 * (t - s).powi(2));
        let teacher = toward(denoise(&denoiser, &x, [row.tau_s; 2])) + bend;
        let error = toward(denoise(&plain, &x, taus)) - teacher;
        expected.push(flat((error.clone() * error).sum_dim(2)));
    }
    let teacher = Residual { denoiser, second };
    let found = ResidualStudent::new(schedule(), teacher).score(
        &student,
        file.int("expected.tokens"),
        &noise(&file),
        &spans(),
        &mut Dropout::off(),
    );
    let found = flat(found.per_token);
    for (row, (found, expected)) in found.chunks(16).zip(&expected).enumerate() {
        let error = relative_error(found, expected);
        // The short span squares differences of 1e-4 of the states.
        let tolerance = if row == 3 { 1e-2 } else { TOLERANCE };
        assert!(error < tolerance, "row {row}: relative error {error:.1e}");
    }
}

#[test]
fn a_second_network_starts_silent_and_its_flow_map_is_euler() {
    let file = golden::open();
    let denoiser = denoiser(&file);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let device = Default::default();
    let second = denoiser.clone().into_residual(32, &mut rng, &device);
    assert!(second.is_two_time() && !denoiser.is_two_time());
    let residual = Residual { denoiser, second };
    for steps in [1, 3, 8] {
        let noise = || file.float::<Flex, 3>("expected.z0");
        // The last Euler step moves the state to the last prediction, up to the guard of 1e-5.
        let euler = sampler::euler(
            &SamplingDenoiser::new(&residual.denoiser),
            &schedule(),
            residual.denoiser.embed().project(noise()),
            steps,
            |_| (),
        );
        let expected = flat_int(euler.unwrap().argmax());
        let found: Tensor<Flex, 2, Int> = residual.sample(&schedule(), noise(), steps).unwrap();
        assert_eq!(flat_int(found), expected, "{steps} steps");
    }
    // So a student that starts as the denoiser has zero loss.
    let student = apply_tensors(
        fixture::config(false)
            .init::<Train>(&mut rng, &device)
            .unwrap(),
        Path::new("denoiser"),
        named_tensors(&residual.denoiser),
    );
    let student = student.unwrap().into_two_time(32, &mut rng, &device);
    let found = ResidualStudent::new(schedule(), residual).score(
        &student,
        file.int("expected.tokens"),
        &noise(&file),
        &spans(),
        &mut Dropout::off(),
    );
    // Only squared rounding errors remain.
    assert!(flat(found.per_token).iter().all(|loss| *loss < 1e-10));
}
