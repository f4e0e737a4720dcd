//! An answer that moves.

use super::{Belief, Head, Prediction};
use crate::embed::VocabEmbed;
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::dual::{self, Dual};

/// The network's answer for a batch with its derivative along a direction (a Jacobian-vector product), kept as features from
/// which the head makes probabilities and their tangents a run of positions at a time.
#[derive(Clone, Debug)]
pub struct Jvp<B: Backend> {
    /// `[batch, length, width]`.
    pub(super) features: Dual<B, 3>,
    pub(super) head: Head<B>,
}

impl<B: Backend> Jvp<B> {
    /// The denoiser's belief, without its motion.
    pub fn belief(&self) -> Belief<B> {
        let (features, head) = (self.features.value.clone(), self.head.clone());
        Prediction { features, head }.belief()
    }

    /// The mean D·E of the clean projected state, and how it moves, `[batch, length, width]`.
    pub fn mean(&self, embed: &VocabEmbed<B>) -> Dual<B, 3> {
        let embedding = embed.embedding.val();
        let [batch, length, _] = self.features.value.dims();
        let width = embedding.dims()[1];
        let (values, tangents) = self
            .head
            .runs(batch * length)
            .map(|(first, count)| {
                let run = self.rows(first, count);
                let mean = run.map(|run| flm_ops::product(run, embedding.clone()));
                (mean.value, mean.tangent)
            })
            .unzip();
        let whole = |runs| Tensor::cat(runs, 0).reshape([batch, length, width]);
        Dual {
            value: whole(values),
            tangent: whole(tangents),
        }
    }

    /// Probabilities and their tangents, V-wide, `[batch, length, vocabulary]`: for tests, not for hot paths.
    pub fn dense(&self) -> Dual<B, 3> {
        let [batch, length, _] = self.features.value.dims();
        let vocab = self.head.vocab_size();
        self.rows(0, batch * length)
            .map(|rows| rows.reshape([batch, length, vocab]))
    }

    /// Probabilities of `count` positions from `first` on, counted through the batch, and their tangents, `[count, vocabulary]`.
    pub(super) fn rows(&self, first: usize, count: usize) -> Dual<B, 2> {
        let product = self.features.clone().map(|features| {
            let [batch, length, width] = features.dims();
            let rows = features.reshape([batch * length, width]);
            self.head.product(rows.narrow(0, first, count))
        });
        dual::capped_softmax(product, self.head.bias.clone(), self.head.softcap, 1.0)
    }
}

#[cfg(test)]
mod tests;
