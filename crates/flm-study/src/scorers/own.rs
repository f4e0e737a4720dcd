//! Scoring with an autoregressive model that flm trained.

use super::{ScoringOptions, TextSet, documents};
use crate::{Error, Result, Watch};
use burn::tensor::backend::Backend;
use flm::ModelFolder;
use flm_data::{Layout, TextTokenizer};
use flm_denoiser::{Dit, Execution, Family, Precision, folder};
use flm_discrete::{Tokens, autoregressive};
use flm_eval::{GenPpl, Scored};
use flm_train::Workers;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// An autoregressive model folder, before the weights are loaded.
pub(super) struct Own {
    folder: PathBuf,
    tokenizer: TextTokenizer,
    layout: Layout,
    /// Number of tokens in a row.
    length: usize,
    identity: String,
}

/// The tokens of a text in the model's layout.
struct Row {
    tokens: Vec<u32>,
    /// Number of leading tokens that are not scored.
    given: usize,
}

impl Own {
    /// Opens a model folder or finished run; `None` if flm did not make it.
    pub(super) fn find(name: &str) -> Result<Option<Self>> {
        if ModelFolder::find_own(Path::new(name)).is_none() {
            return Ok(None);
        }
        let folder = ModelFolder::open(name)?;
        let config = folder.config();
        if config.family != Family::Autoregressive {
            return Err(Error::Input(format!(
                "--scorer {name}: a model folder must be autoregressive to score, found {}",
                folder.kind()
            )));
        }
        // Samples may contain special tokens anywhere.
        let tokenizer = folder.tokenizer()?.reading_specials();
        Ok(Some(Self {
            identity: format!(
                "autoregressive-{}x{}-{}-{}-{}-{:.12}",
                config.blocks,
                config.width,
                folder.weights()?,
                folder.layout().name(),
                config.length,
                tokenizer.hash()
            ),
            layout: folder.layout(),
            length: config.length,
            folder: folder.path().to_path_buf(),
            tokenizer,
        }))
    }

    fn rows(&self, set: &TextSet<'_>) -> Result<Vec<Row>> {
        let texts = set.texts.iter().enumerate();
        texts
            .map(|(i, text)| self.row(text, set.tokens.map(|tokens| tokens[i].as_slice())))
            .collect()
    }

    /// Encodes a text with its end token, or a packed block with its begin token.
    fn row(&self, text: &str, tokens: Option<&[u32]>) -> Result<Row> {
        let mut row = Vec::new();
        if self.layout == Layout::Packed {
            row.push(self.tokenizer.bos_id());
        }
        let given = row.len();
        for (document, ends) in documents(self.layout, &self.tokenizer, text, tokens) {
            row.extend(self.tokenizer.encode(&document)?);
            if ends {
                row.push(self.tokenizer.eos_id());
            }
        }
        // The last token of a training row is never text, so longer texts are cut before it.
        let room = match self.layout {
            Layout::Rows => self.length,
            Layout::Packed => self.length - 1,
        };
        if row.len() > room {
            row.truncate(self.length - 1);
        }
        Ok(Row { tokens: row, given })
    }

    fn score<B: Backend>(&self, model: &Dit<B>, rows: &[Row]) -> Vec<Scored> {
        // The model is causal, so padding after a text does not affect its scores.
        let filled = rows.iter().flat_map(|row| {
            let rest = std::iter::repeat_n(0, self.length - row.tokens.len());
            row.tokens.iter().map(|&id| id as i32).chain(rest)
        });
        let tokens = Tokens::new(filled.collect(), self.length);
        let device = model.embed().embedding.device();
        let nats = autoregressive::nats_per_token(model, tokens.tensor(&device)).into_data();
        let nats: Vec<f64> = nats.iter::<f64>().collect();
        (rows.iter().zip(nats.chunks_exact(self.length)))
            .map(|(row, nats)| Scored::of(&nats[row.given..row.tokens.len()]))
            .collect()
    }
}

impl Own {
    /// Scores several sets.
    pub(super) fn score_sets<B: Backend>(
        &self,
        sets: &[TextSet<'_>],
        options: &ScoringOptions<B>,
        watch: Watch<'_>,
    ) -> Result<Vec<GenPpl>> {
        let (model, _) = folder::load::<B>(&self.folder, &options.device)?;
        // Always in f32, so that scores do not depend on the precision of sampling.
        let model = model.with_execution(Execution {
            precision: Precision::F32,
            ..options.execution
        });
        let (done, batch) = (AtomicU64::new(0), options.batch.max(1));
        let mut scores = Vec::with_capacity(sets.len());
        for set in sets {
            let rows = self.rows(set)?;
            let batches: Vec<&[Row]> = rows.chunks(batch).collect();
            let workers = Workers::new(options.side_by_side.min(batches.len().max(1)))?;
            let scored = workers.map(batches.len(), |number| {
                if !watch(done.load(Ordering::Relaxed), &self.identity) {
                    return Err(Error::Cancelled {
                        work: "texts were scored",
                    });
                }
                let scored = self.score(&model, batches[number]);
                let count = scored.len() as u64;
                watch(
                    done.fetch_add(count, Ordering::Relaxed) + count,
                    &self.identity,
                );
                Ok(scored)
            });
            let scored = scored.into_iter().collect::<Result<Vec<_>>>()?;
            let scored: Vec<Scored> = scored.into_iter().flatten().collect();
            scores.push(GenPpl::of_scored(&self.identity, &scored)?);
        }
        Ok(scores)
    }
}
