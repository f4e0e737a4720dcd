//! Tests on a small network with random parameters.

use super::*;
use crate::{SamplingError, TokenSampling};
use burn::backend::Autodiff;
use burn_flex::Flex;
use flm_denoiser::Family;
use rand_chacha::ChaCha8Rng;

const VOCAB: usize = 3;
const LENGTH: usize = 3;

/// One generator per text.
fn rngs(count: usize, seed: u64) -> Vec<ChaCha8Rng> {
    let one = |row| flm_simplex::stream::generator(seed, 0, row as u64, 0);
    (0..count).map(one).collect()
}

fn loud<B: Backend>(family: Family) -> Dit<B> {
    crate::tests::toy::loud([VOCAB, LENGTH], family, 7)
}

/// All possible texts.
fn every() -> Tokens {
    let texts = (0..27).flat_map(|text| [text / 9, text / 3 % 3, text % 3]);
    Tokens::new(texts.collect(), LENGTH)
}

#[test]
fn the_probabilities_of_all_texts_sum_to_one() {
    let nats = nats(&loud::<Flex>(Family::Autoregressive), &every());
    let sum: f64 = nats.iter().map(|nats| (-nats).exp()).sum();
    // 81 logarithms in f32.
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

#[test]
fn texts_are_written_as_often_as_they_are_likely() {
    let model = loud::<Flex>(Family::Autoregressive);
    let rows = 10_000;
    let found = sample(
        &model,
        None,
        LENGTH,
        TokenSampling::new(1),
        Decoding::Cached,
        &mut rngs(rows, 1),
    )
    .unwrap();
    assert_eq!(found.evaluations, 30_000);
    let (texts, nats) = (every(), nats(&model, &every()));
    for (text, nats) in nats.into_iter().enumerate() {
        let is = |row: &usize| found.tokens.row(*row) == texts.row(text);
        let (count, p) = ((0..rows).filter(is).count() as f64, (-nats).exp());
        // Five standard deviations plus one, 27 times: false positive rate below 1e-4.
        let bound = 5.0 * (rows as f64 * p * (1.0 - p)).sqrt() + 1.0;
        assert!((count - rows as f64 * p).abs() < bound, "{count} at {p}");
    }
}

#[test]
fn with_what_is_kept_the_same_texts_are_written_as_without() {
    let model = loud::<Flex>(Family::Autoregressive);
    let tokens = Tokens::filled(1, [40, LENGTH]);
    let known = [true, false, false].repeat(40);
    let given = KnownTokens {
        tokens: &tokens,
        known: &known,
    };
    let write = |decoding| {
        let sampling = TokenSampling::new(1);
        sample(
            &model,
            Some(given),
            LENGTH,
            sampling,
            decoding,
            &mut rngs(40, 2),
        )
        .unwrap()
    };
    let cached = write(Decoding::Cached);
    assert_eq!(cached, write(Decoding::Whole));
    assert!((0..40).all(|row| cached.tokens.row(row)[0] == 1));
}

#[test]
fn what_comes_after_a_known_beginning_is_as_likely_as_teacher_forcing_says() {
    let model = loud::<Flex>(Family::Autoregressive);
    let rows = 5_000;
    let (tokens, known) = (Tokens::filled(2, [rows, LENGTH]), [true, true, false]);
    let known = known.repeat(rows);
    let given = KnownTokens {
        tokens: &tokens,
        known: &known,
    };
    let (sampling, rngs) = (TokenSampling::new(1), &mut rngs(rows, 3));
    let found = sample(
        &model,
        Some(given),
        LENGTH,
        sampling,
        Decoding::Cached,
        rngs,
    )
    .unwrap();
    // Two tokens are known, one is sampled.
    assert_eq!(found.evaluations, rows as u64);
    let texts = Tokens::new(vec![2, 2, 0, 2, 2, 1, 2, 2, 2], LENGTH);
    let nats = nats_per_token(&model, texts.tensor(&Default::default())).into_data();
    let nats: Vec<f64> = nats.iter::<f64>().collect();
    for last in 0..VOCAB {
        let is = |row: &usize| found.tokens.row(*row) == [2, 2, last as i32];
        let count = (0..rows).filter(is).count() as f64;
        let mean = rows as f64 * (-nats[last * LENGTH + 2]).exp();
        // Five standard deviations, three times: false positive rate below 1e-5.
        let bound = 5.0 * (mean * (1.0 - mean / rows as f64)).sqrt();
        assert!((count - mean).abs() < bound, "{last}: {count} of {mean}");
    }
}

#[test]
fn a_known_token_is_kept_and_what_is_known_of_others_does_not_matter() {
    let model = loud::<Flex>(Family::Autoregressive);
    // Every text has a different pattern of known tokens.
    let rows = 8;
    let known: Vec<bool> = (0..rows)
        .flat_map(|row| [row & 1 > 0, row & 2 > 0, row & 4 > 0])
        .collect();
    let ids = (0..rows * LENGTH).map(|at| (at % VOCAB) as i32).collect();
    let tokens = Tokens::new(ids, LENGTH);
    let write = |rows: std::ops::Range<usize>, decoding| {
        let of: Vec<usize> = rows.clone().collect();
        let (tokens, known) = (tokens.select(&of), &known[rows.start * LENGTH..]);
        let given = KnownTokens {
            tokens: &tokens,
            known: &known[..rows.len() * LENGTH],
        };
        let mut rngs: Vec<ChaCha8Rng> = rngs(8, 4).drain(rows).collect();
        let sampling = TokenSampling::new(1);
        let found = sample(&model, Some(given), LENGTH, sampling, decoding, &mut rngs);
        found.unwrap().tokens
    };
    let together = write(0..rows, Decoding::Cached);
    assert_eq!(together, write(0..rows, Decoding::Whole));
    for (at, known) in known.iter().enumerate() {
        assert!(!known || together.ids()[at] == tokens.ids()[at], "{at}");
    }
    for row in 0..rows {
        assert_eq!(
            write(row..row + 1, Decoding::Cached).row(0),
            together.row(row)
        );
    }
}

#[test]
fn the_loss_is_the_likelihood_that_is_measured() {
    let model = loud::<Autodiff<Flex>>(Family::Autoregressive);
    let (tokens, device) = (every(), Default::default());
    let losses = AutoregressiveObjective.score(&model, tokens.tensor(&device), &mut Dropout::off());
    let mean: f32 = losses.mean.clone().inner().into_scalar();
    let measured = nats(&loud::<Flex>(Family::Autoregressive), &tokens);
    let expected = measured.iter().sum::<f64>() / 81.0;
    assert!((f64::from(mean) - expected).abs() < 1e-5);
    let grads = losses.mean.backward();
    let embedding = model.embed().embedding.val().grad(&grads).unwrap();
    let size: f32 = embedding.abs().max().into_scalar();
    assert!(size > 0.0);
}

#[test]
fn what_does_not_fit_is_named() {
    let (model, other) = (
        loud::<Flex>(Family::Autoregressive),
        loud::<Flex>(Family::Mdlm),
    );
    let write = |model: &Dit<Flex>, tokens: &Tokens| -> Result<_, SamplingError> {
        let sampling = TokenSampling::new(1);
        let known = vec![true; tokens.ids().len()];
        let given = KnownTokens {
            tokens,
            known: &known,
        };
        sample(
            model,
            Some(given),
            LENGTH,
            sampling,
            Decoding::Cached,
            &mut rngs(1, 2),
        )
    };
    let long = Tokens::new(vec![0; 4], 4);
    assert_eq!(
        write(&model, &long).unwrap_err().to_string(),
        "known tokens must be 1 texts of 3 tokens, found 1 of 4"
    );
    let fits = Tokens::new(vec![0; 3], 3);
    assert_eq!(
        write(&other, &fits).unwrap_err().to_string(),
        "the sampler autoregressive needs a network of family autoregressive"
    );
}
