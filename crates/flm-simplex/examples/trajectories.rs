//! Follows the exact flow of three cities: prints, for each noise draw and time τ, the probability
//! that the denoiser gives to the first word of each city, as CSV.
//!
//! `cargo xtask figures` draws it. Run it with
//! `cargo run --release -p flm-simplex --example trajectories`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::noise::gaussian;
use flm_simplex::{Schedule, sampler};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const DRAWS: usize = 24;
const STEPS: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cities = vec![vec![0, 1], vec![2, 3], vec![4, 5]];
    let distribution = DiscreteDistribution::new(6, cities, &[0.35, 0.33, 0.32])?;
    let schedule = Schedule::new(6)?;
    let denoiser = distribution.denoiser(&schedule);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let shape = distribution.state_shape(DRAWS);
    let noise = gaussian::<Flex, _, 3>(shape, &mut rng, &Default::default());
    println!("draw,tau,new york,san diego,los angeles");
    sampler::euler(&denoiser, &schedule, noise, STEPS, |step| {
        let values = step
            .distribution
            .to_data()
            .iter::<f32>()
            .collect::<Vec<_>>();
        for (draw, words) in values.chunks_exact(2 * 6).enumerate() {
            let [new, san, los] = [words[0], words[2], words[4]];
            println!("{draw},{:.3},{new:.4},{san:.4},{los:.4}", step.tau);
        }
    })?;
    Ok(())
}
