//! Other models as judges of samples: GPT-2, and n-gram models of a data folder.

use super::eval::Samples;
use crate::args::ScoreArgs;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::progress::Progress;
use burn::tensor::backend::AutodiffBackend;
use flm_data::{Dataset, Layout, TOKENIZER_FILE, TextTokenizer};
use flm_eval::gpt2::{Gpt2, Gpt2Scorer};
use flm_eval::ngram::{NGramCounts, NGramModel};
use flm_eval::{GenPpl, ScoreError, Scored, Scorer};
use std::path::{Path, PathBuf};

/// Tokens that an n-gram model looks at, itself included, where it is not said.
const ORDER: usize = 4;

/// Texts to be scored together.
pub(crate) struct Set<'a> {
    texts: &'a [String],
    /// Tokens in a sample of the model's.
    length: Option<usize>,
}

impl<'a> Set<'a> {
    pub(crate) fn of(samples: &'a Samples) -> Self {
        Self {
            texts: &samples.texts,
            length: (samples.tokens.iter().flatten()).map(Vec::len).max(),
        }
    }
}

/// Who scores.
enum Judge {
    Gpt2 {
        folder: PathBuf,
        tokenizer: Box<TextTokenizer>,
    },
    NGram(Box<DataNGram>),
}

/// What every scorer says of every set: of each set the scores in the order of the scorers.
pub(crate) fn score(args: &ScoreArgs, sets: &[Set<'_>]) -> Result<Vec<Vec<GenPpl>>> {
    let mut scores: Vec<Vec<GenPpl>> = sets.iter().map(|_| Vec::new()).collect();
    for name in &args.scorers {
        let found = match judge(name)? {
            Judge::NGram(scorer) => {
                let score = |set: &Set<'_>| Ok(GenPpl::of(scorer.as_ref(), set.texts)?);
                sets.iter().map(score).collect::<Result<Vec<_>>>()?
            }
            Judge::Gpt2 { folder, tokenizer } => device::run(
                args.device.device,
                Gpt2Job {
                    folder: &folder,
                    tokenizer: &tokenizer,
                    sets,
                    args,
                },
            )?,
        };
        for (all, one) in scores.iter_mut().zip(found) {
            all.push(one);
        }
    }
    Ok(scores)
}

fn judge(name: &str) -> Result<Judge> {
    if let Some(rest) = name.strip_prefix("ngram:") {
        let (data, order) = match rest.rsplit_once(':') {
            Some((data, order)) => {
                let order = order.parse().map_err(|_| {
                    CliError::input(format!(
                        "--scorer {name}: expected ngram:DATA:ORDER, but {order:?} is no number"
                    ))
                })?;
                (data, order)
            }
            None => (rest, ORDER),
        };
        return Ok(Judge::NGram(Box::new(DataNGram::train(
            Path::new(data),
            order,
        )?)));
    }
    let folder = PathBuf::from(name);
    if !folder.join("config.json").is_file() {
        return Err(CliError::input(format!(
            "--scorer {name} is neither ngram:DATA[:ORDER] nor a folder of GPT-2 with config.json, model.safetensors and {TOKENIZER_FILE}"
        )));
    }
    let tokenizer = TextTokenizer::load(folder.join(TOKENIZER_FILE))?.reading_specials();
    Ok(Judge::Gpt2 {
        folder,
        tokenizer: Box::new(tokenizer),
    })
}

struct Gpt2Job<'a> {
    folder: &'a Path,
    tokenizer: &'a TextTokenizer,
    sets: &'a [Set<'a>],
    args: &'a ScoreArgs,
}

impl Job for Gpt2Job<'_> {
    type Output = Vec<GenPpl>;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Vec<GenPpl>> {
        let model = Gpt2::<B::InnerBackend>::load(self.folder, &place.device)?;
        let total: usize = self.sets.iter().map(|set| set.texts.len()).sum();
        let progress = Progress::new("scoring", total as u64);
        let mut done = 0;
        let mut scores = Vec::with_capacity(self.sets.len());
        for set in self.sets {
            let positions = model.config().n_positions;
            let length = self.args.score_length.unwrap_or_else(|| {
                set.length
                    .map_or(positions, |length| length.clamp(2, positions))
            });
            let encode = Box::new(|text: &str| Ok(self.tokenizer.encode(text)?));
            let scorer = Gpt2Scorer::new(
                &model,
                encode,
                self.tokenizer.eos_id(),
                length,
                self.args.score_batch,
                place.device.clone(),
            )?;
            scores.push(GenPpl::of(&scorer, set.texts)?);
            done += set.texts.len() as u64;
            progress.update(done, scorer.identity());
        }
        Ok(scores)
    }
}

/// An n-gram model of the training rows of a data folder, in its tokens.
struct DataNGram {
    model: NGramModel,
    tokenizer: TextTokenizer,
    layout: Layout,
    identity: String,
}

impl DataNGram {
    fn train(data: &Path, order: usize) -> Result<Self> {
        let dataset = Dataset::open(data)?;
        // Samples may hold special tokens where none belong.
        let tokenizer = dataset.tokenizer().clone().reading_specials();
        let layout = dataset.meta().layout;
        let mut counts = NGramCounts::new(order, tokenizer.vocab_size())?;
        let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
        for row in 0..dataset.train().rows() {
            let row = dataset.train().row(row)?;
            match layout {
                Layout::Rows => counts.add(until(&row, eos), true)?,
                Layout::Packed => {
                    // The frame of begin and end token is no text; a document may go on in the next block.
                    let inside = row.strip_prefix(&[bos]).unwrap_or(&row);
                    let inside = inside.strip_suffix(&[eos]).unwrap_or(inside);
                    let mut documents = inside.split(|token| *token == eos).peekable();
                    while let Some(document) = documents.next() {
                        counts.add(document, documents.peek().is_some())?;
                    }
                }
            }
        }
        let model = counts.estimate();
        Ok(Self {
            identity: format!(
                "{}-tokens-{:.12}",
                model.identity(),
                dataset.meta().tokenizer_hash
            ),
            model,
            tokenizer,
            layout,
        })
    }

    fn nats(
        &self,
        text: &str,
    ) -> std::result::Result<Vec<f64>, Box<dyn std::error::Error + Send + Sync>> {
        if self.layout == Layout::Rows {
            return Ok(self.model.nats(&self.tokenizer.encode(text)?, true)?);
        }
        // As `flm sample` writes a packed block: a document a line, the last of them cut.
        let mut nats = Vec::new();
        let mut documents = text.split('\n').peekable();
        while let Some(document) = documents.next() {
            let tokens = self.tokenizer.encode(document)?;
            nats.extend(self.model.nats(&tokens, documents.peek().is_some())?);
        }
        Ok(nats)
    }
}

/// What of a row stands before its end.
fn until(row: &[u32], eos: u32) -> &[u32] {
    let end = row.iter().position(|token| *token == eos);
    &row[..end.unwrap_or(row.len())]
}

impl Scorer for DataNGram {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn score(&self, texts: &[&str]) -> std::result::Result<Vec<Scored>, ScoreError> {
        let failed = |source| ScoreError::Failed {
            scorer: self.identity.clone(),
            source,
        };
        (texts.iter())
            .map(|text| Ok(Scored::of(&self.nats(text).map_err(failed)?)))
            .collect()
    }
}
