//! How far a flow is from the least loss there is.

use super::flow::{Exact, Noisy};
use super::side_by_side;
use crate::error::{CliError, Result};
use crate::stages::purpose;
use burn::tensor::{Tensor, TensorData};
use burn_flex::Flex;
use flm_data::Dataset;
use flm_denoiser::{Dit, Dropout};
use flm_simplex::stream::generator;
use serde::Serialize;
use std::path::Path;

/// Times at which each row is looked at, as many in each quarter.
pub(super) const TIMES: usize = 8;

/// A flow's validation loss: cross-entropy in nats a place, padding included, at times uniform in τ.
#[derive(Serialize)]
pub(super) struct Loss {
    pub(super) of: Whose,
    pub(super) nats_per_place: f64,
    /// Of the choice of rows, times and noise, which are the same for all.
    pub(super) std_err: f64,
    /// The same for times in each quarter of τ.
    pub(super) quarters: [f64; 4],
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Whose {
    /// Of who knows the law and sees states in full.
    Perfect,
    /// Of who knows the law and sees states through the network's embedding.
    PerfectThrough,
    /// Of the network.
    Network,
}

/// Who reads the same noisy rows.
pub(super) struct Readers<'a> {
    pub(super) full: &'a Exact<'a>,
    pub(super) through: Option<(&'a Exact<'a>, &'a Dit<Flex>)>,
}

impl Readers<'_> {
    /// Of all validation rows of a data folder.
    pub(super) fn losses(&self, dataset: &Dataset, data: &Path, seed: u64) -> Result<Vec<Loss>> {
        let split = dataset.validation();
        if split.rows() < 2 {
            return Err(CliError::input(format!(
                "{} must have at least 2 validation rows, found {}",
                data.display(),
                split.rows()
            )));
        }
        let whose: &[Whose] = match self.through {
            Some(_) => &[Whose::Perfect, Whose::PerfectThrough, Whose::Network],
            None => &[Whose::Perfect],
        };
        // Of each row those of each quarter.
        let all = side_by_side(split.rows(), "losses", |number| {
            let tokens = split.row(number)?;
            let symbols = self.full.sentence(&tokens).ok_or_else(|| {
                CliError::input(format!(
                    "row {number} of validation of {} is no sentence of its grammar",
                    data.display()
                ))
            })?;
            let mut rng = generator(seed, purpose::PERFECT, number as u64, 1);
            let mut found = vec![[0.0; 4]; whose.len()];
            for noisy in self.full.noisy(&tokens, TIMES, &mut rng) {
                let quarter = ((noisy.tau * 4.0) as usize).min(3);
                for (found, &whose) in found.iter_mut().zip(whose) {
                    let nats = self.nats(whose, &noisy, &tokens, &symbols);
                    found[quarter] += nats * 4.0 / TIMES as f64;
                }
            }
            Ok(found)
        })?;
        let of = |(index, &of): (usize, &Whose)| mean(of, all.iter().map(|row| row[index]));
        Ok(whose.iter().enumerate().map(of).collect())
    }

    /// Cross-entropy of a row in nats a place, given a noisy one.
    fn nats(&self, whose: Whose, noisy: &Noisy, tokens: &[u32], symbols: &[usize]) -> f64 {
        match (whose, self.through) {
            (Whose::PerfectThrough, Some((exact, _))) => exact.nats(noisy, symbols),
            (Whose::Network, Some((_, network))) => of_network(network, noisy, tokens),
            _ => self.full.nats(noisy, symbols),
        }
    }
}

/// Of rows, of which each has the means of its quarters.
fn mean(of: Whose, rows: impl ExactSizeIterator<Item = [f64; 4]> + Clone) -> Loss {
    let count = rows.len() as f64;
    let quarters = [0, 1, 2, 3].map(|q| rows.clone().map(|row| row[q]).sum::<f64>() / count);
    let mean = quarters.iter().sum::<f64>() / 4.0;
    let squares = rows.map(|row| (row.iter().sum::<f64>() / 4.0 - mean).powi(2));
    Loss {
        of,
        nats_per_place: mean,
        std_err: (squares.sum::<f64>() / (count - 1.0) / count).sqrt(),
        quarters,
    }
}

fn of_network(network: &Dit<Flex>, noisy: &Noisy, tokens: &[u32]) -> f64 {
    let device = Default::default();
    let length = tokens.len();
    let state = TensorData::new(noisy.state.clone(), [1, length, noisy.state.len() / length]);
    let state = network.embed().project(Tensor::from_data(state, &device));
    let tau = Tensor::from_floats([noisy.tau as f32], &device);
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [1, length]), &device);
    let prediction = network.forward(state, tau.clone(), tau, &mut Dropout::off());
    -f64::from(prediction.log_probs(ids).mean().into_scalar())
}
