//! Losses and gradients of the flow map's objectives agree with the published implementation.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn_flex::Flex;
use flm_denoiser::{Dit, Dropout, Dual, Noise, TokenDistribution};
use flm_distill::{
    DenoiserSource, FlowMapConfig, FlowMapObjective, Measure, ObjectiveKind, RowKind,
    TargetNetwork, TimeRow,
};
use flm_objective::{Losses, Objective};
use flm_simplex::{Schedule, projection::sparsemax};
use flm_tests::fixture::{Fixture, flat, relative_error};
use flm_tests::parity::{as_published, rows};
use flm_tests::{golden, gradients::named_gradients};

type Train = Autodiff<Flex>;

/// Looser than for one evaluation of the network: the target is itself a network output.
const TOLERANCE: f64 = 1e-4;

fn schedule() -> Schedule {
    Schedule::new(61).expect("a vocabulary of 61")
}

fn losses(
    file: &Fixture,
    prefix: &str,
    student: &Dit<Train>,
    teacher: Option<Dit<Flex>>,
    rows: &[TimeRow],
    config: FlowMapConfig,
) -> Losses<Train> {
    let objective = FlowMapObjective::new(schedule(), config, teacher);
    let noise = Noise::pinned(file.float(&format!("{prefix}noise")));
    let tokens = file.int(&format!("{prefix}tokens"));
    objective.score(student, None, tokens, &noise, rows, &mut Dropout::off())
}

#[test]
fn the_semigroup_loss_and_its_gradient_agree_in_any_clone() {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    let rows = rows(&file.within("expected."));
    let diagonal = rows[0];
    assert!(diagonal.kind == RowKind::Diagonal && rows[1].kind != RowKind::Diagonal);
    let noise = Noise::<Flex>::pinned(file.float("expected.noise"));
    let tokens = file.int::<Train, 2>("expected.tokens");
    let ([count, length], others) = (tokens.dims(), rows.len() - 1);

    // The golden file does not hold the teacher, but its prediction for the diagonal row.
    let embed = student.embed();
    let time = |tau: f64| Tensor::<Train, 1>::full([1], tau, &Default::default());
    let (tau_s, tau_t) = (diagonal.tau_s, diagonal.tau_t);
    let token = tokens.clone().narrow(0, 0, 1);
    let state = noise
        .narrow(0, 1)
        .interpolate(embed, token, time(schedule().t_of_tau(tau_s)));
    let answer = student.forward(state, time(tau_s), time(tau_t), &mut Dropout::off());
    let teacher = TokenDistribution::pinned(file.float::<Flex, 3>(golden::TEACHER).narrow(0, 0, 1));
    let weights = Tensor::full(
        [1, length],
        1.0 / (count * length) as f64,
        &Default::default(),
    );
    let on = answer.soft_cross_entropy(&teacher, weights);
    // Off the diagonal the teacher is not needed.
    let objective = FlowMapObjective::new(schedule(), as_published(ObjectiveKind::Semigroup), None);
    let off = objective.score(
        &student,
        None,
        tokens.narrow(0, 1, others),
        &noise.narrow(1, others),
        &rows[1..],
        &mut Dropout::off(),
    );
    let mean = on.loss + off.mean * (others as f64 / count as f64);
    let per_token = [flat(on.per_token), flat(off.per_token)].concat();
    assert_pinned(&student, mean, &per_token, &file, "expected.fmlm_psd");
}

/// Compares losses, and the gradient of their mean with respect to the head, with the pinned ones.
fn assert_pinned(
    student: &Dit<Train>,
    mean: Tensor<Train, 1>,
    per_token: &[f32],
    file: &Fixture,
    prefix: &str,
) {
    let expected = file.values(&format!("{prefix}_loss_per_token"));
    let error = relative_error(per_token, &expected);
    assert!(
        error < TOLERANCE,
        "loss of each token: relative error {error:.1e}"
    );
    let name = "output_layer.linear.weight";
    let gradients = named_gradients(student, mean);
    let found = gradients
        .iter()
        .find(|gradient| gradient.name == name)
        .unwrap();
    let expected = file.values(&format!("{prefix}_grad.{name}"));
    let error = relative_error(&found.values, &expected);
    assert!(
        error < TOLERANCE,
        "gradient of {name}: relative error {error:.1e}"
    );
}

/// Spans: an inner one, one that ends just before 1, the whole interval, and an empty one at 1.
fn spans() -> Vec<TimeRow> {
    [(0.2, 0.8), (0.5, 0.9999), (0.0, 1.0), (1.0, 1.0)]
        .map(|(tau_s, tau_t)| TimeRow::span(RowKind::OffDiagonal, tau_s, tau_t))
        .to_vec()
}

/// Returns the losses of [`spans`] without a teacher, and those that `loss` computes.
///
/// `loss` gets s and t, and the dense tensors δ, the student's D_s and D_t(X_{s,t}), ∂_t δ and
/// (1−s)·(∂_s + b_s·∇) δ.
fn by_hand(
    objective: ObjectiveKind,
    loss: impl Fn([f64; 2], [Tensor<Flex, 2>; 5]) -> Vec<f32>,
) -> [Vec<f32>; 2] {
    by_hand_of(as_published(objective), loss)
}

fn by_hand_of(
    config: FlowMapConfig,
    loss: impl Fn([f64; 2], [Tensor<Flex, 2>; 5]) -> Vec<f32>,
) -> [Vec<f32>; 2] {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    let found = losses(&file, "expected.", &student, None, &spans(), config);
    let model: Dit<Flex> = golden::model(&file);
    let embed = model.embed();
    let (noise, tokens) = (
        file.float::<Flex, 3>("expected.noise"),
        file.int::<Flex, 2>("expected.tokens"),
    );
    let mut expected = Vec::new();
    for (i, row) in spans().into_iter().enumerate() {
        let device = Default::default();
        let at = |value: f64| Tensor::<Flex, 1>::full([1], value, &device);
        let (s, t) = (
            schedule().t_of_tau(row.tau_s),
            schedule().t_of_tau(row.tau_t),
        );
        let state = embed
            .project(noise.clone().narrow(0, i, 1))
            .mul_scalar(1.0 - s)
            + embed.tokens(tokens.clone().narrow(0, i, 1)).mul_scalar(s);
        let denoise = |state: Tensor<Flex, 3>, tau: f64| {
            let prediction = model.forward(state, at(tau), at(tau), &mut Dropout::off());
            prediction.distribution().dense()
        };
        let jvp = |state_moves, by_s: f64, by_t: f64| {
            let dual = |value, tangent| Dual { value, tangent };
            let state = Dual {
                value: state.clone(),
                tangent: state_moves,
            };
            model
                .jvp(
                    state,
                    dual(at(row.tau_s), at(by_s)),
                    dual(at(row.tau_t), at(by_t)),
                )
                .dense()
        };
        let still = state.zeros_like();
        let by_end = jvp(still, 0.0, schedule().dtau_dt(t));
        let delta = by_end.value;
        let clean = denoise(state.clone(), row.tau_s);
        let share = flm_simplex::flow_map::endpoint_weight(s, t);
        let arrived =
            state.clone().mul_scalar(1.0 - share) + embed.project(delta.clone()).mul_scalar(share);
        let there = denoise(arrived, row.tau_t);
        let along = embed.project(clean.clone()) - state.clone();
        let by_start = jvp(along, (1.0 - s) * schedule().dtau_dt(s), 0.0).tangent;
        let parts = [delta, clean, there, by_end.tangent, by_start];
        expected.extend(loss([s, t], parts.map(|part| part.squeeze_dim(0))));
    }
    [flat(found.per_token), expected]
}

#[test]
fn a_squared_error_to_the_semigroup_target_and_a_weight_off_the_diagonal() {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    let rows = pinned_jumps(&file);
    let config = FlowMapConfig {
        measure: Measure::SquaredError,
        off_diagonal_weight: 2.0,
        ..as_published(ObjectiveKind::Semigroup)
    };
    let objective = FlowMapObjective::new(schedule(), config, None);
    let answer = objective.score(
        &student,
        None,
        file.int("expected.tokens"),
        &Noise::<Flex>::pinned(file.float("expected.noise")),
        &rows,
        &mut Dropout::off(),
    );
    let dense = |name: &str| file.float::<Flex, 3>(name);
    let error = dense("flow_map.delta_st") - dense("flow_map.semigroup_target");
    let expected = flat(error.square().sum_dim(2));
    let error = relative_error(&flat(answer.per_token), &expected);
    assert!(error < TOLERANCE, "relative error {error:.1e}");
    let mean = expected.iter().sum::<f32>() / expected.len() as f32;
    let error = relative_error(&flat(answer.mean), &[2.0 * mean]);
    assert!(error < TOLERANCE, "mean: relative error {error:.1e}");
}

fn assert_rows_agree([found, expected]: [Vec<f32>; 2]) {
    assert!(found.iter().all(|loss| loss.is_finite()));
    let length = found.len() / spans().len();
    for (row, (found, expected)) in found
        .chunks(length)
        .zip(expected.chunks(length))
        .enumerate()
    {
        // The last row of the Eulerian loss is pure rounding.
        let largest = expected.iter().fold(1e-2_f32, |max, loss| max.max(*loss));
        for (found, expected) in found.iter().zip(expected) {
            let error = f64::from((found - expected).abs() / largest);
            assert!(error < TOLERANCE, "row {row}: {found} {expected}");
        }
    }
}

#[test]
fn the_lagrangian_loss_is_that_of_its_formula_on_every_row() {
    let objective = ObjectiveKind::Lagrangian;
    assert_rows_agree(by_hand(
        objective,
        |[s, t], [delta, _, there, by_end, _]| {
            let weight = if s < 1.0 {
                (1.0 - t) * (t - s) / (1.0 - s)
            } else {
                0.0
            };
            let target = sparsemax(there - by_end.mul_scalar(weight));
            flat((target * delta.log()).sum_dim(1).neg())
        },
    ));
}

#[test]
fn the_eulerian_loss_is_that_of_its_formula_on_every_row() {
    let objective = ObjectiveKind::Eulerian;
    assert_rows_agree(by_hand(
        objective,
        |[s, t], [delta, clean, _, _, by_start]| {
            let residual = (delta - clean).mul_scalar(1.0 - t) - by_start.mul_scalar(t - s);
            let floor = flm_distill::eulerian::FLOOR;
            flat(
                residual
                    .div_scalar((1.0 - t).max(floor))
                    .square()
                    .sum_dim(1),
            )
        },
    ));
}

#[test]
fn the_eulerian_target_may_be_projected() {
    let [found, expected] = by_hand_of(
        FlowMapConfig {
            objective: ObjectiveKind::Eulerian,
            ..FlowMapConfig::default()
        },
        |[s, t], [delta, clean, _, _, by_start]| {
            let residual = (delta.clone() - clean).mul_scalar(1.0 - t) - by_start.mul_scalar(t - s);
            let floor = flm_distill::eulerian::FLOOR;
            let target = sparsemax(delta.clone() - residual.div_scalar((1.0 - t).max(floor)));
            flat((target * delta.log()).sum_dim(1).neg())
        },
    );
    assert_rows_agree([found, expected]);
}

#[test]
fn the_consistency_loss_is_that_of_its_formula_on_every_row() {
    let file = golden::open();
    let model: Dit<Flex> = golden::model(&file);
    let student: Dit<Train> = golden::model(&file);
    let objective =
        FlowMapObjective::new(schedule(), as_published(ObjectiveKind::Consistency), None);
    let noise = Noise::<Flex>::pinned(file.float("expected.noise"));
    let tokens = file.int("expected.tokens");
    let off = &mut Dropout::off();
    let found = objective.score(&student, None, tokens, &noise, &spans(), off);
    let mut expected = Vec::new();
    let embed = model.embed();
    for (i, row) in spans().into_iter().enumerate() {
        let tau_u = row.tau_s + (row.tau_t - row.tau_s) / 8.0;
        let [s, u, t] = [row.tau_s, tau_u, row.tau_t].map(|tau| schedule().t_of_tau(tau));
        let tokens = file.int::<Flex, 2>("expected.tokens").narrow(0, i, 1);
        let state = embed
            .project(file.float::<Flex, 3>("expected.noise").narrow(0, i, 1))
            .mul_scalar(1.0 - s)
            + embed.tokens(tokens).mul_scalar(s);
        let denoise = |state: Tensor<Flex, 3>, from: f64, to: f64| {
            let at = |value: f64| Tensor::<Flex, 1>::full([1], value, &Default::default());
            let prediction = model.forward(state, at(from), at(to), &mut Dropout::off());
            prediction.distribution().dense()
        };
        let clean = denoise(state.clone(), row.tau_s, row.tau_s);
        let share = flm_simplex::flow_map::endpoint_weight(s, u);
        let later =
            state.clone().mul_scalar(1.0 - share) + embed.project(clean.clone()).mul_scalar(share);
        let gamma = flm_simplex::flow_map::semigroup_weight(s, u, t);
        let target =
            clean.mul_scalar(gamma) + denoise(later, tau_u, row.tau_t).mul_scalar(1.0 - gamma);
        let delta = denoise(state, row.tau_s, row.tau_t);
        expected.extend(flat((target * delta.log()).sum_dim(2).neg()));
    }
    assert_rows_agree([flat(found.per_token), expected]);
}

#[test]
fn the_ecld_loss_is_that_of_its_formula_on_every_row() {
    let objective = ObjectiveKind::Ecld;
    assert_rows_agree(by_hand(
        objective,
        |[s, t], [delta, _, there, by_end, _]| {
            let share = flm_simplex::flow_map::endpoint_weight(s, t);
            let agreement = (there * delta.log()).sum_dim(1).neg();
            flat(agreement + by_end.mul_scalar(share).powi_scalar(2).sum_dim(1))
        },
    ));
}

/// Returns the norm of the gradient of one row's loss, for the golden student.
fn gradient_of_row(file: &Fixture, config: &FlowMapConfig, tau_s: f64, tau_t: f64) -> f64 {
    let student: Dit<Train> = golden::model(file);
    let objective = FlowMapObjective::new(schedule(), config.clone(), None);
    let row = |x: &str| file.float::<Flex, 3>(x).narrow(0, 0, 1);
    let loss = objective.score(
        &student,
        None,
        file.int::<Train, 2>("expected.tokens").narrow(0, 0, 1),
        &Noise::pinned(row("expected.noise")),
        &[TimeRow::span(RowKind::OffDiagonal, tau_s, tau_t)],
        &mut Dropout::off(),
    );
    let gradients = named_gradients(&student, loss.mean);
    let values = gradients.iter().flat_map(|gradient| &gradient.values);
    values
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt()
}

#[test]
fn the_eulerian_gradient_neither_vanishes_nor_explodes_at_the_end() {
    let file = golden::open();
    for measure in [Measure::CrossEntropy, Measure::SquaredError] {
        let config = FlowMapConfig {
            measure,
            ..as_published(ObjectiveKind::Eulerian)
        };
        let inner = gradient_of_row(&file, &config, 0.2, 0.6);
        for (tau_s, tau_t) in [(0.0, 1.0), (0.2, 1.0), (0.0, 0.9999), (0.2, 0.9999)] {
            let ratio = gradient_of_row(&file, &config, tau_s, tau_t) / inner;
            // The published target divides by 1 − t, 1e-5 to 1e-3 there, and squares the result.
            assert!(
                (0.5..50.0).contains(&ratio),
                "{measure:?}, {tau_s} to {tau_t}: {ratio}"
            );
        }
    }
}

/// Returns the golden network moved by `step` along a fixed parameter direction, and the direction.
fn moved(file: &Fixture, step: f32) -> (Dit<Flex>, Vec<Vec<f32>>) {
    let model: Dit<Flex> = golden::model(file);
    let mut tensors = flm_denoiser::named_tensors(&model);
    let mut count = 0_u32;
    let mut direction = Vec::new();
    for tensor in &mut tensors {
        let mut along = Vec::new();
        for value in &mut tensor.values {
            count += 1;
            let part = 0.05 * f64::from(count).sin() as f32;
            along.push(part);
            *value += step * part;
        }
        direction.push(along);
    }
    let path = std::path::Path::new("moved");
    let model = flm_denoiser::apply_tensors(model, path, tensors).unwrap();
    (model, direction)
}

#[test]
fn the_gradient_of_eclds_motion_reaches_every_parameter() {
    let file = golden::open();
    fn motion<B: burn::tensor::backend::AutodiffBackend>(
        model: &Dit<B>,
        file: &Fixture,
    ) -> Tensor<B, 1> {
        let state = model.embed().project(file.float("expected.x_t"));
        let [rows, length, _] = state.dims();
        let still = |name: &str| Dual::still(file.float::<B, 1>(name));
        let tau_t: Tensor<B, 1> = file.float("flow_map.tau_t");
        let moving = Dual {
            tangent: tau_t.ones_like(),
            value: tau_t,
        };
        let jvp = model.jvp(Dual::still(state), still("flow_map.tau_s"), moving);
        let weights = Tensor::ones([rows, length], &Default::default());
        jvp.squared_tangent(weights).loss
    }
    let student: Dit<Train> = golden::model(&file);
    let (_, direction) = moved(&file, 0.0);
    let gradients = named_gradients(&student, motion(&student, &file));
    assert_eq!(gradients.len(), direction.len());
    let found: f64 = gradients
        .iter()
        .zip(&direction)
        .flat_map(|(gradient, along)| gradient.values.iter().zip(along))
        .map(|(a, b)| f64::from(a * b))
        .sum();
    let at = |step: f32| {
        let model = Dit::<Train>::from_inner(moved(&file, step).0);
        f64::from(motion(&model, &file).into_scalar())
    };
    // A central difference of fourth order, as for the tangents themselves.
    let step = 0.02_f32;
    let across = |step: f32| at(step) - at(-step);
    let expected = (8.0 * across(step) - across(2.0 * step)) / (12.0 * f64::from(step));
    assert!(expected.abs() > 1e-2, "nothing moves: {expected}");
    assert!(
        (found - expected).abs() < 1e-2 * expected.abs(),
        "{found} {expected}"
    );
}

/// The pinned jumps of the golden file, split at the times u of its semigroup target.
fn pinned_jumps(file: &Fixture) -> Vec<TimeRow> {
    let [from, by, to] = ["s", "u", "t"].map(|time| file.values(&format!("flow_map.tau_{time}")));
    (0..from.len())
        .map(|i| TimeRow {
            kind: RowKind::OffDiagonal,
            tau_s: from[i].into(),
            tau_u: by[i].into(),
            tau_t: to[i].into(),
        })
        .collect()
}

/// The golden network with every parameter scaled by 0.9.
fn another<B: burn::tensor::backend::Backend>(file: &Fixture) -> Dit<B> {
    let model: Dit<B> = golden::model(file);
    let mut tensors = flm_denoiser::named_tensors(&model);
    for value in tensors.iter_mut().flat_map(|tensor| &mut tensor.values) {
        *value *= 0.9;
    }
    flm_denoiser::apply_tensors(model, std::path::Path::new("another"), tensors).unwrap()
}

#[test]
fn an_averaged_target_is_the_averages_own() {
    let file = golden::open();
    let student: Dit<Train> = another(&file);
    let average: Dit<Flex> = golden::model(&file);
    let rows = pinned_jumps(&file);
    let noise = Noise::<Flex>::pinned(file.float("expected.noise"));
    let per_token = |target| {
        let config = FlowMapConfig {
            target,
            ..as_published(ObjectiveKind::Semigroup)
        };
        let objective = FlowMapObjective::new(schedule(), config, None);
        let tokens = file.int("expected.tokens");
        let off = &mut Dropout::off();
        let answer = objective.score(&student, Some(&average), tokens, &noise, &rows, off);
        flat(answer.per_token)
    };
    // The pinned target comes from the averaged network; the student differs from it.
    let of = |name: &str| file.values(&format!("flow_map.{name}"));
    let times =
        |values: Vec<f32>| Tensor::<Train, 1>::from_floats(&values[..], &Default::default());
    let state = noise.interpolate(student.embed(), file.int("expected.tokens"), times(of("s")));
    let answer = student.forward(
        state,
        times(of("tau_s")),
        times(of("tau_t")),
        &mut Dropout::off(),
    );
    let target = file.float::<Flex, 3>("flow_map.semigroup_target");
    let log_probs = answer.dense_log_probs().inner();
    let expected = flat((target * log_probs).sum_dim(2).neg());
    let error = relative_error(&per_token(TargetNetwork::Average), &expected);
    assert!(error < TOLERANCE, "relative error {error:.1e}");
    assert!(relative_error(&per_token(TargetNetwork::Student), &expected) > 1e-2);
}

#[test]
fn the_student_may_answer_for_the_denoiser_even_beside_a_teacher() {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    for objective in [
        ObjectiveKind::Lagrangian,
        ObjectiveKind::Eulerian,
        ObjectiveKind::Ecld,
        ObjectiveKind::Consistency,
    ] {
        let per_token = |denoiser, teacher| {
            let config = FlowMapConfig {
                objective,
                denoiser,
                ..FlowMapConfig::default()
            };
            let objective = FlowMapObjective::new(schedule(), config, teacher);
            let noise = Noise::<Flex>::pinned(file.float("expected.noise"));
            let tokens = file.int("expected.tokens");
            let off = &mut Dropout::off();
            let rows = pinned_jumps(&file);
            flat(
                objective
                    .score(&student, None, tokens, &noise, &rows, off)
                    .per_token,
            )
        };
        let teacher = || Some(another::<Flex>(&file));
        let alone = per_token(DenoiserSource::Teacher, None);
        assert_eq!(per_token(DenoiserSource::Student, teacher()), alone);
        let taught = per_token(DenoiserSource::Teacher, teacher());
        assert!(relative_error(&taught, &alone) > 1e-2, "{objective:?}");
    }
}

#[test]
fn a_step_is_counted_in_evaluations_of_the_network() {
    let file = golden::open();
    let cost = |objective, teacher: bool| {
        let config = as_published(objective);
        let teacher = teacher.then(|| golden::model(&file));
        let objective = FlowMapObjective::<Flex>::new(schedule(), config, teacher);
        Objective::<Train>::evaluations(&objective, 32)
    };
    let trained = 32.0 * 3.0;
    for (objective, target) in [
        (ObjectiveKind::Semigroup, 2.0),
        (ObjectiveKind::Lagrangian, 3.0),
        (ObjectiveKind::Eulerian, 3.0),
        (ObjectiveKind::Consistency, 2.0),
        // A trained derivative costs 2·3 evaluations, the denoiser one.
        (ObjectiveKind::Ecld, 7.0),
    ] {
        assert_eq!(cost(objective, false), trained + 16.0 * target);
        assert_eq!(cost(objective, true), trained + 16.0 * target + 16.0);
    }
}

#[test]
fn without_a_teacher_the_diagonal_learns_from_the_tokens() {
    let file = golden::open();
    let student: Dit<Train> = golden::model(&file);
    let rows: Vec<TimeRow> = [0.2, 0.5, 0.7, 0.9].map(TimeRow::diagonal).to_vec();
    let distilled = losses(
        &file,
        "expected.",
        &student,
        None,
        &rows,
        as_published(ObjectiveKind::Semigroup),
    );
    let flow = flm_distill::FlowObjective::new(schedule());
    let (tokens, noise) = (
        file.int("expected.tokens"),
        Noise::pinned(file.float("expected.noise")),
    );
    let trained = flow.score(&student, tokens, None, &noise, &rows, &mut Dropout::off());
    assert_eq!(flat(distilled.per_token), flat(trained.per_token));
    assert_eq!(flat(distilled.mean), flat(trained.mean));
}
