//! Compares masked diffusion, a flow and its flow map on three cities with exact denoisers: few
//! steps are hard, but a flow map needs only one.
//!
//! For several numbers of steps it prints the share of 4,000 samples that are
//! cities, and the entropy of these in nats (the distribution has 1.09). Run it
//! with `cargo run --release -p flm-simplex --example new_diego`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::noise::gaussian;
use flm_simplex::{Schedule, sampler};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WORDS: [&str; 6] = ["new", "york", "san", "diego", "los", "angeles"];
const SAMPLES: usize = 4_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cities = vec![vec![0, 1], vec![2, 3], vec![4, 5]];
    let distribution = DiscreteDistribution::new(WORDS.len(), cities, &[0.35, 0.33, 0.32])?;
    let schedule = Schedule::new(WORDS.len())?;
    let denoiser = distribution.denoiser(&schedule);
    let mut rng = ChaCha8Rng::seed_from_u64(0);

    println!("steps   masked diffusion       flow             flow map");
    for steps in [1, 2, 4, 8, 16, 64] {
        let noise = gaussian::<Flex, _, 3>(
            distribution.state_shape(SAMPLES),
            &mut rng,
            &Default::default(),
        );
        let flow = sampler::euler(&denoiser, &schedule, noise.clone(), steps, |_| ())?;
        let none = || unreachable!("γ = 0 draws no noise");
        let map = sampler::flow_map(&denoiser, &schedule, noise, steps, 0.0, none, |_| ())?;
        let masked: Vec<_> = (0..SAMPLES)
            .map(|_| unmask(&distribution, steps, &mut rng))
            .collect();
        println!(
            "{steps:5}   {:18}  {:18}  {:18}",
            render(&masked),
            render(&distribution.decode(flow)),
            render(&distribution.decode(map))
        );
    }
    Ok(())
}

/// Masked diffusion with an exact denoiser: each of two masked tokens is drawn in a uniformly
/// chosen step, given the tokens written before.
fn unmask(
    distribution: &DiscreteDistribution,
    steps: usize,
    rng: &mut ChaCha8Rng,
) -> Option<usize> {
    let when = [0, 1].map(|_| rng.random_range(0..steps));
    let mut text = [None; 2];
    for step in 0..steps {
        let before = text;
        for place in (0..2).filter(|&place| when[place] == step) {
            text[place] = Some(draw(distribution, &before, place, rng));
        }
    }
    distribution
        .sequences()
        .iter()
        .position(|city| text.iter().zip(city).all(|(word, of)| *word == Some(*of)))
}

/// Draws the word at `place`, conditional on the words already written.
fn draw(
    distribution: &DiscreteDistribution,
    text: &[Option<usize>],
    place: usize,
    rng: &mut ChaCha8Rng,
) -> usize {
    let fits = |city: &[usize]| {
        text.iter()
            .zip(city)
            .all(|(word, of)| word.is_none_or(|w| w == *of))
    };
    let possible: Vec<(usize, f64)> = distribution
        .sequences()
        .iter()
        .zip(distribution.probabilities())
        .filter(|(city, _)| fits(city))
        .map(|(city, &p)| (city[place], p))
        .collect();
    let mut left = rng.random::<f64>() * possible.iter().map(|(_, p)| p).sum::<f64>();
    for &(word, p) in &possible {
        left -= p;
        if left <= 0.0 {
            return word;
        }
    }
    // Rounding left a remainder.
    possible[possible.len() - 1].0
}

/// Formats the share of samples that are cities, and the entropy of these.
fn render(samples: &[Option<usize>]) -> String {
    let cities: Vec<usize> = samples.iter().copied().flatten().collect();
    let share =
        |city: usize| cities.iter().filter(|c| **c == city).count() as f64 / cities.len() as f64;
    let entropy: f64 = (0..3)
        .map(share)
        .filter(|p| *p > 0.0)
        .map(|p| -p * p.ln())
        .sum();
    let valid = 100.0 * cities.len() as f64 / samples.len() as f64;
    format!("{valid:5.1} %, {:.2} nats", entropy.max(0.0))
}
