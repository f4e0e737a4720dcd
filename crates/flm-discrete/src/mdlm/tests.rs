//! Tests against a distribution with a known denoiser.

use super::*;
use crate::tests::toy::{Kind, LENGTH, Toy, VOCAB, shares};
use crate::{Bound, TokenSampling};
use burn::backend::Autodiff;
use burn_flex::Flex;
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

fn sampled(toy: &Toy, rows: usize, steps: usize, cached: bool, seed: u64) -> crate::Sampled {
    let start = Tokens::filled(VOCAB, [rows, LENGTH]);
    sample(
        toy,
        start,
        TokenSampling::new(steps),
        cached,
        &mut rngs(rows, seed),
    )
    .unwrap()
}

#[test]
fn tokens_are_mask_token_as_often_as_the_level_says() {
    let tokens = Tokens::filled(1, [3, 4_000]);
    let levels: Vec<Level> = [0.2, 0.5, 0.9]
        .map(|t| LogLinear::default().level(t))
        .into();
    let noisy = masked(&tokens, &levels, VOCAB, &mut rng(1));
    for (row, level) in levels.iter().enumerate() {
        let left = noisy.row(row).iter().filter(|&&id| id == 1).count() as f64;
        let mask_token = noisy.row(row).iter().filter(|&&id| id == 3).count() as f64;
        assert_eq!(left + mask_token, 4_000.0);
        // Five standard deviations.
        let deviation = (4_000.0 * level.alpha * (1.0 - level.alpha)).sqrt();
        assert!((left - 4_000.0 * level.alpha).abs() < 5.0 * deviation);
    }
}

#[test]
fn with_the_true_denoiser_the_bound_is_the_entropy_and_with_another_more() {
    let toy = Toy::new(Kind::Masked);
    let tokens = toy.thousand();
    let estimate = |boldness| {
        let toy = Toy {
            boldness,
            ..toy.clone()
        };
        Bound::of(&nats(&toy, &tokens, 16, &mut rng(2)), LENGTH)
    };
    let (truth, other) = (estimate(1.0), estimate(0.01));
    // The probability of a text does not depend on the order of its tokens, so the bound is tight.
    // The standard error includes the spread of texts, although the texts occur in their
    // exact shares.
    let exact = toy.entropy() / LENGTH as f64;
    assert!(
        (truth.nats - exact).abs() < 5.0 * truth.error,
        "{truth:?}, {exact}"
    );
    assert!(truth.error < 0.02);
    assert!(other.nats > exact + 5.0 * other.error, "{other:?}, {exact}");
}

#[test]
fn losses_are_nothing_where_a_token_is_there_and_their_mean_is_the_bounds() {
    let (toy, mut rng) = (Toy::new(Kind::Masked), rng(3));
    let tokens = Tokens::new(vec![0, 1, 1, 2], LENGTH);
    let noisy = Tokens::new(vec![0, 3, 3, 3], LENGTH);
    let levels = [0.3, 0.8].map(|t| LogLinear::default().level(t));
    let device = Default::default();
    let prediction = toy.predict(noisy.tensor(&device), &levels, &mut Dropout::off());
    let log_probs = prediction.log_probs(tokens.tensor(&device)).into_data();
    let log_probs: Vec<f32> = log_probs.to_vec().unwrap();
    let dense = prediction.dense_logits().into_data();
    let prediction = Prediction::<Autodiff<Flex>>::pinned(Tensor::from_data(dense, &device));
    let losses = losses_of(&prediction, &tokens, &noisy, &levels, VOCAB);
    let found: Vec<f32> = losses.per_token.into_data().to_vec().unwrap();
    let mean: f32 = losses.mean.inner().into_scalar();
    assert_eq!(found[0], 0.0);
    for (at, (found, log_prob)) in found.iter().zip(log_probs).enumerate().skip(1) {
        let expected = -f64::from(log_prob) * levels[at / 2].rate();
        assert!((f64::from(*found) - expected).abs() < 1e-5);
    }
    assert!((mean - found.iter().sum::<f32>() / 4.0).abs() < 1e-6);
    assert_eq!(
        (losses.diagnostics[1].sum, losses.diagnostics[1].count),
        (3.0, 4.0)
    );
    // Without masked tokens the loss is 0.
    let losses = losses_of(&prediction, &tokens, &tokens, &levels, VOCAB);
    let mean: f32 = losses.mean.inner().into_scalar();
    assert_eq!(mean, 0.0);
    let times = MdlmObjective::default().times(8, &mut rng);
    assert_eq!(times.len(), 8);
}

#[test]
fn many_steps_sample_the_distribution_and_one_step_its_marginals() {
    let toy = Toy::new(Kind::Masked);
    let rows = 4_000;
    let alone = |position: usize, token: i32| -> f64 {
        let with = toy.texts.iter().filter(|(text, _)| text[position] == token);
        with.map(|(_, p)| p).sum()
    };
    for (steps, joint) in [(256, true), (1, false)] {
        for (text, share) in shares(&sampled(&toy, rows, steps, true, 4).tokens) {
            let expected = if joint {
                toy.probability(&text)
            } else {
                alone(0, text[0]) * alone(1, text[1])
            };
            // Two tokens are filled in the same step of 256 with probability 1/256. Add five
            // standard deviations.
            let bound = 1.0 / 256.0 + 5.0 * (0.25 / rows as f64).sqrt();
            assert!(
                (share - expected).abs() < bound,
                "{text:?}: {share}, {expected}"
            );
        }
    }
}

#[test]
fn an_evaluation_is_saved_where_nothing_changes_and_the_samples_are_the_same() {
    let toy = Toy::new(Kind::Masked);
    let (cached, plain) = (
        sampled(&toy, 50, 64, true, 5),
        sampled(&toy, 50, 64, false, 5),
    );
    assert_eq!(cached.tokens, plain.tokens);
    assert_eq!(plain.evaluations, 50 * 64);
    // A text does not depend on its batch.
    let fewer = sampled(&toy, 20, 64, true, 5);
    assert_eq!(fewer.tokens.ids(), &cached.tokens.ids()[..20 * LENGTH]);
    // A text has two tokens, so it takes at most two evaluations.
    assert!((50..=100).contains(&cached.evaluations));
}

#[test]
fn known_tokens_stay() {
    let toy = Toy::new(Kind::Masked);
    let start = Tokens::new([1, 3].repeat(100), LENGTH);
    let found = sample(&toy, start, TokenSampling::new(4), true, &mut rngs(100, 6)).unwrap();
    // After a 1 the second token is always 2.
    assert!((0..100).all(|row| found.tokens.row(row) == [1, 2]));
}

#[test]
fn impossible_settings_are_named() {
    let toy = Toy::new(Kind::Masked);
    let message = |sampling: TokenSampling| {
        let start = Tokens::filled(VOCAB, [1, LENGTH]);
        (sample(&toy, start, sampling, true, &mut rngs(1, 1)).unwrap_err()).to_string()
    };
    assert_eq!(
        message(TokenSampling::new(0)),
        "a sampler needs at least 1 step, found 0"
    );
    let cold = TokenSampling {
        temperature: 0.0,
        ..TokenSampling::new(1)
    };
    assert_eq!(
        message(cold),
        "a temperature must be positive and finite, found 0"
    );
    let narrow = TokenSampling {
        nucleus: 2.0,
        ..TokenSampling::new(1)
    };
    assert_eq!(
        message(narrow),
        "a nucleus must lie between 0 and 1, found 2"
    );
}
