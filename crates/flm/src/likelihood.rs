//! Log-likelihoods of rows of tokens.

use crate::model::side_by_side;
use crate::{Error, Model, ModelNetwork, Observer, Result, kind, purpose};
use burn::tensor::backend::Backend;
use flm_data::Split;
use flm_denoiser::{Dit, Family};
use flm_discrete::{Tokens, autoregressive, duo, mdlm};
use flm_simplex::stream::generator;
use flm_train::Workers;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of rows evaluated together. Times and noise are drawn per batch, so results for a seed
/// depend on it.
const BATCH: usize = 16;

/// Options for estimating the likelihood of a diffusion model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LikelihoodOptions {
    /// Number of times drawn for each row. Autoregressive models ignore it.
    pub draws: usize,
    /// Seed of times and noise.
    pub seed: u64,
}

impl Default for LikelihoodOptions {
    /// 16 draws with seed 0.
    fn default() -> Self {
        Self { draws: 16, seed: 0 }
    }
}

/// Negative log-likelihoods of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Negative log-likelihood of each row, in nats.
    pub nats: Vec<f64>,
    /// Whether the values are estimates of an upper bound, as for diffusion models. Values of
    /// autoregressive models are exact.
    pub is_bound: bool,
}

impl<B: Backend> Model<B> {
    /// Returns the negative log-likelihood of each row of tokens in nats, or an upper bound of it.
    ///
    /// A row is complete: `config().length` tokens of this model's tokenizer, with end token and
    /// padding, as [`Split::row`] returns it. All tokens count, including padding.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a flow or a flow map, [`Error::Data`] if a row does not fit the
    /// model, [`Error::Option`] if `draws` is 0 for a diffusion model, [`Error::Cancelled`] if the
    /// observer cancels.
    pub fn likelihood(
        &self,
        rows: &[Vec<u32>],
        options: LikelihoodOptions,
        observer: &(impl Observer<B> + ?Sized),
    ) -> Result<Likelihood> {
        let config = self.config();
        let ModelNetwork::Tokens(model) = self.network() else {
            return Err(Error::Unsupported(format!(
                "{} must be of family mdlm, duo or autoregressive to have a likelihood, found {}",
                self.name(),
                kind(config)
            )));
        };
        let is_bound = config.family != Family::Autoregressive;
        if is_bound && options.draws == 0 {
            return Err(Error::Option(
                "the number of draws must be at least 1, found 0".to_owned(),
            ));
        }
        // Checks the rows; the error names the row.
        Split::from_rows(rows, config.length, config.vocab_size)?;
        let batches: Vec<&[Vec<u32>]> = rows.chunks(BATCH).collect();
        let done = AtomicUsize::new(0);
        let workers = Workers::new(side_by_side::<B>().min(batches.len().max(1)))?;
        let nats = workers.map(batches.len(), |batch| {
            if observer.is_cancelled() {
                return Err(Error::Cancelled {
                    work: "rows were scored",
                });
            }
            let nats = nats(model, config.family, batches[batch], batch as u64, options);
            let done = done.fetch_add(nats.len(), Ordering::Relaxed) + nats.len();
            observer.progress(done, rows.len());
            Ok(nats)
        });
        let nats = nats.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Likelihood {
            nats: nats.into_iter().flatten().collect(),
            is_bound,
        })
    }
}

fn nats<B: Backend>(
    model: &Dit<B>,
    family: Family,
    rows: &[Vec<u32>],
    number: u64,
    LikelihoodOptions { draws, seed }: LikelihoodOptions,
) -> Vec<f64> {
    let ids = rows.iter().flatten().map(|&id| id as i32).collect();
    let tokens = Tokens::new(ids, rows[0].len());
    let mut rng = generator(seed, purpose::LIKELIHOOD, number, 0);
    match family {
        Family::Mdlm => mdlm::nats(model, &tokens, draws, &mut rng),
        Family::Duo => duo::nats(model, &tokens, draws, &mut rng),
        Family::Autoregressive | Family::Flow => autoregressive::nats(model, &tokens),
    }
}
