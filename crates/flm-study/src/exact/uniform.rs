//! Uniform-state diffusion with exact marginals.

use super::ExactFlow;
use crate::Symbols;
use flm_discrete::duo::{self, PosteriorWeights};
use flm_discrete::{LogLinear, Tokens};
use flm_eval::GrammarRows;
use rand::distr::{Distribution, weighted::WeightedIndex};
use rand::{Rng, RngExt};

/// The exact denoiser of rows with some tokens replaced by uniform ones.
///
/// The denoiser returns the probability of each token given all *other* tokens. The posterior
/// ([`PosteriorWeights`]) adds the evidence of the token itself. With these probabilities,
/// infinitely many steps reverse the chain exactly. They minimize the bound. The minimum is −log p
/// of a row, up to the prior term at t = 1.
pub struct ExactUniform<'a> {
    rows: &'a GrammarRows<'a>,
    symbols: &'a Symbols,
    /// Number of tokens in the vocabulary, from which replacements are drawn.
    vocab: usize,
}

impl<'a> ExactUniform<'a> {
    /// Creates the exact denoiser for the rows and tokens of a flow.
    pub fn of(flow: &ExactFlow<'a>) -> Self {
        Self {
            rows: flow.rows,
            symbols: flow.symbols,
            vocab: flow.vocab,
        }
    }

    /// Returns probabilities of symbols, `[length, symbols]`, at each position given the tokens at
    /// all other positions.
    ///
    /// Each token is unreplaced with probability `alpha` < 1.
    pub fn probabilities(&self, tokens: &[u32], alpha: f64) -> Vec<f64> {
        let symbols = self.rows.symbols();
        // The likelihood ratio of an observed token between the same and another clean token.
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

    /// Replaces tokens of a row at random and returns the rate of the bound at time `t`.
    pub fn rate<R: Rng + ?Sized>(&self, row: &[u32], t: f64, rng: &mut R) -> f64 {
        let ids = row.iter().map(|&token| token as i32).collect();
        let (tokens, level) = (Tokens::new(ids, row.len()), LogLinear::default().level(t));
        let noisy = duo::replaced(&tokens, &[level], self.vocab, rng);
        let noisy: Vec<u32> = noisy.ids().iter().map(|&id| id as u32).collect();
        self.rate_of(row, &noisy, t)
    }

    /// Returns the rate of the bound at time `t` > 0 for a row of tokens and its `noisy` version,
    /// in nats per position ([`UniformNoise`](flm_denoiser::UniformNoise)).
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

    /// Draws a row of symbols with the sampler of `flm_discrete::duo`, without the greedy tail.
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
