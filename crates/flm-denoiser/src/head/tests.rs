//! Chunked evaluation against the plain composition.

use super::*;
use crate::embed::VocabEmbed;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::{TensorData, Tolerance};
use burn_flex::Flex;
use flm_simplex::noise::gaussian;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A backend for which `flm_ops` has no kernels.
type Composed = Autodiff<Flex, BalancedCheckpointing>;

const BATCH: usize = 3;
const LENGTH: usize = 5;
const WIDTH: usize = 8;
const VOCAB: usize = 37;
/// Enough for all positions at once.
const BUDGET: usize = 1 << 24;
/// Budgets for one position, two, four with a remainder, and all.
const BUDGETS: [usize; 4] = [1, 2 * VOCAB, 4 * VOCAB + 5, BUDGET];

fn drawn<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    gaussian(
        shape,
        &mut ChaCha8Rng::seed_from_u64(seed),
        &Default::default(),
    )
}

/// A prediction whose features, weight and bias are leaves.
fn prediction<B: Backend>(seed: u64, budget: usize) -> Prediction<B> {
    let features: Tensor<B, 3> = drawn([BATCH, LENGTH, WIDTH], seed);
    let weight: Tensor<B, 2> = drawn([WIDTH, VOCAB], 100);
    let bias: Tensor<B, 1> = drawn([VOCAB], 101);
    Prediction {
        features: features.require_grad(),
        head: Head {
            weight: weight.mul_scalar(2.0).require_grad(),
            bias: bias.require_grad(),
            softcap: 30.0,
            execution: Execution {
                head_numbers: budget,
                ..Default::default()
            },
        },
    }
}

fn tokens<B: Backend>() -> Tensor<B, 2, Int> {
    let ids: Vec<i32> = (0..BATCH * LENGTH)
        .map(|i| (i * 11 % VOCAB) as i32)
        .collect();
    Tensor::from_data(TensorData::new(ids, [BATCH, LENGTH]), &Default::default())
}

fn weights<B: Backend>() -> Tensor<B, 2> {
    drawn([BATCH, LENGTH], 7)
}

/// A mixture of two predictions, like the target of the semigroup loss.
fn target(budget: usize) -> TokenDistribution<Flex> {
    let [first, second] = [11, 12].map(|seed| prediction::<Flex>(seed, budget).distribution());
    let weight = Tensor::from_floats([0.0, 0.3, 1.0], &Default::default());
    first.mix(second, weight)
}

/// Loss, losses per position and gradients to features, weight and bias.
fn numbers<A: AutodiffBackend<InnerBackend = Flex>>(
    prediction: &Prediction<A>,
    loss: Tensor<A, 1>,
    per_token: Tensor<Flex, 2>,
) -> Vec<Vec<f32>> {
    let values = |x: Tensor<Flex, 1>| x.into_data().to_vec::<f32>().unwrap();
    let grads = loss.clone().backward();
    vec![
        values(loss.inner()),
        values(flat(per_token)),
        values(flat(prediction.features.grad(&grads).unwrap())),
        values(flat(prediction.head.weight.grad(&grads).unwrap())),
        values(prediction.head.bias.grad(&grads).unwrap()),
    ]
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        for (a, b) in found.iter().zip(expected) {
            // Sums of a few hundred products in other orders.
            assert!(
                (a - b).abs() <= 1e-5 * largest,
                "{what}: {a} and {b} in {i}"
            );
        }
    }
}

/// The scores of a prediction against tokens and against a mixture.
fn scored<A: AutodiffBackend<InnerBackend = Flex>>(budget: usize) -> [Vec<Vec<f32>>; 2] {
    let prediction = prediction::<A>(1, BUDGET).within(budget);
    let hard = prediction.cross_entropy(tokens(), weights());
    let soft = prediction.soft_cross_entropy(&target(budget), weights());
    [hard, soft].map(|score| numbers(&prediction, score.loss, score.per_token))
}

#[test]
fn scores_in_runs_are_those_of_the_plain_composition() {
    let dense_target = Tensor::from_inner(target(BUDGET).dense());
    let expected = [true, false].map(|hard| {
        let plain = prediction::<Composed>(1, BUDGET);
        let log_probs = plain.dense_log_probs();
        let per_token = if hard {
            log_probs.gather(2, tokens().unsqueeze_dim(2))
        } else {
            (log_probs * dense_target.clone()).sum_dim(2)
        };
        let per_token = per_token.squeeze_dim::<2>(2).neg();
        let loss = (per_token.clone() * Tensor::from_inner(weights())).sum();
        numbers(&plain, loss, per_token.inner())
    });
    for budget in BUDGETS {
        for (kernels, scored) in [
            ("kernels", scored::<Autodiff<Flex>>(budget)),
            ("compositions", scored::<Composed>(budget)),
        ] {
            for (found, expected) in scored.iter().zip(&expected) {
                assert_close(found, expected, &format!("{kernels}, {budget} numbers"));
            }
        }
    }
}

#[test]
fn a_frozen_network_is_scored_without_gradients() {
    let mut frozen = prediction::<Autodiff<Flex>>(1, BUDGET);
    let learning = frozen.cross_entropy(tokens(), weights());
    assert!(frozen.takes_gradient());
    frozen.features = frozen.features.set_require_grad(false);
    frozen.head.weight = frozen.head.weight.set_require_grad(false);
    frozen.head.bias = frozen.head.bias.set_require_grad(false);
    assert!(!frozen.takes_gradient());
    let score = frozen.cross_entropy(tokens(), weights());
    assert_eq!(score.per_token.into_data(), learning.per_token.into_data());
    assert_eq!(score.loss.into_data(), learning.loss.into_data());
}

#[test]
fn denoised_made_when_asked_for_are_those_that_are_held() {
    let embed = VocabEmbed {
        embedding: Param::from_tensor(drawn([VOCAB, WIDTH], 3)),
    };
    let held = target(BUDGET);
    let close = |a: Tensor<Flex, 3>, b: Tensor<Flex, 3>| {
        let tolerance = Tolerance::relative(1e-5).set_absolute(1e-6);
        a.into_data()
            .assert_approx_eq::<f32>(&b.into_data(), tolerance);
    };
    for budget in BUDGETS {
        let made = target(budget);
        close(made.dense(), held.dense());
        close(made.mean(&embed), held.mean(&embed));
        made.argmax()
            .into_data()
            .assert_eq(&held.argmax().into_data(), true);
        let ((p, ids), (held_p, held_ids)) = (made.top(3), held.top(3));
        close(p, held_p);
        ids.into_data().assert_eq(&held_ids.into_data(), true);
    }
    // The definition of the mixture, on sequences of weights 0, 0.3 and 1.
    let [first, second] =
        [11, 12].map(|seed| prediction::<Flex>(seed, BUDGET).distribution().dense());
    let row = |x: &Tensor<Flex, 3>, i| x.clone().narrow(0, i, 1);
    close(row(&held.dense(), 0), row(&second, 0));
    close(
        row(&held.dense(), 1),
        row(&first, 1) * 0.3 + row(&second, 1) * 0.7,
    );
    close(row(&held.dense(), 2), row(&first, 2));
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    let denoised = prediction::<Flex>(1, BUDGET).distribution_at(4.0);
    let expected: Vec<f32> = denoised.dense().into_data().to_vec().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let draws = 4_000;
    let mut counts = vec![0_u32; expected.len()];
    for _ in 0..draws {
        let tokens = denoised.draw(&mut rng).into_data();
        for (position, token) in tokens.iter::<i64>().enumerate() {
            counts[position * VOCAB + token as usize] += 1;
        }
    }
    for (count, p) in counts.into_iter().zip(expected) {
        let (count, p) = (f64::from(count), f64::from(p));
        // Five standard deviations plus one: 555 counts, false alarm rate below 1e-3.
        let bound = 5.0 * (draws as f64 * p * (1.0 - p)).sqrt() + 1.0;
        assert!(
            (count - draws as f64 * p).abs() <= bound,
            "{count} of {draws} at {p}"
        );
    }
}

#[test]
fn log_probabilities_are_those_of_the_tokens() {
    let expected = prediction::<Flex>(1, BUDGET)
        .dense_log_probs()
        .gather(2, tokens().unsqueeze_dim(2))
        .squeeze_dim::<2>(2);
    for budget in BUDGETS {
        let found = prediction::<Flex>(1, budget).log_probs(tokens());
        let tolerance = Tolerance::relative(1e-5).set_absolute(1e-6);
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.clone().into_data(), tolerance);
    }
}

/// A weighted sum of a distribution and raw outputs, like the end of a residual flow map's jump.
fn sum(budget: usize) -> TokenDistribution<Flex> {
    let row = |numbers: [f32; 3]| Tensor::from_floats(numbers, &Default::default());
    let denoised = prediction::<Flex>(11, budget).distribution();
    let outputs = prediction::<Flex>(12, budget).outputs();
    denoised
        .scaled(row([0.0, 1.0, -0.4]))
        .plus(outputs, row([1.0, 0.5, 0.0]))
}

#[test]
fn weighted_sums_in_runs_are_those_of_dense_tensors() {
    let close = |a: Tensor<Flex, 3>, b: Tensor<Flex, 3>| {
        let tolerance = Tolerance::relative(1e-5).set_absolute(1e-5);
        a.into_data()
            .assert_approx_eq::<f32>(&b.into_data(), tolerance);
    };
    let denoised = prediction::<Flex>(11, BUDGET).distribution().dense();
    let outputs = prediction::<Flex>(12, BUDGET).dense_logits();
    let row = |x: &Tensor<Flex, 3>, i| x.clone().narrow(0, i, 1);
    let expected = Tensor::cat(
        vec![
            row(&outputs, 0),
            row(&denoised, 1) + row(&outputs, 1) * 0.5,
            row(&denoised, 2) * -0.4,
        ],
        0,
    );
    for budget in BUDGETS {
        close(sum(budget).dense(), expected.clone());
        close(sum(budget).held().dense(), expected.clone());
    }
}

#[test]
fn squared_errors_of_outputs_in_runs_are_those_of_the_plain_composition() {
    let scale = || Tensor::<Flex, 1>::from_floats([0.3, 1.0, -2.0], &Default::default());
    let point = Tensor::<Composed, 3>::from_inner(sum(BUDGET).dense());
    let plain = prediction::<Composed>(1, BUDGET);
    let scaled = plain.dense_logits() * Tensor::from_inner(scale()).reshape([BATCH, 1, 1]);
    let per_token = (scaled - point)
        .powi_scalar(2)
        .sum_dim(2)
        .squeeze_dim::<2>(2);
    let loss = (per_token.clone() * Tensor::from_inner(weights())).sum();
    let expected = numbers(&plain, loss, per_token.inner());
    for budget in BUDGETS {
        let prediction = prediction::<Autodiff<Flex>>(1, budget);
        let score = prediction.squared_output_error(&sum(budget), scale(), weights());
        let found = numbers(&prediction, score.loss, score.per_token);
        assert_close(&found, &expected, &format!("{budget} numbers"));
    }
}

/// Tokens of which some are replaced, at three noise levels.
fn replaced() -> (Tensor<Flex, 2, Int>, [Tensor<Flex, 1>; 2]) {
    let clean: Vec<i64> = tokens::<Flex>().into_data().iter::<i64>().collect();
    let change = |(i, id): (usize, i64)| {
        if i.is_multiple_of(3) {
            (id + 5) % 37
        } else {
            id
        }
    };
    let noisy: Vec<i64> = clean.into_iter().enumerate().map(change).collect();
    let row = |numbers: [f32; 3]| Tensor::from_floats(numbers, &Default::default());
    (
        Tensor::from_data(TensorData::new(noisy, [BATCH, LENGTH]), &Default::default()),
        [row([0.9, 0.4, 0.05]), row([-1.0, -0.999, -0.7])],
    )
}

/// The bound of a uniform-state diffusion as a plain composition, `[batch, length]`.
fn plain_bound<B: Backend>(log_probs: Tensor<B, 3>) -> Tensor<B, 2> {
    let (noisy, [alpha, slope]) = replaced();
    let shape = [BATCH, LENGTH, VOCAB];
    let numbers = |x: Tensor<Flex, 1>| {
        Tensor::<B, 1>::from_data(x.into_data(), &Default::default()).reshape([BATCH, 1, 1])
    };
    let (alpha, slope) = (numbers(alpha), numbers(slope));
    let ids = |x: Tensor<Flex, 2, Int>| {
        let data = x.into_data();
        Tensor::<B, 2, Int>::from_data(data, &Default::default()).unsqueeze_dim::<3>(2)
    };
    let (clean, noisy) = (ids(tokens()), ids(noisy));
    let spread = |q: Tensor<B, 3>| {
        q * alpha.clone().mul_scalar(VOCAB as f64) + alpha.clone().neg().add_scalar(1.0)
    };
    let one_hot = Tensor::zeros(shape, &Default::default()).scatter(
        2,
        clean,
        Tensor::ones([BATCH, LENGTH, 1], &Default::default()),
        burn::tensor::IndexingUpdateOp::Add,
    );
    let (truth, mean) = (spread(one_hot), spread(log_probs.exp()));
    let at = |x: &Tensor<B, 3>| x.clone().gather(2, noisy.clone());
    let ratio = truth.clone() / at(&truth);
    let gap = (at(&truth).recip() - at(&mean).recip()).mul_scalar(VOCAB as f64);
    let log = at(&mean).log() - mean.log() + ratio.clone().log();
    let inner = gap - (ratio * log).sum_dim(2);
    (inner * slope / alpha.mul_scalar(VOCAB as f64)).squeeze_dim(2)
}

#[test]
fn bounds_and_divergences_in_runs_are_those_of_the_plain_composition() {
    let noise = || {
        let (noisy, [alpha, slope]) = replaced();
        UniformNoise::new(tokens(), noisy, alpha, slope)
    };
    let plain = || prediction::<Composed>(1, BUDGET);
    // Not a mixture, whose cancellation of a small number next to a large one can be negative.
    let other = |budget| self::prediction::<Flex>(11, budget).distribution();
    let dense = Tensor::<Composed, 3>::from_inner(other(BUDGET).dense());
    let expected = [true, false].map(|bound| {
        let plain = plain();
        let log_probs = plain.dense_log_probs();
        let per_token = if bound {
            plain_bound(log_probs)
        } else {
            (log_probs.clone().exp() * (log_probs - dense.clone().log()))
                .sum_dim(2)
                .squeeze_dim(2)
        };
        let loss = (per_token.clone() * Tensor::from_inner(weights())).sum();
        numbers(&plain, loss, per_token.inner())
    });
    for budget in BUDGETS {
        let prediction = prediction::<Autodiff<Flex>>(1, BUDGET).within(budget);
        let scores = [
            prediction.uniform_bound(&noise(), weights()),
            prediction.divergence(&other(budget), weights()),
        ];
        let without_graph = prediction.inner().uniform_bounds(&noise());
        let tolerance = Tolerance::relative(1e-4).set_absolute(1e-5);
        without_graph
            .into_data()
            .assert_approx_eq::<f32>(&scores[0].per_token.to_data(), tolerance);
        for (score, expected) in scores.into_iter().zip(&expected) {
            let found = numbers(&prediction, score.loss, score.per_token);
            assert_close(&found, expected, &format!("{budget} numbers"));
        }
    }
}

#[test]
fn a_distribution_does_not_diverge_from_itself_and_its_entropy_is_its_loss() {
    let prediction = prediction::<Autodiff<Flex>>(1, BUDGET);
    let own = prediction.inner().distribution();
    let divergence: f32 = (prediction.divergence(&own, weights()).per_token.abs())
        .max()
        .into_scalar();
    // A sum of 37 rounded numbers.
    assert!(divergence < 1e-5, "{divergence}");
    let loss = prediction.soft_cross_entropy(&own, weights()).per_token;
    own.entropy()
        .into_data()
        .assert_approx_eq::<f32>(&loss.into_data(), Tolerance::absolute(1e-4));
}

#[test]
fn some_positions_answer_as_all_do() {
    let prediction = prediction::<Flex>(1, BUDGET);
    let all = prediction
        .distribution()
        .of(tokens())
        .reshape([BATCH * LENGTH]);
    let all: Vec<f32> = all.into_data().to_vec().unwrap();
    let ids: Vec<i32> = tokens::<Flex>().into_data().iter::<i32>().collect();
    let some = [13, 2, 2, 0];
    let chosen = some.map(|position| ids[position]);
    let chosen = Tensor::from_data(
        TensorData::new(chosen.to_vec(), [1, 4]),
        &Default::default(),
    );
    let found = prediction.at(&some).distribution().of(chosen).into_data();
    for (found, position) in found.iter::<f32>().zip(some) {
        // Products of one row in a matrix of another height.
        assert!((found - all[position]).abs() < 1e-6);
    }
}

#[test]
fn a_nucleus_keeps_the_likeliest_and_at_least_one() {
    let probabilities = Tensor::<Flex, 3>::from_floats([[[0.1, 0.5, 0.4]]], &Default::default());
    let denoised = TokenDistribution::pinned(probabilities);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut seen = |nucleus| {
        let mut counts = [0_u32; 3];
        for _ in 0..2_000 {
            let token: i64 = denoised.draw_within(nucleus, &mut rng).into_scalar().into();
            counts[token as usize] += 1;
        }
        counts
    };
    assert_eq!(seen(0.0), [0, 2_000, 0]);
    let [none, first, second] = seen(0.6);
    // 5/9 of 2,000 is 1,111; five standard deviations are 111.
    assert!(none == 0 && first.abs_diff(1_111) < 111 && first + second == 2_000);
    assert!(seen(1.0)[0] > 0);
}

#[test]
fn a_choice_is_the_chosen_to_the_bit() {
    let here: Vec<bool> = (0..BATCH * LENGTH).map(|at| at % 4 == 1).collect();
    for budget in BUDGETS {
        let [first, second] = [11, 12].map(|seed| prediction::<Flex>(seed, budget).distribution());
        let [own, other] = [&first, &second].map(|x| x.dense().into_data().to_vec::<f32>());
        let (own, other) = (own.unwrap(), other.unwrap());
        let data = TensorData::new(here.clone(), [BATCH, LENGTH]);
        let chosen = first.choose(second, Tensor::from_data(data, &Default::default()));
        let chosen: Vec<f32> = chosen.dense().into_data().to_vec().unwrap();
        for (at, &here) in here.iter().enumerate() {
            let row = at * VOCAB..(at + 1) * VOCAB;
            let expected = if here { &own } else { &other };
            assert_eq!(chosen[row.clone()], expected[row]);
        }
    }
}

/// The difference of two predictions, which is not a distribution.
fn contrast(budget: usize) -> TokenDistribution<Flex> {
    let [first, second] = [11, 12].map(|seed| prediction::<Flex>(seed, budget).distribution());
    first.plus(second, Tensor::full([BATCH], -1.0, &Default::default()))
}

#[test]
fn the_expectation_of_a_contrast_in_runs_is_that_of_the_plain_composition() {
    [1.0, 2.5].into_iter().for_each(expectation_at);
}

fn expectation_at(temperature: f64) {
    let values = contrast(BUDGET).dense();
    let plain = prediction::<Composed>(1, BUDGET);
    let p = log_softmax(plain.dense_log_probs() / temperature, 2).exp();
    let per_token = (p * Tensor::from_inner(values.clone())).sum_dim(2);
    let per_token = per_token.squeeze_dim::<2>(2);
    let loss = (per_token.clone() * Tensor::from_inner(weights())).sum();
    let expected = numbers(&plain, loss, per_token.inner());
    for budget in BUDGETS {
        let contrast = contrast(budget);
        let sizes = contrast.l1_norm() - values.clone().abs().sum_dim(2).squeeze_dim(2);
        assert!(sizes.abs().max().into_scalar() < 1e-5);
        let prediction = prediction::<Autodiff<Flex>>(1, BUDGET).within(budget);
        let score = prediction.expectation(&contrast, temperature, weights());
        let found = numbers(&prediction, score.loss, score.per_token);
        let what = format!("{budget} numbers, temperature {temperature}");
        assert_close(&found, &expected, &what);
    }
}

#[test]
fn repeated_answers_are_scored_as_often_and_their_gradients_add_up() {
    let scored = |times: usize| {
        let prediction = prediction::<Autodiff<Flex>>(1, BUDGET);
        let (tokens, weights) = (tokens::<Autodiff<Flex>>(), weights());
        let score = prediction.repeat(times).cross_entropy(
            tokens.repeat_dim(0, times),
            weights.repeat_dim(0, times) / times as f64,
        );
        let mut numbers = numbers(&prediction, score.loss, score.per_token);
        numbers[1].truncate(BATCH * LENGTH);
        numbers
    };
    assert_close(&scored(3), &scored(1), "three times");
}

#[test]
fn shares_of_sequences_are_made_in_runs() {
    let shares = vec![vec![(0, 1.0)], vec![(1, 0.25), (2, 0.75)]];
    let ids = vec![3, 1, 0, 0, 2, 1];
    let made = TokenDistribution::<Flex>::of_sequences(shares, ids, [2, 4], &Default::default());
    let expected = [
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 1.0, 0.0, 0.0],
        [0.25, 0.0, 0.75, 0.0],
        [0.25, 0.75, 0.0, 0.0],
    ];
    let rows = |first: usize, count: usize| -> Vec<f32> {
        made.rows(first, count).into_data().to_vec().unwrap()
    };
    assert_eq!(rows(0, 4), expected.concat());
    assert_eq!(rows(2, 1), expected[2]);
}
