//! Exact and approximate properties of pinned positions.

use std::cell::RefCell;

use burn::tensor::{Tensor, Tolerance};
use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::noise::gaussian;
use flm_simplex::{Denoiser, Pinned, Schedule, sampler};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type State = Tensor<Flex, 3>;

const BATCH: usize = 2_000;

fn noise(distribution: &DiscreteDistribution, batch: usize, seed: u64) -> State {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    gaussian(
        distribution.state_shape(batch),
        &mut rng,
        &Default::default(),
    )
}

/// Returns the mask of known positions.
fn mask<const L: usize>(known: [bool; L]) -> Tensor<Flex, 2, burn::tensor::Bool> {
    let known = known.map(|known| if known { 1.0 } else { 0.0 });
    Tensor::<Flex, 2>::from_floats([known], &Default::default()).bool()
}

/// Returns clean data with `token`, one of three, at the first position and zeros at the second.
fn first(token: usize) -> State {
    let mut clean = [[[0.0; 3]; 2]];
    clean[0][0][token] = 1.0;
    Tensor::from_floats(clean, &Default::default())
}

/// Samples with the first token known and returns the second tokens.
fn seconds(
    distribution: &DiscreteDistribution,
    token: usize,
    steps: usize,
    seed: u64,
) -> Vec<usize> {
    let (schedule, start) = (Schedule::new(3).unwrap(), noise(distribution, BATCH, seed));
    let denoiser = distribution.denoiser(&schedule);
    let known = mask([true, false]);
    let pinned = Pinned::new(&denoiser, &schedule, known, start.clone(), first(token));
    second(sampler::euler(&pinned, &schedule, start, steps, |_| ()).unwrap())
}

fn second(denoised: State) -> Vec<usize> {
    let tokens = denoised.argmax(2).narrow(1, 1, 1).into_data();
    tokens.iter::<i64>().map(|token| token as usize).collect()
}

/// Records the states at which it is evaluated.
struct Noting<'a, D>(&'a D, RefCell<Vec<(f64, State)>>);

impl<D: Denoiser<Flex>> Denoiser<Flex> for Noting<'_, D> {
    type TokenDistribution = D::TokenDistribution;

    fn denoise(&self, state: State, tau_s: f64, tau_t: f64) -> D::TokenDistribution {
        self.1.borrow_mut().push((tau_s, state.clone()));
        self.0.denoise(state, tau_s, tau_t)
    }

    fn mean(&self, denoised: &D::TokenDistribution) -> State {
        self.0.mean(denoised)
    }
}

fn agreeing() -> DiscreteDistribution {
    let sequences = vec![vec![0, 1], vec![0, 2], vec![2, 2], vec![1, 0]];
    DiscreteDistribution::new(3, sequences, &[0.4, 0.1, 0.2, 0.3]).unwrap()
}

#[test]
fn where_nothing_is_known_nothing_changes() {
    let (distribution, schedule) = (agreeing(), Schedule::new(3).unwrap());
    let denoiser = distribution.denoiser(&schedule);
    let start = noise(&distribution, 50, 1);
    let known = mask([false, false]);
    let pinned = Pinned::new(&denoiser, &schedule, known, start.clone(), first(1));
    let free = sampler::euler(&denoiser, &schedule, start.clone(), 8, |_| ()).unwrap();
    let held = sampler::euler(&pinned, &schedule, start, 8, |_| ()).unwrap();
    held.into_data().assert_eq(&free.into_data(), true);
}

#[test]
fn a_known_position_is_on_its_line_at_every_evaluation_and_keeps_its_noise() {
    let (distribution, schedule) = (agreeing(), Schedule::new(3).unwrap());
    let denoiser = distribution.denoiser(&schedule);
    for gamma in [None, Some(0.0), Some(0.8)] {
        let noting = Noting(&denoiser, RefCell::default());
        let start = noise(&distribution, 5, 2);
        let known = mask([true, false]);
        let pinned = Pinned::new(&noting, &schedule, known, start.clone(), first(1));
        match gamma {
            None => sampler::euler(&pinned, &schedule, start.clone(), 4, |_| ()),
            Some(gamma) => {
                let mut jump = 2;
                let fresh = || {
                    jump += 1;
                    noise(&distribution, 5, jump)
                };
                sampler::flow_map(&pinned, &schedule, start.clone(), 4, gamma, fresh, |_| ())
            }
        }
        .unwrap();
        let asked = noting.1.into_inner();
        assert_eq!(asked.len(), 4);
        for (tau, state) in asked {
            let t = schedule.t_of_tau(tau);
            let line = start.clone() * (1.0 - t) + first(1) * t;
            let at_first = |x: State| x.narrow(1, 0, 1).into_data();
            // The same three operations in f32.
            at_first(state).assert_approx_eq::<f32>(&at_first(line), Tolerance::absolute(1e-6));
        }
    }
}

#[test]
fn independent_positions_do_not_feel_each_other() {
    // A product distribution: (½, ½) times (0.3, 0.7). The second position follows its own flow,
    // whatever value the first is held to.
    let sequences = vec![vec![0, 1], vec![0, 2], vec![1, 1], vec![1, 2]];
    let distribution = DiscreteDistribution::new(3, sequences, &[0.15, 0.35, 0.15, 0.35]).unwrap();
    let (schedule, start) = (Schedule::new(3).unwrap(), noise(&distribution, BATCH, 5));
    let free = sampler::euler(
        &distribution.denoiser(&schedule),
        &schedule,
        start,
        64,
        |_| (),
    )
    .unwrap();
    assert_eq!(seconds(&distribution, 0, 64, 5), second(free));
}

#[test]
fn infilled_marginals_are_nearer_to_the_conditional_ones_than_to_those_of_no_condition() {
    let distribution = agreeing();
    let free = [0.3, 0.4, 0.3];
    for (token, conditional) in [
        (0, [0.0, 0.8, 0.2]),
        (1, [1.0, 0.0, 0.0]),
        (2, [0.0, 0.0, 1.0]),
    ] {
        let mut found = [0.0; 3];
        for second in seconds(&distribution, token, 64, 6) {
            found[second] += 1.0 / BATCH as f64;
        }
        let distance = |distribution: [f64; 3]| -> f64 {
            let pairs = distribution.into_iter().zip(conditional);
            pairs.map(|(p, q)| (p - q).abs() / 2.0).sum()
        };
        // Pinning is approximate for any number of steps: about half of the distance remains after
        // a 0, a third after the others. Random variation moves it by 0.03.
        let (found, free) = (distance(found), distance(free));
        assert!(found < 0.6 * free, "after {token}: {found} of {free}");
    }
}
