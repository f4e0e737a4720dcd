//! Tests of reward steps against finite differences and against states as wide as the vocabulary.

use burn::backend::Autodiff;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Tensor, Tolerance};
use burn_flex::Flex;
use flm_denoiser::{Dit, DitConfig, Dropout, SamplingDenoiser, apply_tensors, named_tensors};
use flm_reward::{Ascent, ClassifierConfig, Keywords, Reward};
use flm_simplex::guidance::{RewardGuidance, Steer};
use flm_simplex::noise::gaussian;
use flm_simplex::sampler;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

type Train = Autodiff<Flex>;
type State = Tensor<Flex, 3>;

const LENGTH: usize = 5;
const VOCAB: usize = 11;
const WIDTH: usize = 8;

/// A network with all parameters random, so that every part has an effect.
fn loud(two_time: bool, width: usize) -> Dit<Flex> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let config = DitConfig::new(VOCAB, LENGTH, width, 1, 2).with_two_time(two_time);
    let model = config.init::<Flex>(&mut rng, &Default::default()).unwrap();
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
    }
    apply_tensors(model, Path::new("drawn"), tensors).unwrap()
}

fn drawn(shape: [usize; 3], seed: u64) -> State {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    gaussian(shape, &mut rng, &Default::default())
}

fn rewards() -> [Box<dyn Reward<Train>>; 2] {
    let device = Default::default();
    let config = ClassifierConfig {
        width: 6,
        ..ClassifierConfig::new(VOCAB)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    [
        Box::new(Keywords::<Flex>::new(VOCAB, &[2, 7], &device)),
        Box::new(config.init::<Train>(&mut rng, &device)),
    ]
}

fn values<const D: usize>(x: Tensor<Flex, D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    for two_time in [false, true] {
        let model = loud(two_time, WIDTH);
        for reward in rewards() {
            let ascent = Ascent::<Train, _>::new(&model, model.embed(), reward, 1.0);
            let ascent = ascent.at_temperature(0.8).unwrap();
            let state = drawn([2, LENGTH, WIDTH], 4);
            let (_, gradient) = ascent.look_ahead(state.clone(), 0.4);
            for seed in 10..13 {
                let along = drawn([2, LENGTH, WIDTH], seed);
                let step = 1e-2;
                let at = |by: f64| {
                    let (reward, _) = ascent.look_ahead(state.clone() + along.clone() * by, 0.4);
                    values(reward)
                };
                let (after, before) = (at(step), at(-step));
                let slopes = (gradient.clone() * along.clone()).sum_dim(2).sum_dim(1);
                for (row, slope) in values(slopes).into_iter().enumerate() {
                    let found = (after[row] - before[row]) / (2.0 * step);
                    // f32 rounding of rewards of order ten, divided by the step, and the
                    // third derivative.
                    let error = (found - slope).abs();
                    assert!(
                        error < 2e-3 + 1e-2 * slope.abs(),
                        "row {row}: {slope}, by differences {found}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_step_is_the_projection_of_a_step_as_wide_as_the_vocabulary() {
    // The gradient of r with respect to x of width V: the same network after a product with E, with
    // a dense head.
    let (model, scale) = (loud(true, WIDTH), 3.0);
    let embedding = model.embed().embedding.val();
    for reward in rewards() {
        let wide = drawn([2, LENGTH, VOCAB], 5);
        let x = Tensor::<Train, 3>::from_inner(wide.clone()).require_grad();
        let h = x
            .clone()
            .matmul(Tensor::from_inner(embedding.clone()).unsqueeze());
        let row = |tau: f64| Tensor::full([2], tau, &Default::default());
        let tracked =
            <Dit<Train> as burn::module::AutodiffModule<Train>>::from_inner(model.clone());
        let prediction = tracked.forward(h, row(0.3), row(1.0), &mut Dropout::off());
        let p = prediction.dense_log_probs().exp();
        let means = p.matmul(Tensor::from_inner(reward.vectors()).unsqueeze());
        let gradient = x.grad(&reward.of(means).sum().backward()).unwrap();
        let moved = wide.clone() + gradient * scale;
        let expected = model.embed().project(moved.clone());

        // On the network's own states, and on joint states with a second network. The tolerance
        // covers f32 products of a dozen terms through a network.
        let ascent = Ascent::<Train, _>::new(&model, model.embed(), &*reward, scale);
        let found = ascent.steer(model.embed().project(wide.clone()), 0.3);
        let tolerance = Tolerance::relative(1e-3).set_absolute(1e-4);
        (found.into_data()).assert_approx_eq::<f32>(&expected.clone().into_data(), tolerance);
        let other = loud(true, 4);
        let both = model.embed().beside(other.embed());
        let ascent = Ascent::<Train, _>::new(&model, &both, &*reward, scale);
        let found = ascent.steer(both.project(wide.clone()), 0.3);
        let first = found.clone().narrow(2, 0, WIDTH);
        (first.into_data()).assert_approx_eq::<f32>(&expected.into_data(), tolerance);
        let expected = other.embed().project(moved.clone());
        let second = found.narrow(2, WIDTH, 4);
        (second.into_data()).assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    }
}

#[test]
fn a_scale_of_nought_changes_nothing_and_a_larger_one_raises_the_reward() {
    let model = loud(true, WIDTH);
    let schedule = flm_simplex::Schedule::new(VOCAB).unwrap();
    let start = drawn([8, LENGTH, WIDTH], 6);
    let keywords = || Keywords::<Flex>::new(VOCAB, &[2], &Default::default());
    let sample = |scale| {
        let by = Ascent::<Train, _>::new(&model, model.embed(), keywords(), scale);
        let denoiser = RewardGuidance {
            denoiser: SamplingDenoiser::new(&model),
            by,
        };
        let noise = || unreachable!("γ = 0 draws no noise");
        sampler::flow_map(&denoiser, &schedule, start.clone(), 3, 0.0, noise, |_| ()).unwrap()
    };
    let alone = {
        let noise = || unreachable!("γ = 0 draws no noise");
        let sampling = SamplingDenoiser::new(&model);
        sampler::flow_map(&sampling, &schedule, start.clone(), 3, 0.0, noise, |_| ()).unwrap()
    };
    (sample(0.0).dense().into_data()).assert_eq(&alone.dense().into_data(), true);
    let probability = |scale| -> f64 {
        let of_word = sample(scale).dense().narrow(2, 2, 1);
        values(of_word.mean())[0]
    };
    let probabilities = [0.0, 3.0, 10.0].map(probability);
    assert!(
        probabilities.is_sorted() && probabilities[2] > 1.2 * probabilities[0],
        "{probabilities:?}"
    );
}

#[test]
fn keywords_are_the_log_of_the_probability_that_each_occurs() {
    let keywords = Keywords::<Flex>::new(3, &[0, 2], &Default::default());
    let p = [
        [[0.5_f32, 0.3, 0.2], [0.1, 0.9, 0.0]],
        [[1e-9, 1.0, 0.0], [2e-9, 1.0, 1e-30]],
    ];
    let p = Tensor::<Train, 3>::from_floats(p, &Default::default());
    let vectors = Tensor::from_inner(Reward::<Train>::vectors(&keywords)).unsqueeze();
    let found = values(keywords.of(p.matmul(vectors)).inner());
    let expected = [
        (1.0 - 0.5 * 0.9_f64).ln() + 0.2_f64.ln(),
        3e-9_f64.ln() + 1e-30_f64.ln(),
    ];
    for (found, expected) in found.into_iter().zip(expected) {
        // Computing 1 − Π(1 − p) in f32 would lose these probabilities.
        assert!((found / expected - 1.0).abs() < 1e-5, "{found}, {expected}");
    }
}

#[test]
fn a_classifiers_reward_is_the_log_probability_of_its_odds() {
    let [_, reward] = rewards();
    let means = Tensor::<Train, 3>::from_inner(drawn([3, LENGTH, 6], 8));
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let config = ClassifierConfig {
        width: 6,
        ..ClassifierConfig::new(VOCAB)
    };
    let classifier = config.init::<Train>(&mut rng, &Default::default());
    let expected = log_sigmoid(classifier.log_odds(means.clone()));
    (reward.of(means).into_data()).assert_eq(&expected.into_data(), true);
}
