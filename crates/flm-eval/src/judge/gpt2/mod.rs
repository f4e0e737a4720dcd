//! GPT-2 as a scorer of text, loaded from a Hugging Face folder.
//!
//! All sizes from `gpt2` to `gpt2-xl` are supported. The folder holds `config.json` and
//! `model.safetensors`, or the shards that `model.safetensors.index.json` lists.

mod config;

use std::path::Path;

use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::activation::gelu_approximate;
use burn::tensor::backend::Backend;
use burn::tensor::module::{attention, linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Int, Tensor};

pub use self::config::Gpt2Config;

use super::weights::Weights;
use super::{Causal, JudgeError, tied_head};

/// Prefix of the tensor names of a model with an output head.
const PREFIX: &str = "transformer.";

/// A causal language model of GPT-2's architecture.
#[derive(Debug)]
pub struct Gpt2<B: Backend> {
    config: Gpt2Config,
    /// Token embedding, `[vocabulary, width]`.
    wte: Tensor<B, 2>,
    /// The transposed token embedding: the output head, `[width, vocabulary]`.
    head: Tensor<B, 2>,
    /// Position embedding, `[positions, width]`.
    wpe: Tensor<B, 2>,
    blocks: Vec<Block<B>>,
    ln_f: LayerNorm<B>,
    /// SHA-256 of the weight files, in hexadecimal.
    hash: String,
}

#[derive(Debug)]
struct Block<B: Backend> {
    ln_1: LayerNorm<B>,
    c_attn: Map<B>,
    c_proj: Map<B>,
    ln_2: LayerNorm<B>,
    c_fc: Map<B>,
    mlp_c_proj: Map<B>,
}

/// A linear map: its bias and its weight, `[inputs, outputs]` as in GPT-2's files.
#[derive(Debug)]
struct Map<B: Backend> {
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
}

impl<B: Backend> Gpt2<B> {
    /// Loads a model from a folder.
    ///
    /// # Errors
    ///
    /// Returns a [`JudgeError`] if a file cannot be read or is not part of a GPT-2 model.
    pub fn load(folder: &Path, device: &B::Device) -> Result<Self, JudgeError> {
        let config = Gpt2Config::read(&folder.join("config.json"))?;
        let mut weights = Weights::read(folder, PREFIX, is_mask)?;
        weights.untie("lm_head.weight", "wte.weight")?;
        let (width, hidden) = (config.n_embd, config.hidden());
        let norm = |weights: &mut Weights, name: String| {
            let mut norm = LayerNormConfig::new(width)
                .with_epsilon(config.layer_norm_epsilon)
                .init(device);
            let part = weights.take(&format!("{name}.weight"), [width], device)?;
            norm.gamma = Param::from_tensor(part);
            let part = weights.take(&format!("{name}.bias"), [width], device)?;
            norm.beta = Some(Param::from_tensor(part));
            Ok::<_, JudgeError>(norm)
        };
        let map = |weights: &mut Weights, name: String, [inputs, outputs]: [usize; 2]| {
            Ok::<_, JudgeError>(Map {
                weight: weights.take(&format!("{name}.weight"), [inputs, outputs], device)?,
                bias: weights.take(&format!("{name}.bias"), [outputs], device)?,
            })
        };
        let wte: Tensor<B, 2> = weights.take("wte.weight", [config.vocab_size, width], device)?;
        let wpe = weights.take("wpe.weight", [config.n_positions, width], device)?;
        // Not preallocated: a wrong `n_layer` fails at the first missing tensor.
        let mut blocks = Vec::new();
        for i in 0..config.n_layer {
            blocks.push(Block {
                ln_1: norm(&mut weights, format!("h.{i}.ln_1"))?,
                c_attn: map(
                    &mut weights,
                    format!("h.{i}.attn.c_attn"),
                    [width, 3 * width],
                )?,
                c_proj: map(&mut weights, format!("h.{i}.attn.c_proj"), [width, width])?,
                ln_2: norm(&mut weights, format!("h.{i}.ln_2"))?,
                c_fc: map(&mut weights, format!("h.{i}.mlp.c_fc"), [width, hidden])?,
                mlp_c_proj: map(&mut weights, format!("h.{i}.mlp.c_proj"), [hidden, width])?,
            });
        }
        let ln_f = norm(&mut weights, "ln_f".to_owned())?;
        weights.finish("GPT-2")?;
        Ok(Self {
            hash: weights.hash().to_owned(),
            config,
            head: tied_head(&wte, device),
            wte,
            wpe,
            blocks,
            ln_f,
        })
    }

    /// Returns the sizes of the model.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    fn attend(&self, block: &Block<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, length, width] = x.dims();
        let heads = self.config.n_head;
        let all = block.c_attn.map(x);
        let part = |i: usize| {
            all.clone()
                .narrow(2, i * width, width)
                .reshape([batch, length, heads, width / heads])
                .swap_dims(1, 2)
        };
        let options = AttentionModuleOptions {
            is_causal: true,
            ..Default::default()
        };
        let mixed = attention(part(0), part(1), part(2), None, None, options);
        let mixed = mixed.swap_dims(1, 2).reshape([batch, length, width]);
        block.c_proj.map(mixed)
    }
}

impl<B: Backend> Causal<B> for Gpt2<B> {
    fn name(&self) -> String {
        format!("gpt2-{}x{}", self.config.n_layer, self.config.n_embd)
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn positions(&self) -> usize {
        self.config.n_positions
    }

    fn head(&self) -> &Tensor<B, 2> {
        &self.head
    }

    fn hidden(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, length] = tokens.dims();
        let width = self.config.n_embd;
        let positions = self.wpe.clone().narrow(0, 0, length);
        let ids = tokens.reshape([batch * length]);
        let mut x: Tensor<B, 3> = self
            .wte
            .clone()
            .select(0, ids)
            .reshape([batch, length, width])
            + positions.unsqueeze();
        for block in &self.blocks {
            x = x.clone() + self.attend(block, block.ln_1.forward(x.clone()));
            let seen = block.ln_2.forward(x.clone());
            let inner = gelu_approximate(block.c_fc.map(seen));
            x = x + block.mlp_c_proj.map(inner);
        }
        self.ln_f.forward(x)
    }
}

impl<B: Backend> Map<B> {
    fn map(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        linear(x, self.weight.clone(), Some(self.bias.clone()))
    }
}

/// Returns whether a tensor is the causal mask, which old files contain as a constant of
/// every block.
fn is_mask(name: &str) -> bool {
    name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
}

#[cfg(test)]
mod tests;
