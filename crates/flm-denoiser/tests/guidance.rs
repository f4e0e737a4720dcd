//! Autoguidance on projected states against dense states, and the independence of samples.

use burn::tensor::{Tensor, Tolerance};
use burn_flex::Flex;
use flm_denoiser::{
    Dit, DitConfig, Dropout, DropoutGuidance, Prior, SamplingDenoiser, TokenDistribution,
    apply_tensors, named_tensors,
};
use flm_simplex::guidance::Autoguidance;
use flm_simplex::noise::gaussian;
use flm_simplex::{Denoiser, sampler};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

type State = Tensor<Flex, 3>;

const LENGTH: usize = 5;

/// A network with all parameters random, so that all of them take part.
fn loud(vocab: usize, width: usize, seed: u64) -> Dit<Flex> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let config = DitConfig::new(vocab, LENGTH, width, 1, 2).with_two_time(true);
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

/// A network on V-wide states.
struct Wide<'a>(&'a Dit<Flex>);

impl Denoiser<Flex> for Wide<'_> {
    type TokenDistribution = State;

    fn denoise(&self, state: State, tau_s: f64, tau_t: f64) -> State {
        let row = |tau: f64| Tensor::full([state.dims()[0]], tau, &Default::default());
        let seen = self.0.embed().project(state.clone());
        let prediction = self
            .0
            .forward(seen, row(tau_s), row(tau_t), &mut Dropout::off());
        prediction.distribution().dense()
    }

    fn mean(&self, denoised: &State) -> State {
        denoised.clone()
    }
}

#[test]
fn two_networks_side_by_side_sample_as_two_on_states_as_wide_as_the_vocabulary() {
    // A vocabulary smaller than both widths, between them, and larger than their sum.
    for vocab in [7, 11, 37] {
        let (strong, weak) = (loud(vocab, 16, 1), loud(vocab, 8, 2));
        let schedule = flm_simplex::Schedule::new(vocab).unwrap();
        let both = strong.embed().beside(weak.embed());
        let wide: Vec<State> = (0..4)
            .map(|i| drawn([3, LENGTH, vocab], 10 + i as u64))
            .collect();
        for (gamma, eta) in [(0.0, 1.0), (0.0, 3.0), (0.8, 2.0)] {
            let mut fresh = wide[1..].iter().cloned();
            let dense = Autoguidance {
                strong: Wide(&strong),
                weak: Wide(&weak),
                eta,
            };
            let noise = || fresh.next().unwrap();
            let start = wide[0].clone();
            let expected =
                sampler::flow_map(&dense, &schedule, start, 4, gamma, noise, |_| ()).unwrap();

            let mut fresh = wide[1..].iter().map(|x| both.project(x.clone()));
            let projected = Autoguidance {
                strong: SamplingDenoiser::new(&strong).within_states(0, &both),
                weak: SamplingDenoiser::new(&weak).within_states(16, &both),
                eta,
            };
            let noise = || fresh.next().unwrap();
            let start = both.project(wide[0].clone());
            let found =
                sampler::flow_map(&projected, &schedule, start, 4, gamma, noise, |_| ()).unwrap();
            // Four evaluations in f32, each multiplying the rounding errors of the previous one
            // by η.
            let tolerance = Tolerance::absolute(2e-3);
            (found.dense().into_data())
                .assert_approx_eq::<f32>(&expected.clone().into_data(), tolerance);
            let tokens: Vec<i64> = found.argmax().into_data().iter().collect();
            let largest: Vec<i64> = expected.argmax(2).into_data().iter().collect();
            assert_eq!(tokens, largest, "V = {vocab}, η = {eta}");
        }
    }
}

#[test]
fn the_first_of_two_networks_sees_the_noise_that_it_sees_alone_and_both_that_of_one_sequence() {
    let rng = || ChaCha8Rng::seed_from_u64(3);
    for vocab in [7, 37] {
        let (strong, weak) = (loud(vocab, 16, 1), loud(vocab, 8, 2));
        let rows = 20_000;
        let alone = Prior::new(strong.embed()).draw(1, rows, &mut rng());
        let noise = Prior::beside(strong.embed(), weak.embed()).draw(1, rows, &mut rng());
        let seen = noise.seen_beside(strong.embed(), weak.embed());
        let first = seen.clone().narrow(2, 0, 16).into_data();
        first.assert_eq(&alone.seen(strong.embed()).into_data(), true);
        // Covariances [E F]ᵀ[E F]. The standard error of entry (i, j) is at most √(2/n)
        // times the product of the norms of columns i and j. Five standard errors are exceeded by
        // chance once in 2e6, and by one of 300 entries once in 6,000.
        let embedding = strong.embed().beside(weak.embed()).embedding.val();
        let squares = embedding.clone().transpose().matmul(embedding);
        let seen: Tensor<Flex, 2> = seen.squeeze_dim(0);
        let found = seen.clone().transpose().matmul(seen) / rows as f64;
        let values =
            |x: Tensor<Flex, 2>| -> Vec<f64> { x.into_data().iter::<f64>().collect::<Vec<_>>() };
        let (squares, found) = (values(squares), values(found));
        for i in 0..24 {
            for j in 0..24 {
                let size = (squares[25 * i] * squares[25 * j]).sqrt();
                let error = (found[24 * i + j] - squares[24 * i + j]).abs();
                let bound = 5.0 * (2.0 / rows as f64).sqrt() * size;
                assert!(error < bound, "V = {vocab}, {i}, {j}: {error} of {size}");
            }
        }
    }
}

#[test]
fn what_is_dropped_depends_on_the_sample_the_seed_and_the_times_alone() {
    let model = loud(11, 16, 1);
    let state = drawn([4, LENGTH, 16], 4);
    let denoise = |state: State, seed, first, tau| {
        let weakness = DropoutGuidance {
            rate: 0.3,
            seed,
            purpose: 9,
            first,
        };
        let sampling = SamplingDenoiser::new(&model).weakened(weakness);
        sampling.denoise(state, tau, 1.0).dense()
    };
    let whole = denoise(state.clone(), 1, 6, 0.5);
    let part = denoise(state.clone().narrow(0, 2, 2), 1, 8, 0.5);
    // The same sums, in blocks of another size.
    let expected = whole.clone().narrow(0, 2, 2).into_data();
    part.into_data()
        .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    let change = |other: State| -> f32 { (whole.clone() - other).abs().max().into_scalar() };
    for other in [
        denoise(state.clone(), 2, 6, 0.5),
        denoise(state.clone(), 1, 7, 0.5),
        SamplingDenoiser::new(&model)
            .denoise(state.clone(), 0.5, 1.0)
            .dense(),
    ] {
        assert!(change(other) > 1e-3);
    }
    let nothing = DropoutGuidance {
        rate: 0.0,
        seed: 1,
        purpose: 9,
        first: 0,
    };
    let sampling = SamplingDenoiser::new(&model).weakened(nothing);
    let off = SamplingDenoiser::new(&model).denoise(state.clone(), 0.5, 1.0);
    let found = sampling.denoise(state, 0.5, 1.0).dense().into_data();
    found.assert_eq(&off.dense().into_data(), true);
}

#[test]
fn a_nucleus_keeps_the_likeliest_tokens_and_sums_to_one() {
    let probabilities = Tensor::from_floats(
        [[[0.1_f32, 0.5, 0.15, 0.25], [0.4, 0.3, 0.2, 0.1]]],
        &Default::default(),
    );
    let within = |nucleus| TokenDistribution::<Flex>::pinned(probabilities.clone()).within(nucleus);
    let expected = |rows: [[f32; 4]; 2]| {
        Tensor::<Flex, 3>::from_floats([rows], &Default::default()).into_data()
    };
    for (nucleus, rows) in [
        (0.0, [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]),
        (
            0.6,
            [
                [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0],
                [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0],
            ],
        ),
        (1.0, [[0.1, 0.5, 0.15, 0.25], [0.4, 0.3, 0.2, 0.1]]),
    ] {
        // A division in f32.
        (within(nucleus).dense().into_data())
            .assert_approx_eq::<f32>(&expected(rows), Tolerance::absolute(1e-6));
    }
}

#[test]
fn a_nucleus_is_the_same_whether_the_distribution_is_held_or_not() {
    let execution = flm_denoiser::Execution {
        head_numbers: 20,
        ..Default::default()
    };
    let model = loud(11, 16, 1);
    let few = model.clone().with_execution(execution);
    let state = drawn([4, LENGTH, 16], 4);
    let sample = |model: &Dit<Flex>| {
        let sampling = SamplingDenoiser::new(model).within_nucleus(0.7);
        let denoised = sampling.denoise(state.clone(), 0.5, 1.0);
        (sampling.mean(&denoised).into_data(), denoised.dense())
    };
    let ((mean, dense), (other, _)) = (sample(&model), sample(&few));
    // f32 sums of eleven products.
    mean.assert_approx_eq::<f32>(&other, Tolerance::absolute(1e-5));
    let kept = dense.clone().greater_elem(0.0).int().sum().into_scalar();
    assert!((20..20 * 11).contains(&kept), "{kept} tokens kept");
    let error: f32 = (dense.sum_dim(2) - 1.0).abs().max().into_scalar();
    assert!(error < 1e-6, "{error}");
}
