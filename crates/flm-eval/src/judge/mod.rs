//! Pretrained causal language models as scorers of text: [`Gpt2`] and [`Llama`].
//!
//! Both load strictly: a missing, misshapen or unexpected tensor is an error with the tensor's
//! name. The models are for inference only, without dropout and gradients. [`CausalScorer`] scores
//! text with either, by the conventions of the paper's code.

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

/// Number of logit rows computed at once: 50 MB for GPT-2's 50,257 tokens.
const ROWS: usize = 256;

/// A causal language model: the distribution of a token depends only on the tokens before it.
pub trait Causal<B: Backend> {
    /// Returns a name of the architecture and size, such as `gpt2-12x768`.
    fn name(&self) -> String;

    /// Returns the SHA-256 of the weight files, in hexadecimal.
    fn hash(&self) -> &str;

    /// Returns the number of tokens in the vocabulary.
    fn vocabulary(&self) -> usize;

    /// Returns the maximum sequence length.
    fn positions(&self) -> usize;

    /// Returns the final hidden states, `[batch, length, width]`, of tokens `[batch, length]`.
    fn hidden(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3>;

    /// Returns the weight of the output head, `[width, vocabulary]`.
    fn head(&self) -> &Tensor<B, 2>;

    /// Returns −ln p of every token after the first of each sequence, given the tokens before it.
    ///
    /// Maps tokens `[batch, length]` to nats `[batch, length − 1]`.
    ///
    /// # Panics
    ///
    /// Panics if sequences have fewer than two tokens or more than the model has positions.
    /// [`CausalScorer`] never passes such sequences.
    fn nats(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        assert!(
            (2..=self.positions()).contains(&length),
            "expected sequences of 2 to {} tokens, found {length}",
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

/// Returns the transpose of a matrix in row-major order. Matrix products need this layout and would
/// otherwise copy a transposed view every time.
fn tied_head<B: Backend>(embedding: &Tensor<B, 2>, device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(embedding.clone().transpose().into_data(), device)
}
