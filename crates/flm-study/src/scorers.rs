//! Other models that score samples: GPT-2, the Llama family, n-gram models of a data folder, and autoregressive models of this workspace.

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

/// Tokens that an n-gram model looks at, itself included, where it is not said.
const ORDER: usize = 4;

/// Texts to be scored together.
pub struct TextSet<'a> {
    /// The texts.
    pub texts: &'a [String],
    /// The model's tokens of each text, if they are known.
    pub tokens: Option<&'a [Vec<u32>]>,
}

/// Who scores.
enum Judge {
    Pretrained(Box<Pretrained>),
    NGram(Box<DataNGram>),
    Own(Box<Own>),
}

/// The models that score.
pub struct Scorers {
    judges: Vec<Judge>,
    length: Option<usize>,
}

/// How texts are scored.
#[derive(Clone, Debug)]
pub struct ScoringOptions<B: Backend> {
    /// Texts that a network reads together.
    pub batch: usize,
    /// Where networks are evaluated.
    pub device: B::Device,
    /// Batches that are read side by side.
    pub side_by_side: usize,
    /// How networks are evaluated; always in f32.
    pub execution: Execution,
}

impl Scorers {
    /// Finds the scorers that are named, and counts n-grams: a scorer that cannot be used is an error before anything is scored.
    /// Pretrained models cut texts at `length` of their tokens.
    ///
    /// # Errors
    ///
    /// The first name that is no scorer, or a file of one that cannot be read.
    pub fn open(names: &[String], length: Option<usize>) -> Result<Self> {
        let judges = names.iter().map(|name| judge(name, length));
        Ok(Self {
            judges: judges.collect::<Result<_>>()?,
            length,
        })
    }

    /// The scores of every set, in the order of the scorers. Networks are read in every call.
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

    /// The number of scorers.
    pub fn len(&self) -> usize {
        self.judges.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.judges.is_empty()
    }

    /// Whether a network is among them, which needs a device.
    pub fn have_networks(&self) -> bool {
        let network = |judge: &Judge| !matches!(judge, Judge::NGram(_));
        self.judges.iter().any(network)
    }

    /// Whether a pretrained network is among them: only these give features.
    pub fn have_features(&self) -> bool {
        let pretrained = |judge: &Judge| matches!(judge, Judge::Pretrained(_));
        self.judges.iter().any(pretrained)
    }

    /// Features of every list of texts by each pretrained network.
    ///
    /// # Errors
    ///
    /// As those of [`score`](Self::score).
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

/// What a network makes of texts.
pub struct Features {
    /// Who read them.
    pub scorer: String,
    /// Of each list of texts a vector for each.
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
        let eos = tokenizer.eos_id();
        for row in 0..dataset.train().rows() {
            let row = dataset.train().row(row)?;
            match layout {
                Layout::Rows => counts.add(until(&row, eos), true)?,
                Layout::Packed => {
                    // A document may go on in the next block, which begins like one: samples do as well.
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

/// The documents of a text, and which of them end. Of a packed block the tokens tell, where they are those that the text was made of: lines
/// of it may be documents, or parts of one.
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

/// The documents in a packed block, the last of them cut. The frame of begin and end token is no text.
fn inside<'a>(
    block: &'a [u32],
    tokenizer: &TextTokenizer,
) -> impl Iterator<Item = &'a [u32]> + use<'a> {
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let block = block.strip_prefix(&[bos]).unwrap_or(block);
    let block = block.strip_suffix(&[eos]).unwrap_or(block);
    block.split(move |token| *token == eos)
}

/// What of a row stands before its end.
fn until(row: &[u32], eos: u32) -> &[u32] {
    let end = row.iter().position(|token| *token == eos);
    &row[..end.unwrap_or(row.len())]
}
