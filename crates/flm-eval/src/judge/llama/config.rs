//! Configuration of Llama-family models.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::judge::{Gguf, JudgeError};

/// The sizes of a Llama model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Number of positions, the maximum sequence length.
    pub positions: usize,
    /// Width.
    pub width: usize,
    /// Hidden width of the MLP.
    pub hidden: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`.
    pub key_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// ε of every RMSNorm.
    pub epsilon: f64,
    /// Base of the rotary frequencies.
    pub theta: f64,
    /// Whether the output head shares its weight with the token embedding.
    pub tied: bool,
}

/// The fields of `config.json`.
#[derive(Deserialize)]
struct Published {
    #[serde(default)]
    model_type: String,
    vocab_size: usize,
    max_position_embeddings: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f64,
    #[serde(default = "theta")]
    rope_theta: f64,
    #[serde(default)]
    rope_scaling: Option<serde_json::Value>,
    /// The format of newer files.
    #[serde(default)]
    rope_parameters: Option<Rotation>,
    #[serde(default)]
    partial_rotary_factor: Option<f64>,
    #[serde(default = "activation")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

#[derive(Deserialize)]
struct Rotation {
    #[serde(default = "theta")]
    rope_theta: f64,
    #[serde(default = "plain")]
    rope_type: String,
}

fn plain() -> String {
    "default".to_owned()
}

fn theta() -> f64 {
    10_000.0
}

fn activation() -> String {
    "silu".to_owned()
}

/// The largest valid size of any kind.
const LARGEST: usize = 1 << 24;

impl LlamaConfig {
    /// Reads a `config.json` file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read or describes another architecture.
    pub fn read(path: &Path) -> Result<Self, JudgeError> {
        let text = fs::read_to_string(path).map_err(JudgeError::io(path))?;
        let read: Published = serde_json::from_str(&text).map_err(|source| JudgeError::Config {
            path: path.to_path_buf(),
            source,
        })?;
        let refuse = |key: &str, expected, found: String| JudgeError::Setting {
            path: path.to_path_buf(),
            key: key.to_owned(),
            expected,
            found,
        };
        if read.model_type != "llama" {
            return Err(refuse("model_type", "llama", read.model_type));
        }
        if read.hidden_act != "silu" {
            return Err(refuse("hidden_act", "silu", read.hidden_act));
        }
        if let Some(scaling) = read.rope_scaling {
            return Err(refuse("rope_scaling", "null", scaling.to_string()));
        }
        if let Some(part) = read.partial_rotary_factor.filter(|part| *part != 1.0) {
            return Err(refuse("partial_rotary_factor", "1", part.to_string()));
        }
        let rotation = read.rope_parameters;
        if let Some(rotation) = rotation.iter().find(|found| found.rope_type != plain()) {
            let found = rotation.rope_type.clone();
            return Err(refuse("rope_type", "default", found));
        }
        for (key, found) in [
            ("attention_bias", read.attention_bias),
            ("mlp_bias", read.mlp_bias),
        ] {
            if found {
                return Err(refuse(key, "false", "true".to_owned()));
            }
        }
        let heads = read.num_attention_heads;
        let config = Self {
            vocabulary: read.vocab_size,
            positions: read.max_position_embeddings,
            width: read.hidden_size,
            hidden: read.intermediate_size,
            blocks: read.num_hidden_layers,
            heads,
            key_heads: read.num_key_value_heads.unwrap_or(heads),
            head_width: read.head_dim.unwrap_or(read.hidden_size / heads.max(1)),
            epsilon: read.rms_norm_eps,
            theta: rotation.map_or(read.rope_theta, |rotation| rotation.rope_theta),
            tied: read.tie_word_embeddings,
        };
        let names = [
            "vocab_size",
            "max_position_embeddings",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
        ];
        config.check(names, &refuse)?;
        Ok(config)
    }

    /// Reads the sizes from the metadata of a GGUF file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file has another architecture or a setting is missing.
    pub fn of_gguf(file: &Gguf) -> Result<Self, JudgeError> {
        let refuse = |key: &str, expected, found| file.setting(key, expected, found);
        let architecture = file.text("general.architecture")?;
        if architecture != "llama" {
            return Err(refuse(
                "general.architecture",
                "llama",
                architecture.to_owned(),
            ));
        }
        let key = "llama.rope.scaling.type";
        if file.has(key) && file.text(key)? != "none" {
            return Err(refuse(key, "none", file.text(key)?.to_owned()));
        }
        let key = "llama.rope.scale_linear";
        if file.has(key) && file.number(key)? != 1.0 {
            return Err(refuse(key, "1", file.number(key)?.to_string()));
        }
        let heads = file.size("llama.attention.head_count")?;
        let width = file.size("llama.embedding_length")?;
        let or = |key: &str, otherwise: usize| {
            if file.has(key) {
                file.size(key)
            } else {
                Ok(otherwise)
            }
        };
        let config = Self {
            vocabulary: file.rows("token_embd.weight")?,
            positions: file.size("llama.context_length")?,
            width,
            hidden: file.size("llama.feed_forward_length")?,
            blocks: file.size("llama.block_count")?,
            heads,
            key_heads: or("llama.attention.head_count_kv", heads)?,
            head_width: or("llama.attention.key_length", width / heads.max(1))?,
            epsilon: file.number("llama.attention.layer_norm_rms_epsilon")?,
            theta: if file.has("llama.rope.freq_base") {
                file.number("llama.rope.freq_base")?
            } else {
                theta()
            },
            tied: file.rows("output.weight").is_err(),
        };
        let names = [
            "token_embd.weight",
            "llama.context_length",
            "llama.embedding_length",
            "llama.feed_forward_length",
            "llama.block_count",
            "llama.attention.head_count",
            "llama.attention.head_count_kv",
            "llama.attention.key_length",
        ];
        config.check(names, &refuse)?;
        let key = "llama.rope.dimension_count";
        if file.has(key) && file.size(key)? != config.head_width {
            let found = file.size(key)?.to_string();
            return Err(refuse(key, "the width of a head", found));
        }
        Ok(config)
    }

    /// Rejects invalid sizes. `names` are the keys of vocabulary, positions, width, hidden width,
    /// blocks, heads, key heads and head width, for errors.
    fn check(
        &self,
        names: [&str; 8],
        refuse: &dyn Fn(&str, &'static str, String) -> JudgeError,
    ) -> Result<(), JudgeError> {
        let sizes = [
            self.vocabulary,
            self.positions,
            self.width,
            self.hidden,
            self.blocks,
            self.heads,
            self.key_heads,
            self.head_width,
        ];
        for (name, size) in names.into_iter().zip(sizes) {
            if size == 0 || size > LARGEST {
                return Err(refuse(
                    name,
                    "a size from 1 to 16,777,216",
                    size.to_string(),
                ));
            }
        }
        for (name, value) in [
            ("the norm epsilon", self.epsilon),
            ("the rotary base", self.theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(refuse(name, "positive and finite", value.to_string()));
            }
        }
        if !self.heads.is_multiple_of(self.key_heads) {
            let found = self.key_heads.to_string();
            return Err(refuse(names[6], "a divisor of the number of heads", found));
        }
        if !self.head_width.is_multiple_of(2) {
            let found = self.head_width.to_string();
            return Err(refuse(names[7], "an even head width", found));
        }
        Ok(())
    }
}
