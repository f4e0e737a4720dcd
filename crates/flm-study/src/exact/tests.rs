//! Tests of exact models against an enumerated distribution of three cities.

use super::*;
use crate::Symbols;
use burn::module::Param;
use burn::tensor::Tensor;
use burn_flex::Flex as Host;
use flm_data::TextTokenizer;
use flm_denoiser::VocabEmbed;
use flm_eval::Grammar;
use flm_simplex::Denoiser;
use flm_simplex::Schedule;
use flm_simplex::distribution::DiscreteDistribution;
use flm_simplex::noise::gaussian;
use nalgebra::{DMatrix, DVector};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const CITIES: [[&str; 2]; 3] = [["new", "york"], ["san", "diego"], ["los", "angeles"]];
const PROBABILITIES: [f64; 3] = [0.25, 0.5, 0.25];

struct Cities {
    grammar: Grammar,
    tokenizer: TextTokenizer,
}

impl Cities {
    fn new() -> Self {
        let text = "start S\nS -> new york | san diego @2 | los angeles";
        let grammar = Grammar::parse(text).unwrap();
        let tokenizer = TextTokenizer::from_words(grammar.words()).unwrap();
        Self { grammar, tokenizer }
    }

    /// The cities as rows of three tokens.
    fn rows(&self) -> [Vec<usize>; 3] {
        let token = |word| self.tokenizer.token_id(word).unwrap() as usize;
        CITIES.map(|[one, other]| vec![token(one), token(other), self.tokenizer.eos_id() as usize])
    }

    fn with_exact<T>(&self, seen: Option<Vec<f64>>, ask: impl FnOnce(&ExactFlow<'_>) -> T) -> T {
        let rows = self.grammar.rows(3);
        let symbols = Symbols::new(&rows, &self.tokenizer).unwrap();
        let vocab = self.tokenizer.vocab_size();
        let schedule = Schedule::new(vocab).unwrap();
        ask(&ExactFlow {
            rows: &rows,
            symbols: &symbols,
            schedule: &schedule,
            vocab,
            seen,
        })
    }
}

/// Returns the share of samples that are a city.
fn valid(exact: &ExactFlow<'_>, mut sample: impl FnMut(&mut ChaCha8Rng) -> Vec<usize>) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let word = |word| exact.rows.symbol(word).unwrap();
    let cities = CITIES.map(|[one, other]| vec![word(one), word(other), exact.rows.end()]);
    let found = (0..2_000).filter(|_| cities.contains(&sample(&mut rng)));
    found.count() as f64 / 2_000.0
}

#[test]
fn masked_diffusion_errs_as_the_factorization_does() {
    Cities::new().with_exact(None, |exact| {
        let rows = exact.rows;
        let unknown = rows.known(&[None; 3]);
        let any = rows.given(&unknown).unwrap();
        for steps in [1, 4, 64] {
            let found = valid(exact, |rng| masked::sample(rows, &any, steps, rng));
            // Both words are drawn in the same step with probability 1/steps. They then agree with
            // probability 1/16 + 1/4 + 1/16.
            let expected = 1.0 - 0.625 / steps as f64;
            // Hoeffding: a larger deviation has probability 2·exp(−2·2000·0.06²) < 2e-6.
            assert!((found - expected).abs() < 0.06, "{steps} steps: {found}");
        }
    });
}

#[test]
fn uniform_state_diffusion_is_the_chain_run_back() {
    let cities = Cities::new();
    cities.with_exact(None, |exact| {
        let vocab = exact.vocab;
        let uniform = ExactUniform::of(exact);
        let (alpha, earlier) = (0.4, 0.7);
        // The probability of a transition from token `from` to `to`.
        let moves = |kept: f64, from: usize, to: usize| {
            (1.0 - kept) / vocab as f64 + if from == to { kept } else { 0.0 }
        };
        // The second word is from another city, and the last token is outside the distribution.
        let rows = cities.rows();
        let noise = (0..vocab).find(|&token| exact.symbols.symbol(token as u32).is_none());
        let seen = [rows[0][0], rows[1][1], noise.unwrap()];
        let tokens = seen.map(|token| token as u32);
        let probabilities = uniform.probabilities(&tokens, alpha);
        for place in 0..3 {
            let back = |to: usize| -> f64 {
                let ways = rows.iter().zip(PROBABILITIES).map(|(row, p)| {
                    let all: f64 = (0..3).map(|i| moves(alpha, row[i], seen[i])).product();
                    let here = moves(alpha, row[place], seen[place]);
                    let there =
                        moves(earlier, row[place], to) * moves(alpha / earlier, to, seen[place]);
                    p * all / here * there
                });
                ways.sum()
            };
            let sum: f64 = (0..vocab).map(back).sum();
            let probability = |token: usize| {
                let symbol = exact.symbols.symbol(token as u32);
                symbol.map_or(0.0, |symbol| {
                    probabilities[place * exact.rows.symbols() + symbol]
                })
            };
            let own = probability(seen[place]);
            let posterior = flm_discrete::duo::PosteriorWeights::new(alpha, earlier, vocab, own);
            for to in 0..vocab {
                let stays = if to == seen[place] {
                    posterior.stay
                } else {
                    0.0
                };
                let found =
                    stays + posterior.drawn * probability(to) + posterior.uniform / vocab as f64;
                assert!(
                    (found - back(to) / sum).abs() < 1e-12,
                    "to {to}: {found} for {}",
                    back(to) / sum
                );
            }
        }
        // In one step both words are drawn independently, and agree with probability 3/8. In 64
        // steps both rarely change in the same step.
        let [few, many] = [1, 64].map(|steps| valid(exact, |rng| uniform.sample(steps, rng)));
        // Hoeffding: a larger deviation from 3/8 has probability 2·exp(−2·2000·0.06²) < 2e-6.
        assert!(
            (few - 0.375).abs() < 0.06 && many > 0.95,
            "{few} and {many}"
        );
    });
}

#[test]
fn bounds_of_who_knows_the_distribution_are_the_distribution() {
    let cities = Cities::new();
    cities.with_exact(None, |exact| {
        let (uniform, v) = (ExactUniform::of(exact), exact.vocab);
        // The midpoints of 50 intervals of time.
        let times = (0..50).map(|part| (f64::from(part) + 0.5) / 50.0);
        for (row, probability) in cities.rows().into_iter().zip(PROBABILITIES) {
            let tokens: Vec<u32> = row.iter().map(|&token| token as u32).collect();
            let symbols = exact.symbols.of(&tokens).unwrap();
            let masked = |t: f64| -> f64 {
                let all = (0..8).map(|number: usize| {
                    let is_masked = [0, 1, 2].map(|place| number >> place & 1 == 1);
                    let probabilities =
                        is_masked.map(|is_masked| if is_masked { t } else { 1.0 - t });
                    let rate = masked::rate_of(exact.rows, &symbols, &is_masked, t);
                    probabilities.iter().product::<f64>() * rate
                });
                all.sum()
            };
            let replaced = |t: f64| -> f64 {
                let alpha = flm_discrete::LogLinear::default().alpha(t);
                let all = (0..v.pow(3)).map(|number| {
                    let noisy = [number % v, number / v % v, number / v / v];
                    let probabilities = [0, 1, 2].map(|place| {
                        let kept = if noisy[place] == row[place] {
                            alpha
                        } else {
                            0.0
                        };
                        kept + (1.0 - alpha) / v as f64
                    });
                    let noisy = noisy.map(|token| token as u32);
                    probabilities.iter().product::<f64>() * uniform.rate_of(&tokens, &noisy, t)
                });
                all.sum()
            };
            let rates: [&dyn Fn(f64) -> f64; 2] = [&masked, &replaced];
            for (kind, rate) in rates.into_iter().enumerate() {
                let mean = times.clone().map(rate).sum::<f64>() / 50.0;
                // Sum over three positions. The midpoint rule is off by up to 4e-4, and the omitted
                // prior term at t = 1 is 1e-5.
                let off = 3.0 * mean + f64::ln(probability);
                assert!(off.abs() < 1e-3, "kind {kind}: {off}");
            }
        }
    });
}

#[test]
fn the_exact_denoiser_is_the_one_of_the_enumerated_distribution() {
    let cities = Cities::new();
    let vocab = cities.tokenizer.vocab_size();
    let distribution =
        DiscreteDistribution::new(vocab, cities.rows().to_vec(), &PROBABILITIES).unwrap();
    cities.with_exact(None, |exact| {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for t in [0.0, 0.3, 0.8, 0.99] {
            let state =
                gaussian::<Host, _, 3>(distribution.state_shape(1), &mut rng, &Default::default());
            let found = exact.denoise(state.clone(), exact.schedule.tau_of_t(t), 0.0);
            let found: Tensor<Host, 3> = exact.mean(&found);
            let error: f32 = (found - distribution.delta(state, t, t))
                .abs()
                .max()
                .into_scalar();
            // The error of inverting the schedule, and of probabilities in single precision.
            assert!(error < 1e-4, "t = {t}: {error}");
        }
        // One evaluation determines the city.
        assert_eq!(valid(exact, |rng| exact.sample::<Host, _>(2, rng)), 1.0);
    });
}

#[test]
fn through_an_embedding_it_is_the_posterior_of_what_is_left() {
    let cities = Cities::new();
    let (vocab, width, t) = (cities.tokenizer.vocab_size(), 4, 0.4);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let embedding = gaussian::<Host, _, 2>([vocab, width], &mut rng, &Default::default());
    let state = gaussian::<Host, _, 3>([1, 3, vocab], &mut rng, &Default::default());
    let host = |x: Tensor<Host, 2>| {
        let [rows, columns] = x.dims();
        DMatrix::from_row_iterator(rows, columns, x.into_data().iter::<f64>())
    };
    let (e, x) = (
        host(embedding.clone()),
        host(state.clone().reshape([3, vocab])),
    );
    // From the density of xE: N(t·E_v, (1−t)²·EᵀE) at each position.
    let precision = (e.transpose() * &e).try_inverse().unwrap() / ((1.0 - t) * (1.0 - t));
    let log_density = |place: usize, token: usize| {
        let off: DVector<f64> =
            ((x.row(place) - DMatrix::identity(vocab, vocab).row(token) * t) * &e).transpose();
        -0.5 * (off.transpose() * &precision * &off)[(0, 0)]
    };
    let logs: Vec<f64> = (cities.rows().iter().zip(PROBABILITIES))
        .map(|(row, p)| p.ln() + (0..3).map(|i| log_density(i, row[i])).sum::<f64>())
        .collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - largest).exp()).sum();
    let embed = VocabEmbed {
        embedding: Param::from_tensor(embedding),
    };
    cities.with_exact(embed.projection(), |exact| {
        let found = exact.denoise(state, exact.schedule.tau_of_t(t), 0.0);
        for ([first, _], log) in CITIES.iter().zip(logs) {
            let expected = (log - largest).exp() / sum;
            let found = found[exact.rows.symbol(first).unwrap()];
            // Inverting the schedule is accurate to 1e-8, and the embedding is in single precision.
            assert!(
                (found - expected).abs() < 1e-5,
                "{first}: {found} for {expected}"
            );
            assert!(expected > 1e-3, "{first} is decided: {expected}");
        }
    });
}
