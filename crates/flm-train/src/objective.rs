//! What the loop trains: anything that scores a network on rows of tokens.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise};
use flm_distill::{FlowMapObjective, FlowObjective, RowLosses, TimeRow};
use flm_simplex::stream::Stream;

/// What the loop trains a network towards.
pub trait Objective<B: AutodiffBackend>: Sync {
    /// Scores one part of a step's batch. Every draw comes from `draw`.
    ///
    /// `batch` is the number of sequences in all parts together, `tokens` `[rows, length]` are those of this part.
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw,
    ) -> Losses<B>;
}

/// The loss of every token of a part, and what each row was about.
pub struct Losses<B: AutodiffBackend> {
    /// Nats, `[rows, length]`.
    pub per_token: Tensor<B, 2>,
    /// A name for each row; losses are reported by name.
    pub names: Vec<&'static str>,
}

/// The generators of one part of a step.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Names the generators.
    pub stream: Stream,
    /// Chance with which residual branches drop an entry; 0 in validation.
    pub dropout: f64,
}

/// What generators are for. Numbers are part of what a seed means: never reuse one.
pub(crate) mod purpose {
    pub(crate) const TIMES: u64 = 1;
    pub(crate) const NOISE: u64 = 2;
    pub(crate) const DROPOUT: u64 = 3;
}

impl<B: AutodiffBackend> Objective<B> for FlowObjective {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw,
    ) -> Losses<B> {
        let times = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        draw.score(model, tokens, &times, |tokens, noise, rows, dropout| {
            FlowObjective::losses(self, model, tokens, noise, rows, dropout)
        })
    }
}

impl<B: AutodiffBackend> Objective<B> for FlowMapObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw,
    ) -> Losses<B> {
        let times = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        draw.score(model, tokens, &times, |tokens, noise, rows, dropout| {
            FlowMapObjective::losses(self, model, tokens, noise, rows, dropout)
        })
    }
}

impl Draw {
    /// What `losses` says of this part: of its share of the batch's `times`, with noise and dropout of its own.
    fn score<B: AutodiffBackend>(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        times: &[TimeRow],
        losses: impl FnOnce(Tensor<B, 2, Int>, Noise<B>, &[TimeRow], &mut Dropout<'_>) -> RowLosses<B>,
    ) -> Losses<B> {
        let [rows, length] = tokens.dims();
        let noise = Noise::draw(
            rows,
            length,
            model.embed().vocab_size(),
            &mut self.stream.own(purpose::NOISE),
            &tokens.device(),
        );
        let mut generator = self.stream.own(purpose::DROPOUT);
        let mut dropout = Dropout::on(self.dropout, &mut generator);
        let losses = losses(tokens, noise, &self.stream.share(times), &mut dropout);
        Losses {
            per_token: losses.per_token,
            names: losses.kinds.iter().map(|kind| kind.name()).collect(),
        }
    }
}
