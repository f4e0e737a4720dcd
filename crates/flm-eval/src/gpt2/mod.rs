//! GPT-2 as a judge of text, loaded from a folder of the Hugging Face hub.
//!
//! All sizes, from `gpt2` to `gpt2-xl`: the folder holds `config.json` and `model.safetensors`, or the parts that
//! `model.safetensors.index.json` lists. Loading is strict: a tensor that is missing, misshapen or left over is an error with its
//! name. Nothing is trained here, so there is no dropout and no gradient.
//!
//! [`Gpt2Scorer`] scores text by the reference's conventions.

mod config;
mod error;
mod scorer;
mod weights;

use std::path::Path;

use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::activation::{gelu_approximate, log_softmax};
use burn::tensor::backend::Backend;
use burn::tensor::module::{attention, linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Int, Tensor};

pub use self::config::Gpt2Config;
pub use self::error::Gpt2Error;
pub use self::scorer::{Gpt2Scorer, Retokenize};

use self::weights::Weights;

/// Rows of the vocabulary's width that are held at once: 50 MB at GPT-2's 50,257 tokens.
const ROWS: usize = 256;

/// A causal language model of GPT-2's architecture.
#[derive(Debug)]
pub struct Gpt2<B: Backend> {
    config: Gpt2Config,
    /// Token embedding, `[vocabulary, width]`.
    wte: Tensor<B, 2>,
    /// Its transpose, which the head multiplies with.
    head: Tensor<B, 2>,
    /// Position embedding, `[positions, width]`.
    wpe: Tensor<B, 2>,
    blocks: Vec<Block<B>>,
    ln_f: LayerNorm<B>,
    /// SHA-256 of the files of tensors, in hexadecimal.
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

/// A linear map: its weight `[inputs, outputs]`, as GPT-2's files have it, and its bias.
#[derive(Debug)]
struct Map<B: Backend> {
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
}

impl<B: Backend> Gpt2<B> {
    /// Reads a folder.
    ///
    /// # Errors
    ///
    /// [`Gpt2Error`] if a file cannot be read, or is not what GPT-2 is made of.
    pub fn load(folder: &Path, device: &B::Device) -> Result<Self, Gpt2Error> {
        let config = Gpt2Config::read(&folder.join("config.json"))?;
        let mut weights = Weights::read(folder, &config)?;
        let (width, hidden) = (config.n_embd, config.hidden());
        let norm = |weights: &mut Weights, name: String| {
            let mut norm = LayerNormConfig::new(width)
                .with_epsilon(config.layer_norm_epsilon)
                .init(device);
            let part = weights.take(&format!("{name}.weight"), [width], device)?;
            norm.gamma = Param::from_tensor(part);
            let part = weights.take(&format!("{name}.bias"), [width], device)?;
            norm.beta = Some(Param::from_tensor(part));
            Ok::<_, Gpt2Error>(norm)
        };
        let map = |weights: &mut Weights, name: String, [inputs, outputs]: [usize; 2]| {
            Ok::<_, Gpt2Error>(Map {
                weight: weights.take(&format!("{name}.weight"), [inputs, outputs], device)?,
                bias: weights.take(&format!("{name}.bias"), [outputs], device)?,
            })
        };
        let wte: Tensor<B, 2> = weights.take("wte.weight", [config.vocab_size, width], device)?;
        let wpe = weights.take("wpe.weight", [config.n_positions, width], device)?;
        // As many as there are tensors for, whatever is said.
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
        weights.finish()?;
        // In row order: matrix products want it so, and would copy it every time.
        let head = Tensor::from_data(wte.clone().transpose().into_data(), device);
        Ok(Self {
            hash: weights.hash().to_owned(),
            config,
            wte,
            head,
            wpe,
            blocks,
            ln_f,
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// SHA-256 of the files of tensors, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// −ln p of every token after the first of each sequence, given those before it: from tokens `[batch, length]` nats
    /// `[batch, length − 1]`.
    ///
    /// # Panics
    ///
    /// If sequences are shorter than two tokens or longer than the model has positions; [`Gpt2Scorer`] sees to it.
    pub fn nats(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        assert!(
            (2..=self.config.n_positions).contains(&length),
            "sequences of 2 to {} tokens, found {length}",
            self.config.n_positions
        );
        let width = self.config.n_embd;
        let hidden = self.hidden(tokens.clone()).narrow(1, 0, length - 1);
        let hidden = hidden.reshape([batch * (length - 1), width]);
        let next = tokens
            .narrow(1, 1, length - 1)
            .reshape([batch * (length - 1), 1]);
        let count = batch * (length - 1);
        let nats = (0..count).step_by(ROWS).map(|first| {
            let rows = ROWS.min(count - first);
            let logits = hidden
                .clone()
                .narrow(0, first, rows)
                .matmul(self.head.clone());
            log_softmax(logits, 1)
                .gather(1, next.clone().narrow(0, first, rows))
                .neg()
        });
        Tensor::cat(nats.collect(), 0).reshape([batch, length - 1])
    }

    /// What the head sees, `[batch, length, width]`.
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

impl<B: Backend> Map<B> {
    fn map(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        linear(x, self.weight.clone(), Some(self.bias.clone()))
    }
}

#[cfg(test)]
mod tests;
