//! Configuration of GPT-2 models.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::judge::JudgeError;

/// The sizes of a GPT-2 model. The fields have the names of `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Gpt2Config {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Number of positions, the maximum sequence length.
    pub n_positions: usize,
    /// Width.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of attention heads.
    pub n_head: usize,
    /// Hidden width of the MLP; four times the width by default.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// ε of every LayerNorm.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    #[serde(default = "activation")]
    activation_function: String,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

fn epsilon() -> f64 {
    1e-5
}

fn activation() -> String {
    "gelu_new".to_owned()
}

fn yes() -> bool {
    true
}

/// Limit on the numbers in one tensor. The largest tensor of any GPT-2 has 80 million.
const MOST: usize = 1 << 32;

impl Gpt2Config {
    /// Reads a `config.json` file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read or does not describe a GPT-2 model.
    pub fn read(path: &Path) -> Result<Self, JudgeError> {
        let text = fs::read_to_string(path).map_err(JudgeError::io(path))?;
        let config: Self = serde_json::from_str(&text).map_err(|source| JudgeError::Config {
            path: path.to_path_buf(),
            source,
        })?;
        config.check(path)?;
        Ok(config)
    }

    /// Returns the hidden width of the MLP.
    pub fn hidden(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Rejects other architectures and invalid sizes.
    fn check(&self, path: &Path) -> Result<(), JudgeError> {
        let refuse = |key: &'static str, expected: &'static str, found: String| {
            Err(JudgeError::Setting {
                path: PathBuf::from(path),
                key: key.to_owned(),
                expected,
                found,
            })
        };
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
        ] {
            if size == 0 || size > 1 << 24 {
                return refuse(key, "a size from 1 to 16,777,216", size.to_string());
            }
        }
        let largest = self.vocab_size.max(3 * self.n_embd).max(self.hidden());
        if largest.saturating_mul(self.n_embd) > MOST {
            return refuse(
                "n_embd",
                "a matrix of at most 2^32 numbers",
                self.n_embd.to_string(),
            );
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return refuse("n_head", "a divisor of n_embd", self.n_head.to_string());
        }
        if self.activation_function != "gelu_new" {
            return refuse(
                "activation_function",
                "gelu_new, as in GPT-2",
                self.activation_function.clone(),
            );
        }
        for (key, found, expected) in [
            ("scale_attn_weights", self.scale_attn_weights, true),
            (
                "scale_attn_by_inverse_layer_idx",
                self.scale_attn_by_inverse_layer_idx,
                false,
            ),
            ("tie_word_embeddings", self.tie_word_embeddings, true),
            ("add_cross_attention", self.add_cross_attention, false),
        ] {
            if found != expected {
                let expected = if expected {
                    "true, as in GPT-2"
                } else {
                    "false, as in GPT-2"
                };
                return refuse(key, expected, found.to_string());
            }
        }
        Ok(())
    }
}
