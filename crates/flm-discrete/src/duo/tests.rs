//! Tests against a distribution with a known denoiser.

use super::curriculum::{Gamma, Noise, Transform};
use super::*;
use crate::tests::toy::{Kind, LENGTH, Toy, VOCAB, shares};
use crate::{Bound, TokenSampling};
use burn_flex::Flex;
use flm_denoiser::{DitConfig, Family};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// One generator per text.
fn rngs(count: usize, seed: u64) -> Vec<ChaCha8Rng> {
    let one = |row| flm_simplex::stream::generator(seed, 0, row as u64, 0);
    (0..count).map(one).collect()
}

#[test]
fn posteriors_are_those_of_bayes() {
    let toy = Toy::new(Kind::Uniform);
    let v = VOCAB as f64;
    for (alpha, earlier) in [(0.1, 0.4), (0.5, 0.55), (0.3, 1.0)] {
        for p in [[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]] {
            for (z, probability) in p.into_iter().enumerate() {
                let found = PosteriorWeights::new(alpha, earlier, VOCAB, probability);
                let sum = found.stay + found.drawn + found.uniform;
                assert!((sum - 1.0).abs() < 1e-12 && found.stay >= 0.0 && found.uniform >= 0.0);
                // With the prior p of x: p(s | z) = Σ_x p(x)·kernel(x→s)·kernel(s→z) / Σ_x
                // p(x)·kernel(x→z).
                let kernel =
                    |from: usize, to: usize, alpha| toy.kernel(from as i32, to as i32, alpha);
                let mean = |f: &dyn Fn(usize) -> f64| (0..VOCAB).map(|x| p[x] * f(x)).sum::<f64>();
                let all = mean(&|x| kernel(x, z, alpha));
                for (s, probability) in p.into_iter().enumerate() {
                    let own = if s == z { found.stay } else { 0.0 };
                    let found = own + found.drawn * probability + found.uniform / v;
                    let expected =
                        mean(&|x| kernel(x, s, earlier) * kernel(s, z, alpha / earlier)) / all;
                    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn with_the_true_denoiser_the_bound_is_above_the_entropy_and_near_and_with_another_more() {
    let toy = Toy::new(Kind::Uniform);
    let tokens = toy.thousand();
    let estimate = |boldness| {
        let toy = Toy {
            boldness,
            ..toy.clone()
        };
        Bound::of(&nats(&toy, &tokens, 32, &mut rng(2)), LENGTH)
    };
    let (truth, other) = (estimate(1.0), estimate(0.01));
    let exact = toy.entropy() / LENGTH as f64;
    // With infinitely many steps no two tokens change at once, so the bound is tight for the
    // true denoiser.
    assert!(
        (truth.nats - exact).abs() < 5.0 * truth.error,
        "{truth:?}, {exact}"
    );
    assert!(truth.error < 0.03);
    assert!(other.nats > exact + 5.0 * other.error, "{other:?}, {exact}");
}

#[test]
fn many_steps_sample_the_distribution_and_one_step_its_marginals() {
    let toy = Toy::new(Kind::Uniform);
    let rows = 4_000;
    let found = |steps, tail| {
        let start = prior(VOCAB, LENGTH, &mut rngs(rows, 3));
        let sampling = TokenSampling::new(steps);
        let found = sample(&toy, start, None, sampling, tail, &mut rngs(rows, 4)).unwrap();
        assert_eq!(found.evaluations, (steps * rows) as u64);
        shares(&found.tokens)
    };
    let alone = |position: usize, token: i32| -> f64 {
        let with = toy.texts.iter().filter(|(text, _)| text[position] == token);
        with.map(|(_, p)| p).sum()
    };
    for (steps, joint) in [(128, true), (1, false)] {
        for (text, share) in found(steps, Tail::Ancestral) {
            let expected = if joint {
                toy.probability(&text)
            } else {
                alone(0, text[0]) * alone(1, text[1])
            };
            // The error of steps of 1/128, plus five standard deviations.
            let bound = 2.0 / 128.0 + 5.0 * (0.25 / rows as f64).sqrt();
            assert!(
                (share - expected).abs() < bound,
                "{steps} {text:?}: {share}, {expected}"
            );
        }
    }
    // The likeliest first token is 0, the likeliest second token 1.
    let greedy = found(1, Tail::Greedy);
    assert!(greedy.contains(&([0, 1], 1.0)), "{greedy:?}");
}

#[test]
fn what_is_known_stays() {
    let toy = Toy::new(Kind::Uniform);
    let mut start = prior(VOCAB, LENGTH, &mut rngs(100, 5));
    let known: Vec<bool> = (0..200_usize).map(|at| at.is_multiple_of(2)).collect();
    for at in (0..200).step_by(2) {
        start.ids_mut()[at] = 1;
    }
    let sampling = TokenSampling::new(64);
    let found = sample(
        &toy,
        start,
        Some(&known),
        sampling,
        Tail::Greedy,
        &mut rngs(100, 6),
    )
    .unwrap();
    assert!((0..100).all(|row| found.tokens.row(row)[0] == 1));
}

#[test]
fn the_prior_has_nothing_to_say_of_noise_and_everything_of_data() {
    assert!(prior_nats(0.0, 7).abs() < 1e-12);
    assert!((prior_nats(1.0, 7) - 7.0_f64.ln()).abs() < 1e-12);
    // (V − 1)·α²/2 to leading order.
    assert!((prior_nats(1e-3, 61) - 60.0 * 1e-6 / 2.0).abs() < 2e-6);
}

#[test]
fn gaussian_noise_decodes_as_often_as_the_transform_says() {
    let mut rng = rng(7);
    for vocab in [2, 3, 50] {
        let transform = Transform::new(vocab);
        for g in [-3.0, -1.0, 1.0] {
            let draws = 20_000;
            let mut counts = vec![0_u32; vocab];
            for _ in 0..draws {
                counts[Noise::draw(1, vocab, &mut rng).decoded(1, g) as usize] += 1;
            }
            let alpha = transform.alpha(g);
            for (token, count) in counts.into_iter().enumerate() {
                let same = if token == 1 { alpha } else { 0.0 };
                let p = same + (1.0 - alpha) / vocab as f64;
                // Five standard deviations plus one, for 165 counts: false positive rate 1e-4.
                let bound = 5.0 * (f64::from(draws) * p * (1.0 - p)).sqrt() + 1.0;
                assert!(
                    (f64::from(count) - f64::from(draws) * p).abs() < bound,
                    "{vocab} {g} {token}"
                );
            }
        }
    }
}

#[test]
fn levels_of_the_transform_have_its_slope_and_range() {
    let transform = Transform::new(2);
    // For two tokens P = Φ(r/√2), with r = e^(−g/2): α = erf(r/2), and dα/dg = −r·e^(−r²/4)/(2·√π).
    let gamma = Gamma {
        first: -2.0,
        last: 2.0,
    };
    for t in [0.1, 0.5, 0.9] {
        let level = transform.level(gamma, t);
        let r = (-gamma.at(t) / 2.0).exp();
        let slope = -r * (-r * r / 4.0).exp() / (2.0 * std::f64::consts::PI.sqrt()) * 4.0;
        assert!((level.slope - slope).abs() < 1e-6 * slope.abs());
    }
    let covering = Transform::new(300).covering();
    let transform = Transform::new(300);
    assert!((transform.alpha(covering.first) - 0.999).abs() < 1e-6);
    assert!((transform.alpha(covering.last) - 0.05).abs() < 1e-6);
}

#[test]
fn softened_noise_is_its_argmax_when_it_is_cold_and_dense_softmax_otherwise() {
    let model = DitConfig::new(40, 5, 8, 1, 2)
        .with_family(Family::Duo)
        .init::<Flex>(&mut rng(8), &Default::default())
        .unwrap();
    let tokens = Tokens::new((0..20).collect(), 5);
    let times = [0.0, 0.3, 0.6, 1.0];
    let state = |temperature| {
        let curriculum = Curriculum::new(40, Gamma::CURRICULUM, temperature, 10);
        assert!(curriculum.lasts(9) && !curriculum.lasts(10));
        let (noisy, spread) = curriculum.soften(&tokens, &times, &mut rng(9));
        for (entries, id) in spread.iter().zip(noisy.ids()) {
            let sum: f64 = entries.iter().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-12 && entries[0].0 == *id);
            let mut ids: Vec<i32> = entries.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), entries.len());
        }
        (curriculum::mixed(&model, &spread, [4, 5]), noisy, spread)
    };
    // The temperature is so low that two entries share weight only if they agree in ten digits.
    let (cold, noisy, _) = state(1e-10);
    let plain = model.read(noisy.tensor(&Default::default()));
    let change: f32 = (cold - plain).abs().max().into_scalar();
    assert!(change < 1e-6, "{change}");
    // The temperature is so high that all tokens count, and the weighted sum equals the
    // dense product.
    let (warm, _, spread) = state(1.0);
    assert!(spread.iter().all(|entries| entries.len() == 40));
    let embedding: Vec<f32> = model.embed().embedding.val().into_data().to_vec().unwrap();
    let warm: Vec<f32> = warm.into_data().to_vec().unwrap();
    for (found, entries) in warm.chunks_exact(8).zip(&spread) {
        for (j, found) in found.iter().enumerate() {
            let term =
                |(id, weight): &(i32, f64)| f64::from(embedding[*id as usize * 8 + j]) * weight;
            let expected: f64 = entries.iter().map(term).sum();
            assert!((f64::from(*found) - expected).abs() < 1e-5);
        }
    }
}
