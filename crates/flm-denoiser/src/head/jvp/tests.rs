use super::*;
use crate::{Dit, DitConfig, Dropout, apply_tensors, named_tensors};
use burn::backend::Autodiff;
use burn_flex::Flex;
use flm_simplex::noise::gaussian;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

type Once = Autodiff<Flex>;
type Twice = Autodiff<Once>;

const BATCH: usize = 3;
const LENGTH: usize = 5;
const WIDTH: usize = 16;
const VOCAB: usize = 11;

/// A two-time network with a register token and all parameters random, so that all of them
/// take part.
fn loud<B: Backend>() -> Dit<B> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let config = DitConfig {
        register_token: true,
        ..DitConfig::new(VOCAB, LENGTH, WIDTH, 2, 2).with_two_time(true)
    };
    let model = config.init::<B>(&mut rng, &Default::default()).unwrap();
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
    }
    apply_tensors(model, Path::new("drawn"), tensors).unwrap()
}

/// A point or a direction: a state and two times.
#[derive(Clone)]
struct Place<B: Backend> {
    state: Tensor<B, 3>,
    tau_s: Tensor<B, 1>,
    tau_t: Tensor<B, 1>,
}

impl<B: Backend> Place<B> {
    fn of(seed: u64, tau_s: f32, tau_t: f32) -> Self {
        let device = Default::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            state: gaussian([BATCH, LENGTH, WIDTH], &mut rng, &device),
            tau_s: Tensor::from_floats([tau_s, 0.5 * tau_s, 0.0], &device),
            tau_t: Tensor::from_floats([tau_t, 0.7 * tau_t, tau_t], &device),
        }
    }

    fn point() -> Self {
        Self::of(1, 0.3, 0.9)
    }

    /// Directions along the state only, each time only, and all of them.
    fn directions() -> [Self; 4] {
        let all = Self::of(2, 0.8, -1.3);
        let still = || Self {
            state: all.state.zeros_like(),
            tau_s: all.tau_s.zeros_like(),
            tau_t: all.tau_t.zeros_like(),
        };
        let state = Self {
            state: all.state.clone(),
            ..still()
        };
        let (mut first, mut second) = (still(), still());
        first.tau_s = all.tau_s.ones_like();
        second.tau_t = all.tau_t.ones_like();
        [state, first, second, all]
    }

    /// Moves by step·direction.
    fn away(&self, direction: &Self, step: f64) -> Self {
        Self {
            state: self.state.clone() + direction.state.clone().mul_scalar(step),
            tau_s: self.tau_s.clone() + direction.tau_s.clone().mul_scalar(step),
            tau_t: self.tau_t.clone() + direction.tau_t.clone().mul_scalar(step),
        }
    }

    fn answer(self, model: &Dit<B>) -> Prediction<B> {
        model.forward(self.state, self.tau_s, self.tau_t, &mut Dropout::off())
    }

    fn jvp(self, direction: Self, model: &Dit<B>) -> Jvp<B> {
        let dual = |value, tangent| Dual { value, tangent };
        model.jvp(
            Dual {
                value: self.state,
                tangent: direction.state,
            },
            dual(self.tau_s, direction.tau_s),
            dual(self.tau_t, direction.tau_t),
        )
    }
}

fn flat<B: Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |max, b| max.max(b.abs()));
    assert!(largest > 1e-2, "nothing moves");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * largest, "{a} {b} of {largest}");
    }
}

#[test]
fn tangents_are_central_differences() {
    let (model, point) = (loud::<Flex>(), Place::point());
    for direction in Place::directions() {
        let found = point.clone().jvp(direction.clone(), &model).dense();
        let at = |step| {
            point
                .away(&direction, step)
                .answer(&model)
                .distribution()
                .dense()
        };
        assert_close(&flat(found.value), &flat(at(0.0)), 1e-6);
        // A fourth-order difference. The error is a few roundings of 1e-7, divided by the step.
        let step = 4e-3;
        let across = |step: f64| at(step) - at(-step);
        let expected = (across(step).mul_scalar(8.0) - across(2.0 * step)).div_scalar(12.0 * step);
        assert_close(&flat(found.tangent.clone()), &flat(expected), 5e-3);
        let sums = flat(found.tangent.sum_dim(2).flatten::<1>(0, 2));
        assert!(sums.iter().all(|sum| sum.abs() < 1e-5), "{sums:?}");
    }
}

#[test]
fn tangents_are_those_of_reverse_mode_twice() {
    // The gradient of ⟨Jᵀv, ẋ⟩ with respect to v is J·ẋ.
    let (model, point) = (loud::<Twice>(), Place::<Twice>::point());
    let plain = loud::<Flex>();
    for (direction, same) in Place::<Once>::directions()
        .into_iter()
        .zip(Place::directions())
    {
        let device = Default::default();
        let v = Tensor::<Once, 3>::ones([BATCH, LENGTH, VOCAB], &device).require_grad();
        let place = Place {
            state: point.state.clone().require_grad(),
            tau_s: point.tau_s.clone().require_grad(),
            tau_t: point.tau_t.clone().require_grad(),
        };
        let probabilities = place.clone().answer(&model).dense_log_probs().exp();
        let grads = (probabilities * Tensor::from_inner(v.clone()))
            .sum()
            .backward();
        let along = (place.state.grad(&grads).unwrap() * direction.state).sum()
            + (place.tau_s.grad(&grads).unwrap() * direction.tau_s).sum()
            + (place.tau_t.grad(&grads).unwrap() * direction.tau_t).sum();
        let expected = v.grad(&along.backward()).unwrap();
        let found = Place::point().jvp(same, &plain).dense();
        assert_close(&flat(found.tangent), &flat(expected), 1e-4);
    }
}

#[test]
fn a_tangent_can_be_differentiated_in_reverse() {
    // The gradient of ⟨w, J·ẋ⟩ with respect to the state, against central differences.
    let (model, [.., direction]) = (loud::<Once>(), Place::<Once>::directions());
    let plain = loud::<Flex>();
    let weights = |i: usize| ((i * 37 % 101) as f32 - 40.0) / 50.0;
    let weights: Vec<f32> = (0..BATCH * LENGTH * VOCAB).map(weights).collect();
    fn weighed<B: Backend>(moved: Dual<B, 3>, weights: &[f32]) -> Tensor<B, 1> {
        let weights = Tensor::<B, 1>::from_floats(weights, &Default::default());
        (moved.tangent.flatten::<1>(0, 2) * weights).sum()
    }
    let mut point = Place::<Once>::point();
    point.state = point.state.require_grad();
    let loss = weighed(point.clone().jvp(direction, &model).dense(), &weights);
    let found = point.state.grad(&loss.backward()).unwrap();

    let [state, .., direction] = Place::<Flex>::directions();
    let step = 3e-3;
    let at = |step| {
        let place = Place::<Flex>::point().away(&state, step);
        let moved = place.jvp(direction.clone(), &plain).dense();
        f64::from(weighed(moved, &weights).into_scalar())
    };
    let expected = (at(step) - at(-step)) / (2.0 * step);
    let along = f64::from((found * state.state).sum().into_scalar());
    assert!(expected.abs() > 1e-1, "nothing moves: {expected}");
    assert!(
        (along - expected).abs() < 5e-3 * expected.abs(),
        "{along} {expected}"
    );
}

#[test]
fn the_mean_moves_as_the_probabilities_do_in_any_runs() {
    let (model, point) = (loud::<Flex>(), Place::point());
    let [.., direction] = Place::directions();
    let mut jvp = point.jvp(direction, &model);
    let dense = jvp.dense();
    let expected = dense.map(|dense| model.embed().project(dense));
    for budget in [VOCAB, 4 * VOCAB, 1 << 20] {
        jvp.head.execution.head_numbers = budget;
        let found = jvp.mean(model.embed());
        assert_close(&flat(found.value), &flat(expected.value.clone()), 1e-5);
        assert_close(&flat(found.tangent), &flat(expected.tangent.clone()), 1e-5);
    }
}

#[test]
fn a_distribution_is_moved_and_projected_in_any_runs() {
    let model = loud::<Flex>();
    let [.., direction] = Place::directions();
    let weight = Tensor::<Flex, 1>::from_floats([0.7, -3.0, 0.0], &Default::default());
    let denoised = |budget| {
        let place = Place::<Flex>::of(4, 0.4, 0.8);
        let base = place.answer(&model).within(budget).distribution();
        let mut moving = Place::point().jvp(direction.clone(), &model);
        moving.head.execution.head_numbers = budget;
        let moved = base.clone().moved(moving.clone(), weight.clone());
        (
            base.dense(),
            moving.dense().tangent,
            moved.clone().dense(),
            moved.projected().dense(),
        )
    };
    let (base, tangent, moved, projected) = denoised(1 << 20);
    let scale = weight.clone().reshape([BATCH, 1, 1]);
    assert_close(
        &flat(moved.clone()),
        &flat(base.clone() + tangent * scale),
        1e-5,
    );
    let sums = flat(moved.clone().sum_dim(2).flatten::<1>(0, 2));
    assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-4), "{sums:?}");
    assert!(
        flat(moved).iter().any(|p| *p < -1e-2),
        "the moved point is on the simplex"
    );
    let values = flat(projected.clone());
    assert!(values.iter().all(|p| *p >= 0.0) && values.contains(&0.0));
    // A distribution that is not moved is already on the simplex.
    let last = |x: Tensor<Flex, 3>| flat(x.narrow(0, BATCH - 1, 1));
    assert_close(&last(projected.clone()), &last(base), 1e-5);
    let (_, _, _, by_runs) = denoised(3 * VOCAB);
    assert_close(&flat(by_runs), &flat(projected), 1e-5);
}

#[test]
fn the_squared_tangent_and_its_gradient_are_those_of_the_dense_one_in_any_runs() {
    let model = loud::<Once>();
    let [.., direction] = Place::<Once>::directions();
    let weights: Vec<f32> = (0..BATCH * LENGTH).map(|i| 0.1 + i as f32).collect();
    let weights = Tensor::<Flex, 1>::from_floats(weights.as_slice(), &Default::default())
        .reshape([BATCH, LENGTH]);
    let asked = || {
        let mut point = Place::<Once>::point();
        point.state = point.state.require_grad();
        let jvp = point.clone().jvp(direction.clone(), &model);
        (point.state, jvp)
    };
    let gradients = |state: &Tensor<Once, 3>, loss: Tensor<Once, 1>| {
        let grads = loss.backward();
        let head = &model.matrices().pop().unwrap().1;
        [
            flat(state.grad(&grads).unwrap()),
            flat(head.grad(&grads).unwrap()),
        ]
    };
    let (state, jvp) = asked();
    let squares = jvp.dense().tangent.powi_scalar(2).sum_dim(2);
    let per_token = flat(squares.clone());
    let in_graph = Tensor::from_inner(weights.clone().reshape([BATCH, LENGTH, 1]));
    let expected = gradients(&state, (squares * in_graph).sum());
    for budget in [VOCAB, 4 * VOCAB, 1 << 20] {
        let (state, mut jvp) = asked();
        jvp.head.execution.head_numbers = budget;
        let score = jvp.squared_tangent(weights.clone());
        assert_close(&flat(score.per_token.clone()), &per_token, 1e-5);
        let sum = flat((score.per_token * weights.clone()).sum());
        assert_close(&flat(score.loss.clone()), &sum, 1e-6);
        for (found, expected) in gradients(&state, score.loss).iter().zip(&expected) {
            assert_close(found, expected, 1e-4);
        }
    }
}
