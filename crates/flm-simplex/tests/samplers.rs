//! Samplers draw from the distribution of their denoiser, in any linear coordinates.

use std::cell::RefCell;

use burn::tensor::{Tensor, TensorData, Tolerance, activation::softmax};
use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::noise::gaussian;
use flm_simplex::sampler::Renewal;
use flm_simplex::{Denoiser, Schedule, sampler};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type State = Tensor<Flex, 3>;

const BATCH: usize = 2_000;

/// χ² with three degrees of freedom exceeds this with probability 1e-4. This would be each test's
/// false-alarm rate if its seed were not fixed.
const CHI_SQUARE_LIMIT: f64 = 21.1;

fn distribution() -> DiscreteDistribution {
    let sequences = vec![vec![0, 1], vec![0, 2], vec![2, 2], vec![1, 0]];
    DiscreteDistribution::new(3, sequences, &[0.4, 0.1, 0.2, 0.3]).unwrap()
}

fn chi_square(distribution: &DiscreteDistribution, samples: &[Option<usize>]) -> f64 {
    let mut counts = vec![0.0; distribution.probabilities().len()];
    for sample in samples {
        counts[sample.expect("each sample is a sequence of the distribution")] += 1.0;
    }
    let expected = distribution
        .probabilities()
        .iter()
        .map(|p| p * samples.len() as f64);
    expected.zip(counts).map(|(e, n)| (n - e).powi(2) / e).sum()
}

fn start(distribution: &DiscreteDistribution, batch: usize, seed: u64) -> (State, ChaCha8Rng) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (
        gaussian(
            distribution.state_shape(batch),
            &mut rng,
            &Default::default(),
        ),
        rng,
    )
}

#[test]
fn euler_with_many_steps_draws_from_the_distribution() {
    let (distribution, schedule) = (distribution(), Schedule::new(3).unwrap());
    let (noise, _) = start(&distribution, BATCH, 1);
    let denoised = sampler::euler(
        &distribution.denoiser(&schedule),
        &schedule,
        noise,
        256,
        |_| (),
    )
    .unwrap();
    // At 256 steps the discretization moves well under one sample in a hundred across a border.
    let statistic = chi_square(&distribution, &distribution.decode(denoised));
    assert!(statistic < CHI_SQUARE_LIMIT, "χ² = {statistic}");
}

#[test]
fn one_exact_jump_gives_the_samples_of_many() {
    let (distribution, schedule) = (distribution(), Schedule::new(3).unwrap());
    let (noise, _) = start(&distribution, 300, 2);
    let sample = |steps| {
        let state = noise.clone();
        let denoised = sampler::flow_map(
            &distribution.denoiser(&schedule),
            &schedule,
            state,
            steps,
            0.0,
            no_noise,
            |_| (),
        );
        distribution.decode(denoised.unwrap())
    };
    let one = sample(1);
    assert!(one.iter().all(Option::is_some));
    // Rounding of the intermediate states (1e-7) moves one start in a million across a border.
    for steps in [2, 5] {
        assert_eq!(sample(steps), one, "{steps} steps");
    }
}

#[test]
fn euler_approaches_the_exact_flow() {
    let (distribution, schedule) = (distribution(), Schedule::new(3).unwrap());
    let (noise, _) = start(&distribution, BATCH, 3);
    let exact = distribution.decode(distribution.delta(noise.clone(), 0.0, 1.0));
    let wrong = |steps| {
        let denoised = sampler::euler(
            &distribution.denoiser(&schedule),
            &schedule,
            noise.clone(),
            steps,
            |_| (),
        );
        let samples = distribution.decode(denoised.unwrap());
        samples.iter().zip(&exact).filter(|(a, b)| a != b).count()
    };
    // First order: eight times the steps leave about an eighth of the errors. The bound of a
    // quarter allows for random variation.
    let (few, many) = (wrong(8), wrong(64));
    assert!(few >= 20, "{few} wrong in 8 steps: too few to compare");
    assert!(4 * many < few, "{few} wrong in 8 steps, {many} in 64");
}

#[test]
fn noise_put_back_keeps_the_distribution() {
    // At γ = 1 every jump ends at a sample of the distribution, to which noise is added. This is
    // exact for any number of steps.
    let (distribution, schedule) = (distribution(), Schedule::new(3).unwrap());
    let (state, mut rng) = start(&distribution, BATCH, 4);
    let noise = || {
        gaussian(
            distribution.state_shape(BATCH),
            &mut rng,
            &Default::default(),
        )
    };
    let denoised = sampler::flow_map(
        &distribution.denoiser(&schedule),
        &schedule,
        state,
        3,
        1.0,
        noise,
        |_| (),
    );
    let statistic = chi_square(&distribution, &distribution.decode(denoised.unwrap()));
    assert!(statistic < CHI_SQUARE_LIMIT, "χ² = {statistic}");
}

/// Returns one-hots of a token drawn at each position of `denoised` `[batch, length, vocabulary]`.
fn drawn(denoised: &State, rng: &mut ChaCha8Rng) -> State {
    let shape = denoised.dims();
    let mut values: Vec<f32> = denoised.to_data().iter::<f32>().collect();
    for row in values.chunks_exact_mut(shape[2]) {
        let mut left: f32 = rng.random();
        let last = row.len() - 1;
        let token = row.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        row.fill(0.0);
        row[token.unwrap_or(last)] = 1.0;
    }
    Tensor::from_data(TensorData::new(values, shape), &denoised.device())
}

fn bridged(
    distribution: &DiscreteDistribution,
    steps: usize,
    renewal: Renewal,
    seed: u64,
) -> Vec<Option<usize>> {
    let schedule = Schedule::new(3).unwrap();
    let (state, mut rng) = start(distribution, BATCH, seed);
    let mut draws = ChaCha8Rng::seed_from_u64(seed + 100);
    let denoised = sampler::bridge(
        &distribution.denoiser(&schedule),
        &schedule,
        state,
        steps,
        renewal,
        |denoised| drawn(denoised, &mut draws),
        || {
            gaussian(
                distribution.state_shape(BATCH),
                &mut rng,
                &Default::default(),
            )
        },
        |_| (),
    );
    distribution.decode(denoised.unwrap())
}

#[test]
fn a_bridge_with_many_steps_draws_from_the_distribution() {
    // Positions are drawn independently at each step, so their dependence is lost if steps are few.
    // One sample in a hundred may end outside the distribution.
    let distribution = distribution();
    let found = bridged(&distribution, 256, Renewal::Bridge, 6);
    let valid: Vec<_> = found.into_iter().filter(Option::is_some).collect();
    assert!(
        valid.len() * 100 >= BATCH * 99,
        "{} of {BATCH}",
        valid.len()
    );
    let statistic = chi_square(&distribution, &valid);
    assert!(statistic < CHI_SQUARE_LIMIT, "χ² = {statistic}");
}

#[test]
fn full_renewal_of_an_exact_flow_map_draws_from_the_distribution_in_few_steps() {
    let distribution = distribution();
    for steps in [1, 3] {
        let statistic = chi_square(
            &distribution,
            &bridged(&distribution, steps, Renewal::Full, 7),
        );
        assert!(
            statistic < CHI_SQUARE_LIMIT,
            "{steps} steps: χ² = {statistic}"
        );
    }
}

/// A two-time denoiser that reads a state only through h = xE: softmax of h·W, with W scaled by
/// the times.
struct Projecting {
    embedding: State,
    head: State,
    /// Whether it reads h and returns the mean D·E, or reads x and returns D.
    projected: bool,
}

impl Denoiser<Flex> for Projecting {
    type TokenDistribution = State;

    fn denoise(&self, state: State, tau_s: f64, tau_t: f64) -> State {
        let h = if self.projected {
            state
        } else {
            state.matmul(self.embedding.clone())
        };
        let sharpness = 0.3 + 2.0 * tau_s + tau_t;
        softmax(h.matmul(self.head.clone()) * sharpness, 2)
    }

    fn mean(&self, denoised: &State) -> State {
        if self.projected {
            denoised.clone().matmul(self.embedding.clone())
        } else {
            denoised.clone()
        }
    }
}

#[test]
fn projected_states_give_the_same_denoised_as_dense_ones() {
    let (vocab_size, width, shape) = (11, 4, [5, 3, 11]);
    let device = Default::default();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let schedule = Schedule::new(vocab_size).unwrap();
    let embedding: State = gaussian([1, vocab_size, width], &mut rng, &device);
    let head: State = gaussian([1, width, vocab_size], &mut rng, &device);
    let draws: Vec<State> = (0..4).map(|_| gaussian(shape, &mut rng, &device)).collect();

    for gamma in [None, Some(0.0), Some(0.8), Some(1.0)] {
        let run = |projected: bool| -> Vec<State> {
            let denoiser = Projecting {
                embedding: embedding.clone(),
                head: head.clone(),
                projected,
            };
            let enter = |x: &State| {
                if projected {
                    x.clone().matmul(embedding.clone())
                } else {
                    x.clone()
                }
            };
            let denoised = RefCell::new(Vec::new());
            let note = |step: sampler::Step<'_, State>| {
                denoised.borrow_mut().push(step.distribution.clone())
            };
            let mut fresh = draws[1..].iter().map(enter);
            let state = enter(&draws[0]);
            match gamma {
                None => sampler::euler(&denoiser, &schedule, state, 4, note).unwrap(),
                Some(gamma) => {
                    let noise = || fresh.next().expect("three draws for four steps");
                    sampler::flow_map(&denoiser, &schedule, state, 4, gamma, noise, note).unwrap()
                }
            };
            denoised.into_inner()
        };
        let (dense, projected) = (run(false), run(true));
        assert_eq!(dense.len(), 4);
        for (dense, projected) in dense.into_iter().zip(projected) {
            // Products of eleven and four terms in f32, times logits of order ten.
            projected
                .into_data()
                .assert_approx_eq::<f32>(&dense.into_data(), Tolerance::absolute(1e-4));
        }
    }
}

fn no_noise() -> State {
    unreachable!("γ = 0 draws no noise")
}
