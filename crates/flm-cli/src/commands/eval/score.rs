//! Other models as judges of samples: GPT-2, the Llama family, n-gram models of a data folder, and autoregressive models of our own.

mod own;
mod pretrained;

use super::Samples;
use crate::args::DeviceArgs;
use crate::device;
use crate::error::{CliError, Result};
use clap::Args;
use flm_data::{Dataset, Layout, TextTokenizer};
use flm_eval::ngram::{NGramCounts, NGramModel};
use flm_eval::{GenPpl, Scored};
use own::{Own, OwnJob};
use pretrained::{FeaturesJob, Pretrained, PretrainedJob};
use std::path::Path;

/// By what samples are scored.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// A model that reads the samples: a folder of GPT-2, of the Llama family or of an autoregressive model of ours, a GGUF file, ngram:DATA or ngram:DATA:ORDER; may be repeated
    #[arg(long = "scorer", value_name = "SCORER")]
    pub(crate) scorers: Vec<String>,
    /// Tokens of the scorer at which a model from elsewhere cuts a sample; the samples' own length where it is not given, and for --mauve all that
    /// the model reads
    #[arg(long, value_name = "N")]
    pub(crate) score_length: Option<usize>,
    /// Samples that a network reads together; changes the speed and no figure
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) score_batch: usize,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Tokens that an n-gram model looks at, itself included, where it is not said.
const ORDER: usize = 4;

/// Texts to be scored together.
pub(crate) struct Set<'a> {
    texts: &'a [String],
    /// The model's tokens of each text, if they are known.
    tokens: Option<&'a [Vec<u32>]>,
}

impl<'a> Set<'a> {
    pub(crate) fn of(samples: &'a Samples) -> Self {
        Self {
            texts: &samples.texts,
            tokens: samples.tokens.as_deref(),
        }
    }
}

/// Who scores.
enum Judge {
    Pretrained(Box<Pretrained>),
    NGram(Box<DataNGram>),
    Own(Box<Own>),
}

/// All who score.
pub(crate) struct Judges<'a> {
    judges: Vec<Judge>,
    args: &'a ScoreArgs,
}

impl<'a> Judges<'a> {
    /// Finds the scorers that are named, and counts n-grams: what cannot score is said before anything is scored.
    pub(crate) fn open(args: &'a ScoreArgs) -> Result<Self> {
        Ok(Self {
            judges: args
                .scorers
                .iter()
                .map(|name| judge(name, args))
                .collect::<Result<_>>()?,
            args,
        })
    }

    /// What every scorer says of every set: of each set the scores in the order of the scorers. The weights of a network are read
    /// in every call.
    pub(crate) fn score(&self, sets: &[Set<'_>]) -> Result<Vec<Vec<GenPpl>>> {
        let mut scores: Vec<Vec<GenPpl>> = sets.iter().map(|_| Vec::new()).collect();
        for judge in &self.judges {
            let found = match judge {
                Judge::NGram(scorer) => {
                    let score = |set: &Set<'_>| scorer.score(set);
                    sets.iter().map(score).collect::<Result<Vec<_>>>()?
                }
                Judge::Own(own) => device::run(
                    self.args.device.device,
                    OwnJob {
                        own,
                        sets,
                        batch: self.args.score_batch,
                    },
                )?,
                Judge::Pretrained(judge) => device::run(
                    self.args.device.device,
                    PretrainedJob {
                        judge,
                        sets,
                        args: self.args,
                    },
                )?,
            };
            for (all, one) in scores.iter_mut().zip(found) {
                all.push(one);
            }
        }
        Ok(scores)
    }

    /// Whether some network that is named gives features.
    pub(crate) fn have_features(&self) -> bool {
        let pretrained = |judge: &Judge| matches!(judge, Judge::Pretrained(_));
        self.judges.iter().any(pretrained)
    }

    /// Features of every list of texts, by each pretrained network that is named: its identity, and a vector for each text of each list.
    pub(crate) fn features(&self, texts: &[&[String]]) -> Result<Vec<Features>> {
        let pretrained = self.judges.iter().filter_map(|judge| match judge {
            Judge::Pretrained(judge) => Some(judge),
            _ => None,
        });
        let features = pretrained.map(|judge| {
            let job = FeaturesJob {
                judge,
                texts,
                batch: self.args.score_batch,
                length: self.args.score_length,
            };
            device::run(self.args.device.device, job)
        });
        features.collect()
    }
}

/// What a network makes of texts.
pub(crate) struct Features {
    /// Who read them.
    pub(crate) scorer: String,
    /// Of each list of texts a vector for each.
    pub(crate) lists: Vec<Vec<Vec<f32>>>,
}

fn judge(name: &str, args: &ScoreArgs) -> Result<Judge> {
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
    if let Some(own) = Own::find(name)? {
        return Ok(Judge::Own(Box::new(own)));
    }
    let judge = Pretrained::find(name, args.score_length)?;
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

    fn score(&self, set: &Set<'_>) -> Result<GenPpl> {
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
