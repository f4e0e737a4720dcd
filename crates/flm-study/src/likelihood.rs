//! Likelihoods of validation rows under models and under a grammar.

use crate::{Error, Result};
use burn::tensor::backend::Backend;
use flm::{LikelihoodOptions, Model, ModelFolder, Observer};
use flm_data::{Dataset, Layout};
use flm_denoiser::Family;
use flm_discrete::Bound;
use flm_eval::Grammar;
use serde::Serialize;
use std::path::Path;

/// The first validation rows of a data folder.
#[derive(Clone, Debug)]
pub struct ValidationRows {
    rows: Vec<Vec<u32>>,
    tokens: usize,
}

impl ValidationRows {
    /// Reads all validation rows, or the first `limit`.
    ///
    /// # Errors
    ///
    /// There are no rows, or one cannot be read.
    pub fn read(dataset: &Dataset, limit: Option<usize>, data: &Path) -> Result<Self> {
        let split = dataset.validation();
        let count = limit.unwrap_or(usize::MAX).min(split.rows());
        if count == 0 {
            return Err(Error::Input(format!(
                "{} has no validation rows",
                data.display()
            )));
        }
        let rows = (0..count).map(|row| split.row(row));
        let rows = rows.collect::<std::result::Result<Vec<_>, _>>()?;
        let eos = dataset.tokenizer().eos_id();
        let counted = |row: &Vec<u32>| match dataset.meta().layout {
            Layout::Rows => {
                let end = row.iter().position(|&token| token == eos);
                end.map_or(row.len(), |end| end + 1)
            }
            Layout::Packed => row.len(),
        };
        Ok(Self {
            tokens: rows.iter().map(counted).sum(),
            rows,
        })
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// Number of counted tokens: up to the end token for one document per row, all for packed rows.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Nats per token under a grammar. `None` for packed rows, which can cut a sentence.
    ///
    /// # Errors
    ///
    /// A row cannot be decoded.
    pub fn grammar_nats(&self, grammar: &Grammar, dataset: &Dataset) -> Result<Option<f64>> {
        if dataset.meta().layout == Layout::Packed {
            return Ok(None);
        }
        let mut nats = 0.0;
        for row in &self.rows {
            let text = dataset.tokenizer().decode(row)?;
            let words: Vec<&str> = text.split_whitespace().collect();
            nats -= grammar.floored_log_prob(&words);
        }
        Ok(Some(nats / self.tokens as f64))
    }
}

/// The likelihood of validation rows under one model.
#[derive(Clone, Debug, Serialize)]
pub struct RowLikelihood {
    /// The model's name.
    pub model: String,
    /// The model's family.
    pub family: Family,
    /// Hash of the model's weights.
    pub weights: String,
    /// Whether the nats are an upper bound rather than exact.
    pub bound: bool,
    /// Nats per counted token.
    pub nats_per_token: f64,
    /// Standard error over rows; for a bound it includes the random draws. `None` for a single row.
    pub std_err: Option<f64>,
    /// Nats per row.
    pub nats_per_text: f64,
}

impl RowLikelihood {
    /// Opens a model that has a likelihood and fits the data.
    ///
    /// # Errors
    ///
    /// The model is a flow, cannot be read, or has another tokenizer or length than the data.
    pub fn open(model: &Path, dataset: &Dataset, data: &Path) -> Result<ModelFolder> {
        let folder = ModelFolder::open(model)?;
        if folder.config().family == Family::Flow {
            return Err(Error::Input(format!(
                "{} must be of family mdlm, duo or autoregressive to have a likelihood, found flow",
                model.display()
            )));
        }
        folder.check_fits(dataset.tokenizer(), dataset.meta().length, data)?;
        Ok(folder)
    }

    /// Measures the rows under a model.
    ///
    /// # Errors
    ///
    /// The model has no likelihood, or the observer cancels.
    pub fn measure<B: Backend>(
        model: &Model<B>,
        rows: &ValidationRows,
        options: LikelihoodOptions,
        observer: &impl Observer<B>,
    ) -> Result<Self> {
        let found = model.likelihood(&rows.rows, options, observer)?;
        let texts = Bound::of(&found.nats, 1);
        let per_text = rows.tokens as f64 / rows.rows.len() as f64;
        Ok(Self {
            model: model.name().to_owned(),
            family: model.config().family,
            weights: model.weights().to_owned(),
            bound: found.is_bound,
            nats_per_token: texts.nats / per_text,
            std_err: (texts.texts > 1).then_some(texts.error / per_text),
            nats_per_text: texts.nats,
        })
    }
}
