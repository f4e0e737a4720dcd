//! Identities of flow maps, on a distribution whose flow is known exactly.

use burn::tensor::{Tensor, Tolerance};
use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::flow_map::{semigroup_weight, transport};
use flm_simplex::interpolant::{interpolate, rows, velocity};
use flm_simplex::noise::gaussian;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type State = Tensor<Flex, 3>;

const BATCH: usize = 16;

/// (s, u, t): inside, from pure noise, late, and to the end.
const TRIPLES: [(f64, f64, f64); 4] = [
    (0.2, 0.4, 0.7),
    (0.0, 0.3, 0.6),
    (0.6, 0.8, 0.95),
    (0.1, 0.5, 1.0),
];

fn distribution() -> DiscreteDistribution {
    let sequences = vec![vec![0, 1, 2], vec![0, 1, 0], vec![3, 3, 3], vec![2, 1, 2]];
    DiscreteDistribution::new(4, sequences, &[0.4, 0.1, 0.2, 0.3]).unwrap()
}

/// Returns states as they occur at time s: between noise and a sequence of the distribution.
fn states(distribution: &DiscreteDistribution, s: f64, seed: u64) -> State {
    let device = Default::default();
    let noise = gaussian(
        distribution.state_shape(BATCH),
        &mut ChaCha8Rng::seed_from_u64(seed),
        &device,
    );
    let data = distribution.delta(noise.clone(), 0.0, 1.0);
    interpolate(noise, data, at(s))
}

fn at(t: f64) -> Tensor<Flex, 1> {
    rows(&[t; BATCH], &Default::default())
}

/// Returns X_{s,t} from the exact δ_{s,t}.
fn flow(distribution: &DiscreteDistribution, x: State, s: f64, t: f64) -> State {
    let delta = distribution.delta(x.clone(), s, t);
    transport(x, delta, at(s), at(t))
}

fn assert_close(found: State, expected: State, tolerance: f64) {
    let tolerance = Tolerance::absolute(tolerance);
    found
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
}

#[test]
fn two_short_moves_make_a_long_one() {
    let distribution = distribution();
    for (s, u, t) in TRIPLES {
        let x = states(&distribution, s, 1);
        let by_u = flow(&distribution, flow(&distribution, x.clone(), s, u), u, t);
        // The state at u is rounded to f32 (1e-7), and here the flow magnifies differences by at
        // most some tens.
        assert_close(by_u, flow(&distribution, x, s, t), 1e-5);
    }
}

#[test]
fn the_semigroup_target_is_the_two_time_denoiser() {
    let distribution = distribution();
    for (s, u, t) in TRIPLES {
        let x = states(&distribution, s, 2);
        let gamma = semigroup_weight(s, u, t);
        let first = distribution.delta(x.clone(), s, u);
        let second = distribution.delta(flow(&distribution, x.clone(), s, u), u, t);
        let target = first * gamma + second * (1.0 - gamma);
        // As above; the guard in γ adds 1e-7.
        assert_close(target, distribution.delta(x, s, t), 1e-5);
    }
}

#[test]
fn staying_is_the_identity_and_delta_becomes_the_denoiser() {
    let distribution = distribution();
    for s in [0.0, 0.3, 0.9] {
        let x = states(&distribution, s, 3);
        assert_close(flow(&distribution, x.clone(), s, s), x.clone(), 0.0);
        let near = distribution.delta(x.clone(), s, s + 1e-6 * (1.0 - s));
        // δ_{s,t} − D_s is of the order of t − s times a derivative of some tens.
        assert_close(near, distribution.delta(x, s, s), 1e-4);
    }
}

#[test]
fn arriving_is_delta_and_lands_on_a_sequence() {
    let distribution = distribution();
    let x = states(&distribution, 0.2, 4);
    let arrived = flow(&distribution, x.clone(), 0.2, 1.0);
    assert_close(arrived.clone(), distribution.delta(x, 0.2, 1.0), 0.0);
    // The closed form stops when a sequence has a mass of 1 − 1e-12.
    assert_close(arrived.clone().round(), arrived.clone(), 1e-6);
    assert!(distribution.decode(arrived).iter().all(Option::is_some));
}

#[test]
fn the_flow_map_moves_along_the_velocity() {
    let distribution = distribution();
    let (s, h) = (0.4, 1e-3);
    let x = states(&distribution, s, 5);
    let moved = flow(&distribution, x.clone(), s, s + h) - x.clone();
    let slope = velocity(x.clone(), distribution.delta(x, s, s), at(s), 0.0);
    // First order in h, with a second derivative of some tens; f32 leaves 1e-7/h.
    assert_close(moved / h, slope, 3e-2);
}
