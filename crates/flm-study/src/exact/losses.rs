//! How far a flow is from the least loss there is, and where in time a diffusion's bound comes from.

use super::flow::{ExactFlow, NoisyRow};
use super::uniform::ExactUniform;
use super::{masked, side_by_side};
use crate::{Error, Result, Watch, purpose};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use flm_data::Split;
use flm_denoiser::{Dit, Dropout, Family};
use flm_simplex::stream::generator;
use flm_simplex::times;
use serde::Serialize;

/// Times at which each row is looked at, as many in each quarter.
pub const TIMES: usize = 8;

/// A mean over validation rows, times and noise.
#[derive(Serialize)]
pub struct Nats {
    /// Padding is counted.
    pub nats_per_place: f64,
    /// Of the choice of rows, times and noise, which are the same for all that are compared. Of a bound it is a rough guide, as rates grow like 1/t.
    pub std_err: f64,
    /// The same for times in each quarter.
    pub quarters: [f64; 4],
}

/// A flow's validation loss: cross-entropy at times uniform in τ.
#[derive(Serialize)]
pub struct Loss {
    /// Whose.
    pub of: Whose,
    /// The loss.
    #[serde(flatten)]
    pub nats: Nats,
}

/// What a discrete diffusion's bound is the mean of, if its denoiser knows the distribution: at times t uniform in 0 (text) to 1 (noise).
#[derive(Serialize)]
pub struct Rate {
    /// The family.
    pub family: Family,
    /// The rate.
    #[serde(flatten)]
    pub nats: Nats,
}

/// Whose loss it is.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The exact denoiser, given states in full.
    Perfect,
    /// The exact denoiser, given states through the network's embedding.
    PerfectThrough,
    /// Of the network.
    Network,
}

/// Who reads the same noisy rows.
pub struct Readers<'a, B: Backend> {
    /// The exact denoiser, given states in full.
    pub full: &'a ExactFlow<'a>,
    /// The exact denoiser that sees states through the embedding of a network, and the network.
    pub through: Option<(&'a ExactFlow<'a>, &'a Dit<B>)>,
}

impl<B: Backend> Readers<'_, B> {
    /// Of all validation rows of a data folder.
    pub fn losses(
        &self,
        rows: &Split,
        data: &str,
        seed: u64,
        watch: Watch<'_>,
    ) -> Result<Vec<Loss>> {
        let whose: &[Whose] = match self.through {
            Some(_) => &[Whose::Perfect, Whose::PerfectThrough, Whose::Network],
            None => &[Whose::Perfect],
        };
        let all = self.of_rows(rows, data, ("losses", watch), |number, tokens, symbols| {
            let mut rng = generator(seed, purpose::PERFECT, number, 1);
            let noisy = self.full.noisy::<B, _>(tokens, TIMES, &mut rng);
            let found = noisy.iter().map(|noisy| {
                let nats = |&whose| self.nats(whose, noisy, tokens, symbols);
                (noisy.tau, whose.iter().map(nats).collect())
            });
            found.collect()
        })?;
        let losses = whose.iter().zip(all);
        Ok(losses.map(|(&of, nats)| Loss { of, nats }).collect())
    }

    /// Of all validation rows of a data folder, by exact denoisers.
    pub fn rates(
        &self,
        rows: &Split,
        data: &str,
        seed: u64,
        watch: Watch<'_>,
    ) -> Result<Vec<Rate>> {
        let uniform = ExactUniform::of(self.full);
        let families = [Family::Mdlm, Family::Duo];
        let all = self.of_rows(rows, data, ("bounds", watch), |number, tokens, symbols| {
            let mut rng = generator(seed, purpose::PERFECT, number, 2);
            let times = times::stratified(TIMES, &mut rng);
            // At 0 nothing is noisy and the rate is none.
            let found = times.into_iter().map(|t| t.max(1e-6)).map(|t| {
                let masked = masked::rate(self.full.rows, symbols, t, &mut rng);
                (t, vec![masked, uniform.rate(tokens, t, &mut rng)])
            });
            found.collect()
        })?;
        let rates = families.into_iter().zip(all);
        Ok(rates.map(|(family, nats)| Rate { family, nats }).collect())
    }

    /// Means of what `ask` finds of the number, the tokens and the symbols of each validation row: at some times in 0 to 1, as many in each quarter, one
    /// figure for everyone who is asked.
    fn of_rows(
        &self,
        split: &Split,
        data: &str,
        (label, watch): (&str, Watch<'_>),
        ask: impl Fn(u64, &[u32], &[usize]) -> Vec<(f64, Vec<f64>)> + Sync,
    ) -> Result<Vec<Nats>> {
        if split.rows() < 2 {
            return Err(Error::Input(format!(
                "{} must have at least 2 validation rows, found {}",
                data,
                split.rows()
            )));
        }
        // Of each row those of each quarter.
        let all = side_by_side(split.rows(), label, watch, |number| {
            let tokens = split.row(number)?;
            let symbols = self.full.sentence(&tokens).ok_or_else(|| {
                Error::Input(format!(
                    "row {number} of validation of {} is not a sentence of its grammar",
                    data
                ))
            })?;
            let found = ask(number as u64, &tokens, &symbols);
            let mut quarters = vec![[0.0; 4]; found[0].1.len()];
            for (time, nats) in &found {
                let quarter = ((time * 4.0) as usize).min(3);
                for (quarters, nats) in quarters.iter_mut().zip(nats) {
                    quarters[quarter] += nats * 4.0 / found.len() as f64;
                }
            }
            Ok(quarters)
        })?;
        let mean = |asked: usize| mean(all.iter().map(|row| row[asked]));
        Ok((0..all[0].len()).map(mean).collect())
    }

    /// Cross-entropy of a row in nats a place, given a noisy one.
    fn nats(&self, whose: Whose, noisy: &NoisyRow, tokens: &[u32], symbols: &[usize]) -> f64 {
        match (whose, self.through) {
            (Whose::PerfectThrough, Some((exact, _))) => exact.nats(noisy, symbols),
            (Whose::Network, Some((_, network))) => of_network(network, noisy, tokens),
            _ => self.full.nats(noisy, symbols),
        }
    }
}

/// Of rows, of which each has the means of its quarters.
fn mean(rows: impl ExactSizeIterator<Item = [f64; 4]> + Clone) -> Nats {
    let count = rows.len() as f64;
    let quarters = [0, 1, 2, 3].map(|q| rows.clone().map(|row| row[q]).sum::<f64>() / count);
    let mean = quarters.iter().sum::<f64>() / 4.0;
    let squares = rows.map(|row| (row.iter().sum::<f64>() / 4.0 - mean).powi(2));
    Nats {
        nats_per_place: mean,
        std_err: (squares.sum::<f64>() / (count - 1.0) / count).sqrt(),
        quarters,
    }
}

fn of_network<B: Backend>(network: &Dit<B>, noisy: &NoisyRow, tokens: &[u32]) -> f64 {
    let device = Default::default();
    let length = tokens.len();
    let state = TensorData::new(noisy.state.clone(), [1, length, noisy.state.len() / length]);
    let state = network.embed().project(Tensor::from_data(state, &device));
    let tau = Tensor::from_floats([noisy.tau as f32], &device);
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [1, length]), &device);
    let prediction = network.forward(state, tau.clone(), tau, &mut Dropout::off());
    -(prediction.log_probs(ids).mean().into_scalar().elem::<f64>())
}
