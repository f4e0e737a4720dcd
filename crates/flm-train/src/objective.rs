//! What the loop trains: anything that scores a network on rows of tokens.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise};
use flm_distill::{FlowMapObjective, FlowObjective};
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
        let rows = draw
            .stream
            .share(&self.rows(batch, &mut draw.stream.shared(purpose::TIMES)));
        let noise = noise(model, &tokens, draw);
        let mut generator = draw.stream.own(purpose::DROPOUT);
        let mut dropout = Dropout::on(draw.dropout, &mut generator);
        named(FlowObjective::losses(
            self,
            model,
            tokens,
            noise,
            &rows,
            &mut dropout,
        ))
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
        let rows = draw
            .stream
            .share(&self.rows(batch, &mut draw.stream.shared(purpose::TIMES)));
        let noise = noise(model, &tokens, draw);
        let mut generator = draw.stream.own(purpose::DROPOUT);
        let mut dropout = Dropout::on(draw.dropout, &mut generator);
        named(FlowMapObjective::losses(
            self,
            model,
            tokens,
            noise,
            &rows,
            &mut dropout,
        ))
    }
}

fn noise<B: AutodiffBackend>(model: &Dit<B>, tokens: &Tensor<B, 2, Int>, draw: &Draw) -> Noise<B> {
    let [rows, length] = tokens.dims();
    let vocab = model.embed().vocab_size();
    Noise::draw(
        rows,
        length,
        vocab,
        &mut draw.stream.own(purpose::NOISE),
        &tokens.device(),
    )
}

fn named<B: AutodiffBackend>(losses: flm_distill::RowLosses<B>) -> Losses<B> {
    Losses {
        per_token: losses.per_token,
        names: losses.kinds.iter().map(|kind| kind.name()).collect(),
    }
}
