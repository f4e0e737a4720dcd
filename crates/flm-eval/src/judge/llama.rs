//! Llama-family models as scorers of text: RMSNorm, rotary positions, grouped-query attention and a
//! gated MLP.
//!
//! A model is loaded from a Hugging Face folder (`config.json` and `model.safetensors`, or the
//! shards that its index lists) or from a GGUF file, such as those of SmolLM2. Scaled rotary
//! embeddings, which Llama has used since 3.1, are unsupported. No begin token is added to a text:
//! [`CausalScorer`](super::CausalScorer) gives every model the text alone.

mod config;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;
use burn::tensor::module::{attention, linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Int, Tensor};

pub use self::config::LlamaConfig;

use super::weights::Weights;
use super::{Causal, Gguf, JudgeError, tied_head};

/// A causal language model of Llama's architecture.
#[derive(Debug)]
pub struct Llama<B: Backend> {
    config: LlamaConfig,
    /// Token embedding, `[vocabulary, width]`.
    embedding: Tensor<B, 2>,
    /// Output head, `[width, vocabulary]`.
    head: Tensor<B, 2>,
    blocks: Vec<Block<B>>,
    norm: Tensor<B, 1>,
    hash: String,
}

/// The weights of one block. Linear maps are `[inputs, outputs]`, norms `[width]`.
#[derive(Debug)]
struct Block<B: Backend> {
    attention_norm: Tensor<B, 1>,
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    output: Tensor<B, 2>,
    mlp_norm: Tensor<B, 1>,
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    down: Tensor<B, 2>,
}

impl<B: Backend> Llama<B> {
    /// Loads a model from a folder.
    ///
    /// # Errors
    ///
    /// Returns a [`JudgeError`] if a file cannot be read or is not part of a supported Llama model.
    pub fn load(folder: &Path, device: &B::Device) -> Result<Self, JudgeError> {
        let config = LlamaConfig::read(&folder.join("config.json"))?;
        // Old files contain the rotary frequencies as constants of every block.
        let weights = Weights::read(folder, "model.", |name| name.ends_with(".inv_freq"))?;
        Self::new(config, weights, device)
    }

    /// Loads a model from a GGUF file.
    ///
    /// # Errors
    ///
    /// Returns a [`JudgeError`] if the file is not a supported Llama model.
    pub fn from_gguf(file: &Gguf, device: &B::Device) -> Result<Self, JudgeError> {
        let config = LlamaConfig::of_gguf(file)?;
        let mut tensors = BTreeMap::new();
        for (found, (shape, values)) in file.tensors()? {
            let Some(name) = name_of(&found) else {
                return Err(JudgeError::Tensor {
                    path: file.path().to_path_buf(),
                    name: found,
                    reason: format!("of shape {shape:?} does not belong to a Llama model"),
                });
            };
            let heads = match name.rsplit('.').nth(1) {
                Some("q_proj") => config.heads,
                Some("k_proj") => config.key_heads,
                _ => 0,
            };
            let values = match shape[..] {
                [rows, inputs] if heads > 0 && rows.is_multiple_of(2 * heads) => {
                    in_halves(&values, rows / heads, inputs)
                }
                _ => values,
            };
            tensors.insert(name, (shape, values));
        }
        let weights = Weights::new(file.path(), tensors, file.hash());
        Self::new(config, weights, device)
    }

    fn new(
        config: LlamaConfig,
        mut weights: Weights,
        device: &B::Device,
    ) -> Result<Self, JudgeError> {
        let LlamaConfig { width, hidden, .. } = config;
        let (queries, keys) = (
            config.heads * config.head_width,
            config.key_heads * config.head_width,
        );
        if config.tied {
            weights.untie("lm_head.weight", "embed_tokens.weight")?;
        }
        let mut blocks = Vec::new();
        let embedding: Tensor<B, 2> =
            weights.take("embed_tokens.weight", [config.vocabulary, width], device)?;
        for i in 0..config.blocks {
            let mut map = |name: &str, [inputs, outputs]: [usize; 2]| {
                let name = format!("layers.{i}.{name}.weight");
                let found = weights.take::<B, 2>(&name, [outputs, inputs], device)?;
                Ok::<_, JudgeError>(tied_head(&found, device))
            };
            let (query, key, value, output) = (
                map("self_attn.q_proj", [width, queries])?,
                map("self_attn.k_proj", [width, keys])?,
                map("self_attn.v_proj", [width, keys])?,
                map("self_attn.o_proj", [queries, width])?,
            );
            let (gate, up, down) = (
                map("mlp.gate_proj", [width, hidden])?,
                map("mlp.up_proj", [width, hidden])?,
                map("mlp.down_proj", [hidden, width])?,
            );
            let mut norm =
                |name: &str| weights.take(&format!("layers.{i}.{name}.weight"), [width], device);
            blocks.push(Block {
                attention_norm: norm("input_layernorm")?,
                mlp_norm: norm("post_attention_layernorm")?,
                query,
                key,
                value,
                output,
                gate,
                up,
                down,
            });
        }
        let norm = weights.take("norm.weight", [width], device)?;
        let head = if config.tied {
            tied_head(&embedding, device)
        } else {
            let head = weights.take("lm_head.weight", [config.vocabulary, width], device)?;
            tied_head(&head, device)
        };
        weights.finish("Llama")?;
        Ok(Self {
            hash: weights.hash().to_owned(),
            config,
            embedding,
            head,
            blocks,
            norm,
        })
    }

    /// Returns the sizes of the model.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Applies RMSNorm: x over its root mean square, times a weight.
    fn normed(&self, x: &Tensor<B, 3>, weight: &Tensor<B, 1>) -> Tensor<B, 3> {
        let square = x.clone().square().mean_dim(2);
        let size = square.add_scalar(self.config.epsilon).sqrt();
        x.clone() / size * weight.clone().unsqueeze()
    }

    fn attend(&self, block: &Block<B>, x: &Tensor<B, 3>, turn: &[Tensor<B, 4>; 2]) -> Tensor<B, 3> {
        let [batch, length, _] = x.dims();
        let LlamaConfig {
            heads,
            key_heads,
            head_width,
            ..
        } = self.config;
        let part = |map: &Tensor<B, 2>, heads: usize| {
            linear(x.clone(), map.clone(), None)
                .reshape([batch, length, heads, head_width])
                .swap_dims(1, 2)
        };
        // Each key head serves a group of consecutive query heads.
        let repeated = |x: Tensor<B, 4>| {
            let group = heads / key_heads;
            x.unsqueeze_dim::<5>(2)
                .expand([batch, key_heads, group, length, head_width])
                .reshape([batch, heads, length, head_width])
        };
        let options = AttentionModuleOptions {
            is_causal: true,
            ..Default::default()
        };
        let mixed = attention(
            turned(part(&block.query, heads), turn),
            repeated(turned(part(&block.key, key_heads), turn)),
            repeated(part(&block.value, key_heads)),
            None,
            None,
            options,
        );
        let mixed = mixed
            .swap_dims(1, 2)
            .reshape([batch, length, heads * head_width]);
        linear(mixed, block.output.clone(), None)
    }

    /// Returns the cosines and sines of the rotary angles, `[1, 1, length, half a head]`.
    fn turn(&self, length: usize, device: &B::Device) -> [Tensor<B, 4>; 2] {
        let half = self.config.head_width / 2;
        let angle = |i: usize| {
            let (position, place) = (i / half, i % half);
            position as f64 * self.config.theta.powf(-(place as f64) / half as f64)
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..length * half).map(|i| f(angle(i)) as f32).collect();
            let values = burn::tensor::TensorData::new(values, [1, 1, length, half]);
            Tensor::from_data(values, device)
        };
        [table(f64::cos), table(f64::sin)]
    }
}

impl<B: Backend> Causal<B> for Llama<B> {
    fn name(&self) -> String {
        format!("llama-{}x{}", self.config.blocks, self.config.width)
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    fn positions(&self) -> usize {
        self.config.positions
    }

    fn head(&self) -> &Tensor<B, 2> {
        &self.head
    }

    fn hidden(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, length] = tokens.dims();
        let turn = self.turn(length, &tokens.device());
        let ids = tokens.reshape([batch * length]);
        let rows = self.embedding.clone().select(0, ids);
        let mut x = rows.reshape([batch, length, self.config.width]);
        for block in &self.blocks {
            let seen = self.normed(&x, &block.attention_norm);
            x = x + self.attend(block, &seen, &turn);
            let seen = self.normed(&x, &block.mlp_norm);
            let gate = silu(linear(seen.clone(), block.gate.clone(), None));
            let inner = gate * linear(seen, block.up.clone(), None);
            x = x + linear(inner, block.down.clone(), None);
        }
        self.normed(&x, &self.norm)
    }
}

/// Rotates the first half of each head's entries against the second.
fn turned<B: Backend>(x: Tensor<B, 4>, [cos, sin]: &[Tensor<B, 4>; 2]) -> Tensor<B, 4> {
    let [.., width] = x.dims();
    let half = |first: usize| x.clone().narrow(3, first, width / 2);
    let (a, b) = (half(0), half(width / 2));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos.clone() + a * sin.clone();
    Tensor::cat(vec![first, second], 3)
}

/// Converts a GGUF tensor name to its Hugging Face name without the prefix.
fn name_of(name: &str) -> Option<String> {
    let plain = match name {
        "token_embd.weight" => Some("embed_tokens.weight".to_owned()),
        "output_norm.weight" => Some("norm.weight".to_owned()),
        "output.weight" => Some("lm_head.weight".to_owned()),
        _ => None,
    };
    let of_block = || {
        let (number, part) = name.strip_prefix("blk.")?.split_once('.')?;
        let part = match part.strip_suffix(".weight")? {
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "ffn_norm" => "post_attention_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            _ => return None,
        };
        Some(format!("layers.{number}.{part}.weight"))
    };
    plain.or_else(of_block)
}

/// Reorders query or key rows from GGUF's layout to that of Hugging Face. GGUF rotates adjacent
/// entries of a head as a pair, Hugging Face those half a head apart.
fn in_halves(values: &[f32], head_width: usize, inputs: usize) -> Vec<f32> {
    let head = |rows: &[f32]| -> Vec<f32> {
        let row = |place: usize| {
            let from = place % (head_width / 2) * 2 + place / (head_width / 2);
            rows[from * inputs..][..inputs].to_vec()
        };
        (0..head_width).flat_map(row).collect()
    };
    values
        .chunks_exact(head_width * inputs)
        .flat_map(head)
        .collect()
}

#[cfg(test)]
mod tests;
