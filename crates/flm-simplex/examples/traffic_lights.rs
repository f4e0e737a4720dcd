//! A flow over something other than text: four traffic lights at a crossing, with three
//! colours each.
//!
//! Opposite lights agree, and only one road has green. The denoiser is exact, so nothing
//! is trained.
#![allow(clippy::print_stdout, reason = "an example")]

use burn_flex::Flex;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::{Schedule, noise::gaussian, sampler};
use rand::SeedableRng;

const COLOURS: [&str; 3] = ["red", "amber", "green"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [red, amber, green] = [0, 1, 2];
    let phases = [[green, red], [amber, red], [red, green], [red, amber]];
    let crossings: Vec<Vec<usize>> = phases.map(|[a, b]| vec![a, b, a, b]).to_vec();
    let distribution = DiscreteDistribution::new(3, crossings.clone(), &[0.4, 0.1, 0.4, 0.1])?;
    let schedule = Schedule::new(3)?;

    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let noise = gaussian::<Flex, _, 3>(distribution.state_shape(8), &mut rng, &Default::default());
    let denoiser = distribution.denoiser(&schedule);
    let end = sampler::euler(&denoiser, &schedule, noise, 64, |_| ())?;
    for found in distribution.decode(end) {
        let crossing = &crossings[found.ok_or("the sample is not a valid crossing")?];
        let colours: Vec<&str> = crossing.iter().map(|&colour| COLOURS[colour]).collect();
        println!("{}", colours.join(" "));
    }
    Ok(())
}
