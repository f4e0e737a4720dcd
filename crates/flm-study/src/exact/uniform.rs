//! Uniform-state diffusion by exact marginals.

use super::ExactFlow;
use crate::Symbols;
use flm_discrete::duo::{self, PosteriorWeights};
use flm_discrete::{LogLinear, Tokens};
use flm_eval::GrammarRows;
use rand::distr::{Distribution, weighted::WeightedIndex};
use rand::{Rng, RngExt};

/// What a perfect denoiser of tokens answers, of which some were replaced by any of the vocabulary.
///
/// A chain is run back exactly, step by infinitely small step, by the probabilities of a token given all *others*: what stands there itself is weighed by the
/// posterior that they are put into ([`PosteriorWeights`]). They are the optimum of the bound, which is then −log p of a row, but for what is left of it at the
/// end of time.
pub struct ExactUniform<'a> {
    rows: &'a GrammarRows<'a>,
    symbols: &'a Symbols,
    /// Tokens in the vocabulary: what replaces one is any of them.
    vocab: usize,
}

impl<'a> ExactUniform<'a> {
    /// The exact denoiser of the same tokens.
    pub fn of(flow: &ExactFlow<'a>) -> Self {
        Self {
            rows: flow.rows,
            symbols: flow.symbols,
            vocab: flow.vocab,
        }
    }

    /// Probabilities of symbols, `[length, symbols]`, each place's given the tokens at all others, of which each is clean with probability `alpha`, below 1.
    pub fn probabilities(&self, tokens: &[u32], alpha: f64) -> Vec<f64> {
        let symbols = self.rows.symbols();
        // How much likelier a token is where it stands than where another does.
        let own = 1.0 + self.vocab as f64 * alpha / (1.0 - alpha);
        let mut weights = vec![0.0; tokens.len() * symbols];
        let seen = |place: usize| Some(place * symbols + self.symbols.symbol(tokens[place])?);
        let seen: Vec<usize> = (0..tokens.len()).filter_map(seen).collect();
        for &at in &seen {
            weights[at] = own.ln();
        }
        let distribution = self.rows.given(&weights).expect("some sentence fits");
        let mut probabilities = distribution.marginals();
        for &at in &seen {
            probabilities[at] /= own;
        }
        for place in probabilities.chunks_mut(symbols) {
            let sum: f64 = place.iter().sum();
            place.iter_mut().for_each(|probability| *probability /= sum);
        }
        probabilities
    }

    /// The rate of the bound at time `t` of a row of tokens, of which some are replaced here.
    pub fn rate<R: Rng + ?Sized>(&self, row: &[u32], t: f64, rng: &mut R) -> f64 {
        let ids = row.iter().map(|&token| token as i32).collect();
        let (tokens, level) = (Tokens::new(ids, row.len()), LogLinear::default().level(t));
        let noisy = duo::replaced(&tokens, &[level], self.vocab, rng);
        let noisy: Vec<u32> = noisy.ids().iter().map(|&id| id as u32).collect();
        self.rate_of(row, &noisy, t)
    }

    /// The rate of the bound at time `t`, above 0, of a row of tokens that became the `noisy` ones, in nats a place ([`UniformNoise`](flm_denoiser::UniformNoise)).
    pub fn rate_of(&self, row: &[u32], noisy: &[u32], t: f64) -> f64 {
        let (v, level) = (self.vocab as f64, LogLinear::default().level(t));
        let alpha = level.alpha;
        let probabilities = self.probabilities(noisy, alpha);
        let spread = |probability: f64| v * alpha * probability + 1.0 - alpha;
        let places = (row.iter().zip(noisy)).zip(probabilities.chunks(self.rows.symbols()));
        let rates = places.map(|((&clean, &noisy), probabilities)| {
            let believed = |token| {
                self.symbols
                    .symbol(token)
                    .map_or(0.0, |own| probabilities[own])
            };
            let true_of = |token| spread(if token == clean { 1.0 } else { 0.0 });
            let own = spread(believed(noisy));
            let gap = v / own - v / true_of(noisy);
            let others = (0..self.vocab as u32).map(|token| {
                let r = true_of(token) / true_of(noisy);
                r * (r * own / spread(believed(token))).ln()
            });
            -level.slope / (v * alpha) * (gap + others.sum::<f64>())
        });
        rates.sum::<f64>() / row.len() as f64
    }

    /// A row of symbols, drawn as `flm_discrete::duo` draws, without the greedy tail.
    pub fn sample<R: Rng + ?Sized>(&self, steps: usize, rng: &mut R) -> Vec<usize> {
        let length = self.rows.length();
        let any = |rng: &mut R| rng.random_range(0..self.vocab as u32);
        let mut tokens: Vec<u32> = (0..length).map(|_| any(rng)).collect();
        let schedule = LogLinear::default();
        for step in 0..steps {
            let alpha = |step: usize| schedule.alpha(1.0 - step as f64 / steps as f64);
            let (alpha, earlier) = (alpha(step), alpha(step + 1));
            let probabilities = self.probabilities(&tokens, alpha);
            for (token, probabilities) in tokens
                .iter_mut()
                .zip(probabilities.chunks(self.rows.symbols()))
            {
                let own = self
                    .symbols
                    .symbol(*token)
                    .map_or(0.0, |own| probabilities[own]);
                let posterior = PosteriorWeights::new(alpha, earlier, self.vocab, own);
                let way: f64 = rng.random();
                if way < posterior.uniform {
                    *token = any(rng);
                } else if way < posterior.uniform + posterior.drawn {
                    let distribution =
                        WeightedIndex::new(probabilities).expect("probabilities sum to one");
                    *token = self.symbols.tokens()[distribution.sample(rng)];
                }
            }
        }
        self.symbols
            .of(&tokens)
            .expect("at the end no token is noise")
    }
}
