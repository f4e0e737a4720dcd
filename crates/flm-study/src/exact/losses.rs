//! Losses of a flow compared with the minimal loss, and the rate of diffusion bounds over time.

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

/// Number of times drawn for each row, equally many in each quarter.
pub const TIMES: usize = 8;

/// A mean over validation rows, times and noise, in nats.
#[derive(Serialize)]
pub struct Nats {
    /// Mean per position, including padding.
    pub nats_per_place: f64,
    /// Standard error over rows. Rows, times and noise are the same for all compared denoisers. For
    /// a bound it is only approximate, as rates grow like 1/t.
    pub std_err: f64,
    /// The mean for times in each quarter.
    pub quarters: [f64; 4],
}

/// The validation loss of a flow: cross-entropy at times uniform in τ.
#[derive(Serialize)]
pub struct Loss {
    /// The denoiser.
    pub of: Whose,
    /// The loss.
    #[serde(flatten)]
    pub nats: Nats,
}

/// The rate of a discrete diffusion's bound with the exact denoiser.
///
/// The bound is the mean of the rate over times t, uniform from 0 (text) to 1 (noise).
#[derive(Serialize)]
pub struct Rate {
    /// The family.
    pub family: Family,
    /// The rate.
    #[serde(flatten)]
    pub nats: Nats,
}

/// The denoiser of a loss.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The exact denoiser of full states.
    Perfect,
    /// The exact denoiser of states projected by the network's embedding.
    PerfectThrough,
    /// The network.
    Network,
}

/// Denoisers that are evaluated on the same noisy rows.
pub struct Readers<'a, B: Backend> {
    /// The exact denoiser of full states.
    pub full: &'a ExactFlow<'a>,
    /// The exact denoiser of states projected by a network's embedding, and the network.
    pub through: Option<(&'a ExactFlow<'a>, &'a Dit<B>)>,
}

impl<B: Backend> Readers<'_, B> {
    /// Computes the losses over all validation rows of a data folder.
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

    /// Computes the rates of exact denoisers over all validation rows of a data folder.
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
            // At t = 0 nothing is noisy and the rate is undefined.
            let found = times.into_iter().map(|t| t.max(1e-6)).map(|t| {
                let masked = masked::rate(self.full.rows, symbols, t, &mut rng);
                (t, vec![masked, uniform.rate(tokens, t, &mut rng)])
            });
            found.collect()
        })?;
        let rates = families.into_iter().zip(all);
        Ok(rates.map(|(family, nats)| Rate { family, nats }).collect())
    }

    /// Returns the means of the values that `ask` computes for each validation row.
    ///
    /// `ask` takes the index, tokens and symbols of the row. It returns times between 0 and 1,
    /// equally many in each quarter, each with one value per denoiser.
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
        // For each row and denoiser, the means of the quarters.
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

    /// Returns the cross-entropy of a row given a noisy one, in nats per position.
    fn nats(&self, whose: Whose, noisy: &NoisyRow, tokens: &[u32], symbols: &[usize]) -> f64 {
        match (whose, self.through) {
            (Whose::PerfectThrough, Some((exact, _))) => exact.nats(noisy, symbols),
            (Whose::Network, Some((_, network))) => of_network(network, noisy, tokens),
            _ => self.full.nats(noisy, symbols),
        }
    }
}

/// Averages rows that are given as means of their quarters.
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
