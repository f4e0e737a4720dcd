//! Autoguidance and reward guidance on small distributions, checked against their formulas.

use burn::tensor::{Tensor, Tolerance};
use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::flow_map::EULER_GUARD;
use flm_simplex::guidance::{Autoguidance, RewardGuidance, Steer};
use flm_simplex::noise::gaussian;
use flm_simplex::{Denoiser, Schedule, sampler};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type State = Tensor<Flex, 3>;

fn distributions() -> [DiscreteDistribution; 2] {
    let words = vec![vec![0, 1], vec![0, 2], vec![2, 2], vec![1, 0]];
    let distribution =
        |probabilities: &[f64]| DiscreteDistribution::new(3, words.clone(), probabilities).unwrap();
    [
        distribution(&[0.4, 0.1, 0.2, 0.3]),
        distribution(&[0.1, 0.4, 0.4, 0.1]),
    ]
}

fn noise() -> State {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    gaussian([100, 2, 3], &mut rng, &Default::default())
}

#[test]
fn at_one_it_is_the_strong_one_to_the_bit_and_at_nought_the_weak_one() {
    let ([strong, weak], schedule) = (distributions(), Schedule::new(3).unwrap());
    let (strong, weak) = (strong.denoiser(&schedule), weak.denoiser(&schedule));
    let jumps = |denoiser: &dyn Fn(State) -> State| denoiser(noise()).into_data();
    for (eta, alone) in [(1.0, strong), (0.0, weak)] {
        let guided = Autoguidance { strong, weak, eta };
        let euler = |noise| sampler::euler(&guided, &schedule, noise, 4, |_| ()).unwrap();
        let expected = |noise| sampler::euler(&alone, &schedule, noise, 4, |_| ()).unwrap();
        jumps(&euler).assert_eq(&jumps(&expected), true);
    }
}

#[test]
fn a_guided_step_has_the_guided_velocity() {
    let ([strong, weak], schedule) = (distributions(), Schedule::new(3).unwrap());
    let eta = 2.5;
    let guided = Autoguidance {
        strong: strong.denoiser(&schedule),
        weak: weak.denoiser(&schedule),
        eta,
    };
    let (tau, steps) = (1.0 / 3.0, 3);
    let (t, t_next) = (schedule.t_of_tau(tau), schedule.t_of_tau(2.0 * tau));
    // Two Euler steps by hand: b = b_weak + η·(b_strong − b_weak), then x + (t′ − t)·b.
    let first = {
        let t_next = t;
        let (b_strong, b_weak) = velocities([&strong, &weak], noise(), 0.0);
        noise() + (b_weak.clone() + (b_strong - b_weak) * eta) * t_next
    };
    let second = {
        let (b_strong, b_weak) = velocities([&strong, &weak], first.clone(), t);
        first.clone() + (b_weak.clone() + (b_strong - b_weak) * eta) * (t_next - t)
    };
    let [d_strong, d_weak] =
        [&strong, &weak].map(|distribution| distribution.delta(second.clone(), t_next, t_next));
    let expected = d_weak.clone() + (d_strong - d_weak) * eta;
    let found = sampler::euler(&guided, &schedule, noise(), steps, |_| ()).unwrap();
    // Velocity differences of order ten in f32, followed by two steps and a sharp posterior.
    found
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(2e-3));
}

/// Returns the velocities b of both distributions at a state of time t.
fn velocities(distributions: [&DiscreteDistribution; 2], state: State, t: f64) -> (State, State) {
    let [strong, weak] = distributions.map(|distribution| {
        (distribution.delta(state.clone(), t, t) - state.clone()) / (1.0 - t + EULER_GUARD)
    });
    (strong, weak)
}

/// Adds an amount to states that depends on their time.
struct Push(f64);

impl Steer<Flex> for Push {
    fn steer(&self, state: State, tau: f64) -> State {
        state + self.0 * (1.0 + tau)
    }
}

/// Returns its state as the prediction.
struct Echo;

impl Denoiser<Flex> for Echo {
    type TokenDistribution = State;

    fn denoise(&self, state: State, _: f64, _: f64) -> State {
        state
    }

    fn mean(&self, denoised: &State) -> State {
        denoised.clone()
    }
}

#[test]
fn states_are_steered_before_every_evaluation() {
    // An echo's state changes only by the pushes, (1 + τ) at τ = 0, ¼, ½ and ¾.
    let schedule = Schedule::new(3).unwrap();
    let pushed = |by| {
        let denoiser = RewardGuidance {
            denoiser: Echo,
            by: Push(by),
        };
        let euler = sampler::euler(&denoiser, &schedule, noise(), 4, |_| ()).unwrap();
        let jumps = sampler::flow_map(
            &denoiser,
            &schedule,
            noise(),
            4,
            0.0,
            || unreachable!("γ = 0 draws no noise"),
            |_| (),
        );
        [euler, jumps.unwrap()]
    };
    let expected = noise() + 0.1 * 5.5;
    for found in pushed(0.1) {
        // Sums of numbers of order one.
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.clone().into_data(), Tolerance::absolute(1e-5));
    }
    let alone = sampler::euler(&Echo, &schedule, noise(), 4, |_| ()).unwrap();
    pushed(0.0)[0]
        .clone()
        .into_data()
        .assert_eq(&alone.into_data(), true);
}

#[test]
fn a_guided_denoiser_is_steered_by_its_strong_one() {
    let schedule = Schedule::new(3).unwrap();
    let steered = RewardGuidance {
        denoiser: Echo,
        by: Push(1.0),
    };
    let guided = Autoguidance {
        strong: steered,
        weak: Echo,
        eta: 2.0,
    };
    let found = sampler::euler(&guided, &schedule, noise(), 1, |_| ()).unwrap();
    found
        .into_data()
        .assert_eq(&(noise() + 1.0).into_data(), true);
}
