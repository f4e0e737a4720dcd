//! The configuration: what a preset or a file may say.

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

/// Everything that can be set, in the sections of a preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) data: DataSettings,
    pub(crate) model: ModelSettings,
    pub(crate) train: TrainConfig,
    /// How a model of family `duo` begins to learn.
    pub(crate) curriculum: CurriculumConfig,
    pub(crate) distill: DistillSettings,
    pub(crate) sample: SampleSettings,
}

/// `[data]`: how a corpus becomes rows of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DataSettings {
    /// `grammar`, a file or a folder of files, or `dataset:` and the name of a data set, whose manifest then says all below.
    pub(crate) source: String,
    /// Number of grammar sentences.
    pub(crate) sentences: u64,
    /// Seed of these sentences.
    pub(crate) seed: u64,
    /// What a document is in a text file.
    pub(crate) unit: Unit,
    /// Column of Parquet files, or field of JSON lines, with the text.
    pub(crate) column: String,
    /// What makes ordinary text of the corpus.
    pub(crate) detokenizer: Detokenizer,
    /// `words`, `chars`, `bpe:N`, or a `tokenizer.json`.
    pub(crate) tokenizer: String,
    /// Tokens in a row.
    pub(crate) length: usize,
    /// What a row holds.
    pub(crate) layout: Layout,
    /// Share of documents for validation.
    pub(crate) validation_share: f64,
}

/// What a document is in a text file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Every line.
    #[default]
    Lines,
    /// The whole file, one long text.
    Whole,
    /// The definition in each line of WordNet's data files.
    Glosses,
}

/// `[model]`: what the network is for, and its sizes that the data does not decide.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelSettings {
    /// `flow`, `mdlm`, `duo` or `autoregressive`.
    pub(crate) family: Family,
    pub(crate) width: usize,
    pub(crate) blocks: usize,
    pub(crate) heads: usize,
    pub(crate) cond_dim: usize,
    pub(crate) dropout: f64,
    pub(crate) mlp_ratio: usize,
    pub(crate) attention_softcap: f64,
    pub(crate) logit_softcap: f64,
    pub(crate) rope_base: f64,
    pub(crate) register_token: bool,
    pub(crate) schedule_vocab: usize,
    pub(crate) clock: Vec<f64>,
    pub(crate) evidence: bool,
}

/// `[distill]`: from the flow to its flow map, or from many steps of another model to a few.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DistillSettings {
    /// Model folder of the teacher; empty for self-distillation.
    pub(crate) teacher: String,
    pub(crate) flow_map: FlowMapConfig,
    /// Model folder of the flow map that the distribution objective starts from; empty for the teacher itself.
    pub(crate) start: String,
    /// Of the distribution objective.
    pub(crate) distribution: DistributionConfig,
    /// Of a masked diffusion.
    pub(crate) sdtt: SdttConfig,
    /// Of a uniform-state diffusion.
    pub(crate) dcd: DcdConfig,
    /// Of one round, where there are several.
    pub(crate) train: TrainConfig,
}

/// `[sample]`: how much is drawn and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SampleSettings {
    /// Samples for each row of the table.
    pub(crate) count: usize,
    /// Samples drawn together.
    pub(crate) batch: usize,
    /// Seed of the noise.
    pub(crate) seed: u64,
    /// Share of noise put back after each jump of the flow map.
    pub(crate) gamma: f64,
    /// Divides the logits.
    pub(crate) temperature: f64,
    /// Scales the noise that samples start from.
    pub(crate) noise_scale: f64,
    /// How the quickstart samples its flow.
    pub(crate) sampler: Sampler,
    /// Steps at which the quickstart samples the flow.
    pub(crate) flm_steps: Vec<usize>,
    /// Steps at which the quickstart samples the flow map.
    pub(crate) fmlm_steps: Vec<usize>,
}

impl Config {
    /// The settings by which a model is trained or, `distilled`, made of another.
    pub(crate) fn training(&self, distilled: bool) -> &TrainConfig {
        if distilled {
            &self.distill.train
        } else {
            &self.train
        }
    }

    /// The same, to be changed.
    pub(crate) fn training_mut(&mut self, distilled: bool) -> &mut TrainConfig {
        if distilled {
            &mut self.distill.train
        } else {
            &mut self.train
        }
    }

    /// The numbers of training steps of another configuration.
    pub(crate) fn take_steps(&mut self, other: &Self) {
        for distilled in [false, true] {
            self.training_mut(distilled).steps = other.training(distilled).steps;
        }
    }

    /// As it is kept beside a quickstart, which prepares its data itself.
    pub(crate) fn whole(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(unwritable)
    }

    /// As it is kept beside a run and its model: without `[data]`, which is decided when data is prepared.
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
    /// β₂ is 0.95, as published: targets move, so old gradients are forgotten sooner.
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
    /// The settings of a network that is there.
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

    /// The sizes of a network for a vocabulary and a length, checked.
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
    /// Whether the built-in grammar is the corpus.
    pub(crate) fn is_grammar(&self) -> bool {
        self.source == "grammar"
    }

    /// The data set that is the corpus, if it is one with a manifest.
    pub(crate) fn dataset(&self) -> Option<&str> {
        self.source.strip_prefix("dataset:")
    }

    /// What a document is, as the reader of files has it.
    pub(crate) fn text_unit(&self) -> TextUnit {
        match self.unit {
            Unit::Lines => TextUnit::Lines,
            Unit::Whole => TextUnit::Whole,
            Unit::Glosses => TextUnit::Glosses,
        }
    }
}

/// What is meant by `words`, `chars`, `bpe:N` or the path of a tokenizer.json.
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
    /// Checks that something can be drawn.
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
