//! Pretrained causal language models as judges of text: [`Gpt2`] and [`Llama`].
//!
//! Both load strictly: a tensor that is missing, misshapen or left over is an error with its name. Nothing is trained here, so there is
//! no dropout and no gradient. [`CausalScorer`] scores text with either, by the conventions of the paper's code.

mod error;
mod gguf;
pub mod gpt2;
mod llama;
mod scorer;
mod weights;

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

pub use self::error::JudgeError;
pub use self::gguf::Gguf;
pub use self::gpt2::{Gpt2, Gpt2Config};
pub use self::llama::{Llama, LlamaConfig};
pub use self::scorer::{CausalScorer, Retokenize};
pub use self::weights::Tensors;

/// Rows of the vocabulary's width that are held at once: 50 MB at GPT-2's 50,257 tokens.
const ROWS: usize = 256;

/// A causal language model: what it says of a token depends on the tokens before it.
pub trait Causal<B: Backend> {
    /// Names architecture and size, such as `gpt2-12x768`.
    fn name(&self) -> String;

    /// SHA-256 of the files of tensors, in hexadecimal.
    fn hash(&self) -> &str;

    /// Tokens that it knows.
    fn vocabulary(&self) -> usize;

    /// The longest sequence that it reads.
    fn positions(&self) -> usize;

    /// What the head sees, `[batch, length, width]`, of tokens `[batch, length]`.
    fn hidden(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3>;

    /// The head's matrix, `[width, vocabulary]`.
    fn head(&self) -> &Tensor<B, 2>;

    /// −ln p of every token after the first of each sequence, given those before it: from tokens `[batch, length]` nats
    /// `[batch, length − 1]`.
    ///
    /// # Panics
    ///
    /// If sequences are shorter than two tokens or longer than the model has positions; [`CausalScorer`] sees to it.
    fn nats(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        assert!(
            (2..=self.positions()).contains(&length),
            "sequences of 2 to {} tokens, found {length}",
            self.positions()
        );
        let hidden = self.hidden(tokens.clone());
        let [_, _, width] = hidden.dims();
        let count = batch * (length - 1);
        let hidden = hidden.narrow(1, 0, length - 1).reshape([count, width]);
        let next = tokens.narrow(1, 1, length - 1).reshape([count, 1]);
        let nats = (0..count).step_by(ROWS).map(|first| {
            let rows = ROWS.min(count - first);
            let logits = hidden
                .clone()
                .narrow(0, first, rows)
                .matmul(self.head().clone());
            log_softmax(logits, 1)
                .gather(1, next.clone().narrow(0, first, rows))
                .neg()
        });
        Tensor::cat(nats.collect(), 0).reshape([batch, length - 1])
    }
}

/// The transpose of an embedding as a head, in row order: matrix products want it so, and would copy it every time.
fn tied_head<B: Backend>(embedding: &Tensor<B, 2>, device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(embedding.clone().transpose().into_data(), device)
}
