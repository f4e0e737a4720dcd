//! Models that score samples: GPT-2, the Llama family, n-gram models of a data folder, and
//! autoregressive models of this workspace.

mod own;
mod pretrained;

use crate::{Error, Result, Watch};
use burn::tensor::backend::Backend;
use flm_data::{Dataset, Layout, TextTokenizer};
use flm_denoiser::Execution;
use flm_eval::ngram::{NGramCounts, NGramModel};
use flm_eval::{GenPpl, Scored};
use own::Own;
use pretrained::Pretrained;
use std::path::Path;

/// The default order of n-gram models.
const ORDER: usize = 4;

/// A set of texts to score.
pub struct TextSet<'a> {
    /// The texts.
    pub texts: &'a [String],
    /// The sampled tokens of each text, if known.
    pub tokens: Option<&'a [Vec<u32>]>,
}

/// A scorer.
enum Judge {
    Pretrained(Box<Pretrained>),
    NGram(Box<DataNGram>),
    Own(Box<Own>),
}

/// A list of scorers.
pub struct Scorers {
    judges: Vec<Judge>,
    length: Option<usize>,
}

/// Options for scoring texts.
#[derive(Clone, Debug)]
pub struct ScoringOptions<B: Backend> {
    /// Number of texts per batch.
    pub batch: usize,
    /// The device of networks.
    pub device: B::Device,
    /// Number of batches to evaluate in parallel.
    pub side_by_side: usize,
    /// How networks are evaluated; the precision is always f32.
    pub execution: Execution,
}

impl Scorers {
    /// Opens the named scorers and counts n-grams.
    ///
    /// A scorer that cannot be used is an error here, before anything is scored. Pretrained models
    /// truncate texts to `length` of their tokens.
    ///
    /// # Errors
    ///
    /// The first name that is not a scorer, or a scorer's file that cannot be read.
    pub fn open(names: &[String], length: Option<usize>) -> Result<Self> {
        let judges = names.iter().map(|name| judge(name, length));
        Ok(Self {
            judges: judges.collect::<Result<_>>()?,
            length,
        })
    }

    /// Scores every set, in the order of the scorers.
    ///
    /// Each call loads the weights of networks again.
    ///
    /// # Errors
    ///
    /// A network or a text that cannot be read, or [`Error::Cancelled`].
    pub fn score<B: Backend>(
        &self,
        sets: &[TextSet<'_>],
        options: &ScoringOptions<B>,
        watch: Watch<'_>,
    ) -> Result<Vec<Vec<GenPpl>>> {
        let mut scores: Vec<Vec<GenPpl>> = sets.iter().map(|_| Vec::new()).collect();
        let texts: usize = sets.iter().map(|set| set.texts.len()).sum();
        for (number, judge) in self.judges.iter().enumerate() {
            let before = (number * texts) as u64;
            let watch: Watch<'_> = &|done, label| watch(before + done, label);
            let found = match judge {
                Judge::NGram(scorer) => {
                    let score = |set: &TextSet<'_>| scorer.score(set);
                    sets.iter().map(score).collect::<Result<Vec<_>>>()?
                }
                Judge::Own(own) => own.score_sets(sets, options, watch)?,
                Judge::Pretrained(judge) => judge.score(sets, self.length, options, watch)?,
            };
            for (all, one) in scores.iter_mut().zip(found) {
                all.push(one);
            }
        }
        Ok(scores)
    }

    /// Returns the number of scorers.
    pub fn len(&self) -> usize {
        self.judges.len()
    }

    /// Returns `true` if there are no scorers.
    pub fn is_empty(&self) -> bool {
        self.judges.is_empty()
    }

    /// Returns `true` if a scorer is a network, which needs a device.
    pub fn have_networks(&self) -> bool {
        let network = |judge: &Judge| !matches!(judge, Judge::NGram(_));
        self.judges.iter().any(network)
    }

    /// Returns `true` if a scorer is a pretrained network. Only these compute features.
    pub fn have_features(&self) -> bool {
        let pretrained = |judge: &Judge| matches!(judge, Judge::Pretrained(_));
        self.judges.iter().any(pretrained)
    }

    /// Computes the features of every list of texts with each pretrained network.
    ///
    /// # Errors
    ///
    /// The errors of [`score`](Self::score).
    pub fn features<B: Backend>(
        &self,
        texts: &[&[String]],
        options: &ScoringOptions<B>,
        watch: Watch<'_>,
    ) -> Result<Vec<Features>> {
        let pretrained = self.judges.iter().filter_map(|judge| match judge {
            Judge::Pretrained(judge) => Some(judge),
            _ => None,
        });
        let features = pretrained.map(|judge| judge.features(texts, self.length, options, watch));
        features.collect()
    }
}

/// Features of texts, computed by a network.
pub struct Features {
    /// Identity of the scorer.
    pub scorer: String,
    /// One feature vector per text, for each list.
    pub lists: Vec<Vec<Vec<f32>>>,
}

fn judge(name: &str, length: Option<usize>) -> Result<Judge> {
    if let Some(rest) = name.strip_prefix("ngram:") {
        let (data, order) = match rest.rsplit_once(':') {
            Some((data, order)) => {
                let order = order.parse().map_err(|_| {
                    Error::Input(format!(
                        "--scorer {name}: expected ngram:DATA:ORDER, but {order:?} is not a number"
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
    if let Some(own) = Own::find(name)? {
        return Ok(Judge::Own(Box::new(own)));
    }
    let judge = Pretrained::find(name, length)?;
    Ok(Judge::Pretrained(Box::new(judge)))
}

/// An n-gram model of the training rows of a data folder, over its tokens.
struct DataNGram {
    model: NGramModel,
    tokenizer: TextTokenizer,
    layout: Layout,
    identity: String,
}

impl DataNGram {
    fn train(data: &Path, order: usize) -> Result<Self> {
        let dataset = Dataset::open(data)?;
        // Samples may contain special tokens anywhere.
        let tokenizer = dataset.tokenizer().clone().reading_specials();
        let layout = dataset.meta().layout;
        let mut counts = NGramCounts::new(order, tokenizer.vocab_size())?;
        let eos = tokenizer.eos_id();
        for row in 0..dataset.train().rows() {
            let row = dataset.train().row(row)?;
            match layout {
                Layout::Rows => counts.add(until(&row, eos), true)?,
                Layout::Packed => {
                    // The last document may continue in the next block, which also starts like a
                    // document. The same holds for samples.
                    let mut documents = inside(&row, &tokenizer).peekable();
                    while let Some(document) = documents.next() {
                        counts.add(document, documents.peek().is_some())?;
                    }
                }
            }
        }
        let model = counts.estimate();
        Ok(Self {
            identity: format!(
                "{}-{}-{:.12}",
                model.identity(),
                layout.name(),
                dataset.meta().tokenizer_hash
            ),
            model,
            tokenizer,
            layout,
        })
    }

    fn score(&self, set: &TextSet<'_>) -> Result<GenPpl> {
        let mut scored = Vec::with_capacity(set.texts.len());
        for (i, text) in set.texts.iter().enumerate() {
            let tokens = set.tokens.map(|tokens| tokens[i].as_slice());
            let mut nats = Vec::new();
            for (document, ends) in documents(self.layout, &self.tokenizer, text, tokens) {
                let tokens = self.tokenizer.encode(&document)?;
                nats.extend(self.model.nats(&tokens, ends)?);
            }
            scored.push(Scored::of(&nats));
        }
        Ok(GenPpl::of_scored(&self.identity, &scored)?)
    }
}

/// Splits a text into documents, each with a flag that tells whether it ends.
///
/// A packed block is split by its tokens if they decode to the text. Lines alone do not tell,
/// because a document may contain line breaks.
fn documents(
    layout: Layout,
    tokenizer: &TextTokenizer,
    text: &str,
    tokens: Option<&[u32]>,
) -> Vec<(String, bool)> {
    if layout == Layout::Rows {
        return vec![(text.to_owned(), true)];
    }
    let parts = tokens.and_then(|tokens| {
        let parts = inside(tokens, tokenizer);
        parts
            .map(|part| tokenizer.decode_all(part).ok())
            .collect::<Option<Vec<_>>>()
    });
    let parts = parts.filter(|parts| parts.join("\n") == text);
    let parts = parts.unwrap_or_else(|| vec![text.to_owned()]);
    let last = parts.len() - 1;
    (parts.into_iter().enumerate())
        .map(|(i, part)| (part, i < last))
        .collect()
}

/// Splits a packed block into documents, without its begin and end tokens. The last document
/// is cut.
fn inside<'a>(
    block: &'a [u32],
    tokenizer: &TextTokenizer,
) -> impl Iterator<Item = &'a [u32]> + use<'a> {
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let block = block.strip_prefix(&[bos]).unwrap_or(block);
    let block = block.strip_suffix(&[eos]).unwrap_or(block);
    block.split(move |token| *token == eos)
}

/// Returns the tokens of a row before its end token.
fn until(row: &[u32], eos: u32) -> &[u32] {
    let end = row.iter().position(|token| *token == eos);
    &row[..end.unwrap_or(row.len())]
}
