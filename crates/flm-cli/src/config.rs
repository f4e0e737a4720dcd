//! The configuration: the contents of a preset or settings file.

mod keys;

pub(crate) use keys::{Overrides, first_difference};

use crate::error::{CliError, Result};
use flm::Sampler;
use flm_data::{Detokenizer, Layout, TextUnit, TokenizerSource};
use flm_denoiser::{DitConfig, Family};
use flm_discrete::{CurriculumConfig, DcdConfig, SdttConfig};
use flm_distill::{DistributionConfig, FlowMapConfig};
use flm_train::TrainConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// All settings, in the sections of a preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) data: DataSettings,
    pub(crate) model: ModelSettings,
    pub(crate) train: TrainConfig,
    /// Curriculum of models of family `duo`.
    pub(crate) curriculum: CurriculumConfig,
    pub(crate) distill: DistillSettings,
    pub(crate) sample: SampleSettings,
}

/// `[data]`: how a corpus becomes rows of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DataSettings {
    /// `grammar`, a file, a folder of files, or `dataset:NAME`. A data set's manifest overrides the
    /// settings below.
    pub(crate) source: String,
    /// Number of grammar sentences.
    pub(crate) sentences: u64,
    /// Seed of the grammar sentences.
    pub(crate) seed: u64,
    /// The document unit of text files.
    pub(crate) unit: Unit,
    /// Column of Parquet files, or field of JSON lines, with the text.
    pub(crate) column: String,
    /// Converts tokenized corpora back to ordinary text.
    pub(crate) detokenizer: Detokenizer,
    /// `words`, `chars`, `bpe:N`, or a `tokenizer.json`.
    pub(crate) tokenizer: String,
    /// Tokens per row.
    pub(crate) length: usize,
    /// The contents of a row.
    pub(crate) layout: Layout,
    /// Share of documents for validation.
    pub(crate) validation_share: f64,
}

/// The document unit of text files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// One document per line.
    #[default]
    Lines,
    /// The whole file is one document.
    Whole,
    /// The definition in each line of WordNet's data files.
    Glosses,
}

/// `[model]`: the family of the network, and those of its sizes that do not follow from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelSettings {
    /// `flow`, `mdlm`, `duo` or `autoregressive`.
    pub(crate) family: Family,
    /// Width of the network.
    pub(crate) width: usize,
    /// Number of transformer blocks.
    pub(crate) blocks: usize,
    /// Attention heads; they divide the width.
    pub(crate) heads: usize,
    /// Width of the time embedding.
    pub(crate) cond_dim: usize,
    /// Dropout rate on both residual branches.
    pub(crate) dropout: f64,
    /// Width of the MLP as a multiple of the network's.
    pub(crate) mlp_ratio: usize,
    /// Bound of attention scores, by a scaled tanh.
    pub(crate) attention_softcap: f64,
    /// Bound of logits, by a scaled tanh.
    pub(crate) logit_softcap: f64,
    /// Base of the rotary positions.
    pub(crate) rope_base: f64,
    /// Adds a learned token before the sequence, never noised.
    pub(crate) register_token: bool,
    /// Vocabulary size in the time τ; 0 for the tokenizer's.
    pub(crate) schedule_vocab: usize,
    /// τ at equal steps of the sampler; empty for uniform τ.
    pub(crate) clock: Vec<f64>,
    /// Adds the likelihood of each token, given this position's state alone, as an input.
    pub(crate) evidence: bool,
}

/// `[distill]`: from a flow to its flow map, or from many steps of another model to few.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DistillSettings {
    /// Model folder of the teacher; empty for self-distillation.
    pub(crate) teacher: String,
    pub(crate) flow_map: FlowMapConfig,
    /// Model folder of the flow map that the distribution objective starts from; empty for the
    /// teacher itself.
    pub(crate) start: String,
    /// Settings of the distribution objective.
    pub(crate) distribution: DistributionConfig,
    /// Settings for masked diffusions.
    pub(crate) sdtt: SdttConfig,
    /// Settings for uniform-state diffusions.
    pub(crate) dcd: DcdConfig,
    /// Training settings, of one round if there are several.
    pub(crate) train: TrainConfig,
}

/// `[sample]`: the number of samples and how they are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SampleSettings {
    /// Samples per row of the results table.
    pub(crate) count: usize,
    /// Samples per batch.
    pub(crate) batch: usize,
    /// Seed of the noise.
    pub(crate) seed: u64,
    /// Share of noise put back after each jump of the flow map.
    pub(crate) gamma: f64,
    /// Divisor of the logits.
    pub(crate) temperature: f64,
    /// Scale of the initial noise.
    pub(crate) noise_scale: f64,
    /// Sampler of the quickstart's flow.
    pub(crate) sampler: Sampler,
    /// Numbers of steps at which the quickstart samples the flow.
    pub(crate) flm_steps: Vec<usize>,
    /// Numbers of steps at which the quickstart samples the flow map.
    pub(crate) fmlm_steps: Vec<usize>,
}

impl Config {
    /// Returns the settings for training a model or, if `distilled`, for distilling one.
    pub(crate) fn training(&self, distilled: bool) -> &TrainConfig {
        if distilled {
            &self.distill.train
        } else {
            &self.train
        }
    }

    /// Mutable variant of [`training`](Self::training).
    pub(crate) fn training_mut(&mut self, distilled: bool) -> &mut TrainConfig {
        if distilled {
            &mut self.distill.train
        } else {
            &mut self.train
        }
    }

    /// Copies the numbers of training steps from another configuration.
    pub(crate) fn take_steps(&mut self, other: &Self) {
        for distilled in [false, true] {
            self.training_mut(distilled).steps = other.training(distilled).steps;
        }
    }

    /// Returns the whole configuration as TOML, as a quickstart saves it.
    pub(crate) fn whole(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(unwritable)
    }

    /// Returns the configuration as TOML without `[data]`, as a run and its model save it: the data
    /// is prepared separately.
    pub(crate) fn of_run(&self) -> Result<String> {
        let mut table = toml::Table::try_from(self).map_err(unwritable)?;
        table.remove("data");
        toml::to_string_pretty(&table).map_err(unwritable)
    }
}

fn unwritable(error: toml::ser::Error) -> CliError {
    CliError::input(format!("the configuration: {error}"))
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            source: "grammar".to_owned(),
            sentences: 40_000,
            seed: 0,
            unit: Unit::default(),
            column: "text".to_owned(),
            detokenizer: Detokenizer::None,
            tokenizer: "words".to_owned(),
            length: 24,
            layout: Layout::Rows,
            validation_share: 0.02,
        }
    }
}

impl Default for ModelSettings {
    /// The published sizes.
    fn default() -> Self {
        Self::of(&DitConfig::new(2, 1, 768, 12, 12))
    }
}

impl Default for DistillSettings {
    /// β₂ is 0.95, as published: targets move, so old gradients must decay sooner.
    fn default() -> Self {
        let mut train = TrainConfig::default();
        train.optimizer.beta2 = 0.95;
        Self {
            teacher: String::new(),
            flow_map: FlowMapConfig::default(),
            start: String::new(),
            distribution: DistributionConfig::default(),
            sdtt: SdttConfig::default(),
            dcd: DcdConfig::default(),
            train,
        }
    }
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self {
            count: 1_000,
            batch: 50,
            seed: 0,
            gamma: 0.0,
            temperature: 1.0,
            noise_scale: 1.0,
            sampler: Sampler::default(),
            flm_steps: vec![1, 2, 4, 8, 32, 128],
            fmlm_steps: vec![1, 2, 4, 8],
        }
    }
}

impl ModelSettings {
    /// Returns the settings of an existing network.
    pub(crate) fn of(config: &DitConfig) -> Self {
        Self {
            family: config.family,
            width: config.width,
            blocks: config.blocks,
            heads: config.heads,
            cond_dim: config.cond_dim,
            dropout: config.dropout,
            mlp_ratio: config.mlp_ratio,
            attention_softcap: config.attention_softcap,
            logit_softcap: config.logit_softcap,
            rope_base: config.rope_base,
            register_token: config.register_token,
            schedule_vocab: config.schedule_vocab,
            clock: config.clock.clone(),
            evidence: config.evidence,
        }
    }

    /// Returns the checked network configuration for a vocabulary size and a length.
    pub(crate) fn network(
        &self,
        vocab_size: usize,
        length: usize,
        two_time: bool,
    ) -> Result<DitConfig> {
        let config = DitConfig {
            family: self.family,
            cond_dim: self.cond_dim,
            dropout: self.dropout,
            mlp_ratio: self.mlp_ratio,
            attention_softcap: self.attention_softcap,
            logit_softcap: self.logit_softcap,
            rope_base: self.rope_base,
            register_token: self.register_token,
            schedule_vocab: self.schedule_vocab,
            clock: self.clock.clone(),
            evidence: self.evidence,
            two_time,
            ..DitConfig::new(vocab_size, length, self.width, self.blocks, self.heads)
        };
        config.validate()?;
        Ok(config)
    }
}

impl DataSettings {
    /// Whether the corpus is the built-in grammar.
    pub(crate) fn is_grammar(&self) -> bool {
        self.source == "grammar"
    }

    /// Returns the name of the data set, if the corpus is one with a manifest.
    pub(crate) fn dataset(&self) -> Option<&str> {
        self.source.strip_prefix("dataset:")
    }

    /// Returns the document unit as `flm-data` defines it.
    pub(crate) fn text_unit(&self) -> TextUnit {
        match self.unit {
            Unit::Lines => TextUnit::Lines,
            Unit::Whole => TextUnit::Whole,
            Unit::Glosses => TextUnit::Glosses,
        }
    }
}

/// Parses `words`, `chars`, `bpe:N` or the path of a `tokenizer.json`.
pub(crate) fn tokenizer_source(name: &str) -> Result<TokenizerSource> {
    Ok(match name {
        "words" => TokenizerSource::Words,
        "chars" => TokenizerSource::Chars,
        other => match other.strip_prefix("bpe:") {
            Some(size) => TokenizerSource::TrainBpe(size.parse().map_err(|_| {
                CliError::input(format!(
                    "data.tokenizer `{other}` must be `bpe:` and a number of tokens"
                ))
            })?),
            None if Path::new(other).exists() => TokenizerSource::File(PathBuf::from(other)),
            None => {
                return Err(CliError::input(format!(
                    "the tokenizer must be `words`, `chars`, `bpe:N` or a tokenizer.json, but there is no file {other}"
                )));
            }
        },
    })
}

impl SampleSettings {
    /// Checks the ranges of all values.
    pub(crate) fn validate(&self) -> Result<()> {
        for (key, value) in [("sample.count", self.count), ("sample.batch", self.batch)] {
            if value == 0 {
                return Err(CliError::input(format!(
                    "{key} must be at least 1, found 0"
                )));
            }
        }
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(CliError::input(format!(
                "sample.gamma must lie between 0 and 1, found {}",
                self.gamma
            )));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let found = self.temperature;
            return Err(CliError::input(format!(
                "sample.temperature must be positive and finite, found {found}"
            )));
        }
        if !(self.noise_scale.is_finite() && self.noise_scale > 0.0) {
            let found = self.noise_scale;
            return Err(CliError::input(format!(
                "sample.noise_scale must be positive and finite, found {found}"
            )));
        }
        if self
            .flm_steps
            .iter()
            .chain(&self.fmlm_steps)
            .any(|&steps| steps == 0)
        {
            return Err(CliError::input(
                "a sampler needs at least 1 step, found 0 in sample.flm_steps or fmlm_steps",
            ));
        }
        Ok(())
    }
}
