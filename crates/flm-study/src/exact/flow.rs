//! The flow with the exact denoiser.

use crate::Symbols;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use flm_eval::GrammarRows;
use flm_simplex::noise::gaussian;
use flm_simplex::{Denoiser, Schedule, sampler, times};
use rand::Rng;

/// The exact denoiser of a state, in full or projected by an embedding.
///
/// With y = xE the likelihood of a token v is N(t·E_v, (1−t)²·EᵀE), so p(x₁ | y) ∝
/// p(x₁)·exp(r/(1−t)·⟨xP, x₁⟩ − r²/2·Σ P_vv) with r = t/(1−t) and the projection P onto the columns
/// of E. For full states P = I, and the last term is the same for all rows.
pub struct ExactFlow<'a> {
    /// The sentences that fit a row.
    pub rows: &'a GrammarRows<'a>,
    /// The mapping between tokens and symbols of the grammar.
    pub symbols: &'a Symbols,
    /// The noise schedule.
    pub schedule: &'a Schedule,
    /// Number of tokens in the vocabulary, the width of states.
    pub vocab: usize,
    /// The projection P, `[vocabulary, vocabulary]`; `None` for full states.
    pub seen: Option<Vec<f64>>,
}

impl ExactFlow<'_> {
    /// Returns probabilities of symbols, `[length, symbols]`, given a state `[length, vocabulary]`
    /// at time `t`.
    fn probabilities(&self, state: &[f64], t: f64) -> Vec<f64> {
        let ratio = t / (1.0 - t);
        let weights = state.chunks(self.vocab).flat_map(|place| {
            let tokens = self.symbols.tokens().iter().map(|&token| token as usize);
            tokens.map(move |token| match &self.seen {
                None => ratio / (1.0 - t) * place[token],
                Some(projection) => {
                    let row = &projection[token * self.vocab..][..self.vocab];
                    let seen: f64 = row.iter().zip(place).map(|(p, x)| p * x).sum();
                    ratio / (1.0 - t) * seen - 0.5 * ratio.powi(2) * row[token]
                }
            })
        });
        let weights: Vec<f64> = weights.collect();
        let distribution = self.rows.given(&weights).expect("some sentence fits");
        distribution.marginals()
    }

    /// Draws a row of symbols with Euler steps.
    pub fn sample<B: Backend, R: Rng>(&self, steps: usize, rng: &mut R) -> Vec<usize> {
        let shape = [1, self.rows.length(), self.vocab];
        let noise = gaussian::<B, _, 3>(shape, rng, &Default::default());
        let denoised = sampler::euler(self, self.schedule, noise, steps, |_| ());
        let places = denoised.expect("there is a step");
        let places = places.chunks(self.rows.symbols()).map(|place| {
            let likelier = |a: &usize, b: &usize| place[*a].total_cmp(&place[*b]);
            (0..place.len())
                .max_by(likelier)
                .expect("there are symbols")
        });
        places.collect()
    }

    /// Adds noise to a row of tokens at `count` stratified times.
    pub fn noisy<B: Backend, R: Rng>(
        &self,
        tokens: &[u32],
        count: usize,
        rng: &mut R,
    ) -> Vec<NoisyRow> {
        let taus = times::stratified(count, rng);
        let at = |tau: f64| {
            let t = self.schedule.t_of_tau(tau);
            let shape = [tokens.len() * self.vocab];
            let noise = gaussian::<B, _, 1>(shape, rng, &Default::default()).into_data();
            let mut state: Vec<f64> = noise.iter::<f64>().map(|x| (1.0 - t) * x).collect();
            for (place, &token) in state.chunks_mut(self.vocab).zip(tokens) {
                place[token as usize] += t;
            }
            NoisyRow { tau, state }
        };
        taus.into_iter().map(at).collect()
    }

    /// Converts a row of tokens to symbols; `None` if it is not a sentence of the grammar.
    pub fn sentence(&self, tokens: &[u32]) -> Option<Vec<usize>> {
        let row = self.symbols.of(tokens)?;
        let known: Vec<Option<usize>> = row.iter().copied().map(Some).collect();
        self.rows.given(&self.rows.known(&known)).map(|_| row)
    }

    /// Returns the cross-entropy of a row of symbols given a noisy one, in nats per position.
    pub fn nats(&self, noisy: &NoisyRow, row: &[usize]) -> f64 {
        let probabilities = self.probabilities(&noisy.state, self.schedule.t_of_tau(noisy.tau));
        let places = probabilities.chunks(self.rows.symbols()).zip(row);
        -places
            .map(|(place, symbol)| place[*symbol].ln())
            .sum::<f64>()
            / row.len() as f64
    }
}

/// A noisy row of the flow.
pub struct NoisyRow {
    /// The network time τ.
    pub tau: f64,
    /// The state, `[length, vocabulary]`.
    pub state: Vec<f64>,
}

impl<B: Backend> Denoiser<B> for ExactFlow<'_> {
    /// Probabilities of symbols, `[length, symbols]`.
    type TokenDistribution = Vec<f64>;

    fn denoise(&self, state: Tensor<B, 3>, tau: f64, _: f64) -> Vec<f64> {
        let state: Vec<f64> = state.into_data().iter::<f64>().collect();
        self.probabilities(&state, self.schedule.t_of_tau(tau))
    }

    fn mean(&self, denoised: &Vec<f64>) -> Tensor<B, 3> {
        let mut dense = vec![0.0; self.rows.length() * self.vocab];
        let places = denoised.chunks(self.rows.symbols());
        for (dense, place) in dense.chunks_mut(self.vocab).zip(places) {
            for (&token, &probability) in self.symbols.tokens().iter().zip(place) {
                dense[token as usize] = probability;
            }
        }
        let shape = [1, self.rows.length(), self.vocab];
        Tensor::from_data(TensorData::new(dense, shape), &Default::default())
    }
}
