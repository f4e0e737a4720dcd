//! Scoring with pretrained causal language models: GPT-2 and the Llama family.

use super::{Features, ScoringOptions, TextSet};
use crate::{Error, Result, Watch};
use burn::tensor::backend::Backend;
use flm_data::{TOKENIZER_FILE, TextTokenizer};
use flm_eval::judge::{Causal, CausalScorer, Gguf, Gpt2, Gpt2Config, Llama, LlamaConfig};
use flm_eval::{GenPpl, Scorer};
use std::path::{Path, PathBuf};

/// A pretrained causal language model, before the weights are loaded.
pub(super) struct Pretrained {
    /// The name that it was opened by.
    name: String,
    weights: PretrainedWeights,
    tokenizer: TextTokenizer,
    positions: usize,
}

enum PretrainedWeights {
    /// A folder with GPT-2.
    Gpt2(PathBuf),
    /// A folder with a model of the Llama family.
    Llama(PathBuf),
    /// A GGUF file with a model of the Llama family.
    Gguf(Gguf),
}

impl Pretrained {
    /// Opens a Hugging Face hub folder or a GGUF file, and checks that it supports texts of
    /// `length` tokens.
    pub(super) fn find(name: &str, length: Option<usize>) -> Result<Self> {
        let fits = |positions: usize| match length {
            Some(length) if !(2..=positions).contains(&length) => Err(Error::Input(format!(
                "--score-length must lie between 2 and {positions} for --scorer {name}, found {length}"
            ))),
            _ => Ok(positions),
        };
        let path = PathBuf::from(name);
        let config = path.join("config.json");
        let (weights, tokenizer, positions) = if path.is_file() {
            let file = Gguf::read(&path)?;
            let tokenizer = TextTokenizer::from_json(&file.tokenizer()?, name)?;
            let positions = fits(LlamaConfig::of_gguf(&file)?.positions)?;
            (PretrainedWeights::Gguf(file), tokenizer, positions)
        } else if config.is_file() {
            #[derive(serde::Deserialize)]
            struct Kind {
                #[serde(default)]
                model_type: String,
            }
            let kind = serde_json::from_str::<Kind>(&read(&config)?)
                .map_or_else(|_| String::new(), |kind| kind.model_type);
            let tokenizer = || TextTokenizer::load(path.join(TOKENIZER_FILE));
            match kind.as_str() {
                "llama" => {
                    let positions = fits(LlamaConfig::read(&config)?.positions)?;
                    let tokenizer = tokenizer()?;
                    (PretrainedWeights::Llama(path), tokenizer, positions)
                }
                // The oldest GPT-2 files have no `model_type`.
                "gpt2" | "" => {
                    let positions = fits(Gpt2Config::read(&config)?.n_positions)?;
                    let tokenizer = tokenizer()?;
                    (PretrainedWeights::Gpt2(path), tokenizer, positions)
                }
                other => {
                    return Err(Error::Input(format!(
                        "{}: model_type must be gpt2 or llama, found {other}",
                        config.display()
                    )));
                }
            }
        } else {
            return Err(Error::Input(format!(
                "--scorer {name} is neither ngram:DATA[:ORDER], nor a model folder of flm, nor a GGUF file, nor a folder of GPT-2 or Llama with config.json, model.safetensors and {TOKENIZER_FILE}"
            )));
        };
        Ok(Pretrained {
            name: name.to_owned(),
            weights,
            tokenizer: tokenizer.reading_specials(),
            positions,
        })
    }

    /// Loads the weights.
    fn load<B: Backend>(&self, device: &B::Device) -> Result<Box<dyn Causal<B>>> {
        let model: Box<dyn Causal<B>> = match &self.weights {
            PretrainedWeights::Gpt2(folder) => Box::new(Gpt2::load(folder, device)?),
            PretrainedWeights::Llama(folder) => Box::new(Llama::load(folder, device)?),
            PretrainedWeights::Gguf(file) => Box::new(Llama::from_gguf(file, device)?),
        };
        let (found, expected) = (self.tokenizer.vocab_size(), model.vocabulary());
        if found != expected {
            return Err(Error::Input(format!(
                "the tokenizer in {} has {found} tokens, but its model has {expected}",
                self.name
            )));
        }
        Ok(model)
    }

    /// Creates a scorer for texts, truncated to `length` tokens.
    fn scorer<'a, B: Backend>(
        &'a self,
        model: &'a dyn Causal<B>,
        length: usize,
        batch: usize,
        device: &B::Device,
    ) -> Result<CausalScorer<'a, B, dyn Causal<B> + 'a>> {
        let tokenizer = &self.tokenizer;
        let encode = Box::new(|text: &str| Ok(tokenizer.encode(text)?));
        let (hash, eos) = (tokenizer.hash(), tokenizer.eos_id());
        let device = device.clone();
        Ok(CausalScorer::new(
            model, encode, hash, eos, length, batch, device,
        )?)
    }
}

impl Pretrained {
    /// Scores several sets.
    pub(super) fn score<B: Backend>(
        &self,
        sets: &[TextSet<'_>],
        length: Option<usize>,
        options: &ScoringOptions<B>,
        watch: Watch<'_>,
    ) -> Result<Vec<GenPpl>> {
        let model = self.load::<B>(&options.device)?;
        // One length for all sets, because scores at different lengths are not comparable.
        let longest = (sets.iter().filter_map(|set| set.tokens).flatten()).map(Vec::len);
        let known = sets.iter().all(|set| set.tokens.is_some());
        let length = match (length, longest.max()) {
            (Some(length), _) => length,
            (None, Some(longest)) if known => longest.clamp(2, self.positions),
            _ => self.positions,
        };
        let scorer = self.scorer(&*model, length, options.batch, &options.device)?;
        let mut done = 0;
        let mut scores = Vec::with_capacity(sets.len());
        for set in sets {
            if !watch(done, scorer.identity()) {
                return Err(Error::Cancelled {
                    work: "texts were scored",
                });
            }
            scores.push(GenPpl::of(&scorer, set.texts)?);
            done += set.texts.len() as u64;
            watch(done, scorer.identity());
        }
        Ok(scores)
    }

    /// Computes features of several lists of texts.
    pub(super) fn features<B: Backend>(
        &self,
        texts: &[&[String]],
        length: Option<usize>,
        options: &ScoringOptions<B>,
        watch: Watch<'_>,
    ) -> Result<Features> {
        let model = self.load::<B>(&options.device)?;
        let length = length.unwrap_or(self.positions);
        let scorer = self.scorer(&*model, length, options.batch, &options.device)?;
        let mut done = 0;
        let mut lists = Vec::with_capacity(texts.len());
        for texts in texts {
            if !watch(done, scorer.identity()) {
                return Err(Error::Cancelled {
                    work: "features were computed",
                });
            }
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            lists.push(scorer.features(&texts)?);
            done += texts.len() as u64;
            watch(done, scorer.identity());
        }
        Ok(Features {
            scorer: scorer.identity().to_owned(),
            lists,
        })
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}
