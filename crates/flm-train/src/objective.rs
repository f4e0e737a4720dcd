//! What the loop trains: anything that scores a network on rows of tokens.

mod discrete;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise, Prior};
use flm_discrete::{Measured, TokenLosses};
use flm_distill::{
    FlowMapObjective, FlowObjective, ResidualObjective, ResidualStudent, RowKind, RowLosses,
    TimeRow, known_positions,
};
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
        draw: &Draw<'_, B::InnerBackend>,
    ) -> Losses<B>;

    /// What a step of `batch` sequences costs, in evaluations of the network (`flm_distill::cost`).
    fn evaluations(&self, batch: usize) -> f64;

    /// Whether noise must be drawn as wide as the vocabulary, so that any network can see it.
    fn wide_noise(&self) -> bool {
        false
    }

    /// A frozen network that sees the same noise, if there is one.
    fn teacher(&self) -> Option<&Dit<B::InnerBackend>> {
        None
    }
}

/// The loss of one part of a step.
#[derive(Clone, Debug)]
pub struct Losses<B: AutodiffBackend> {
    /// What is trained, the mean over all tokens, in the graph, `[1]`.
    pub mean: Tensor<B, 1>,
    /// The loss of each token, `[rows, length]`.
    pub per_token: Tensor<B::InnerBackend, 2>,
    /// Under which name each row is reported.
    pub names: Vec<&'static str>,
    /// Means that are reported beside the loss.
    pub beside: Vec<Measured>,
}

impl<B: AutodiffBackend> From<RowLosses<B>> for Losses<B> {
    fn from(losses: RowLosses<B>) -> Self {
        Self {
            mean: losses.mean,
            per_token: losses.per_token,
            names: losses.kinds.into_iter().map(RowKind::name).collect(),
            beside: Vec::new(),
        }
    }
}

impl<B: AutodiffBackend> From<TokenLosses<B>> for Losses<B> {
    fn from(losses: TokenLosses<B>) -> Self {
        Self {
            mean: losses.mean,
            per_token: losses.per_token,
            names: losses.names,
            beside: losses.beside,
        }
    }
}

/// What one part of a step draws from.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a, B: Backend> {
    /// Names the generators.
    pub stream: Stream,
    /// The averaged weights as they stand.
    pub average: &'a Dit<B>,
    /// The noise that sequences start from.
    pub prior: &'a Prior<B>,
    /// Chance with which residual branches drop an entry; 0 in validation.
    pub dropout: f64,
}

/// What generators are for. Numbers are part of what a seed means: never reuse one.
pub(crate) mod purpose {
    pub(crate) const TIMES: u64 = 1;
    pub(crate) const NOISE: u64 = 2;
    pub(crate) const DROPOUT: u64 = 3;
    pub(crate) const CORRUPTION: u64 = 4;
    pub(crate) const KNOWN: u64 = 5;
}

impl<B: AutodiffBackend> Objective<B> for FlowObjective {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B::InnerBackend>,
    ) -> Losses<B> {
        let times = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        draw.score(tokens, &times, |tokens, noise, rows, dropout| {
            if self.conditioning() == 0.0 {
                return FlowObjective::losses(self, model, tokens, noise, rows, dropout);
            }
            let mut rng = draw.stream.own(purpose::KNOWN);
            let known = known_positions(tokens.dims(), self.conditioning(), &mut rng);
            self.losses_given(model, tokens, &known, noise, rows, dropout)
        })
    }

    fn evaluations(&self, batch: usize) -> f64 {
        FlowObjective::evaluations(self, batch)
    }
}

impl<B: AutodiffBackend> Objective<B> for FlowMapObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B::InnerBackend>,
    ) -> Losses<B> {
        let times = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        draw.score(tokens, &times, |tokens, noise, rows, dropout| {
            let average = Some(draw.average);
            FlowMapObjective::losses(self, model, average, tokens, noise, rows, dropout)
        })
    }

    fn evaluations(&self, batch: usize) -> f64 {
        FlowMapObjective::evaluations::<B>(self, batch)
    }

    fn wide_noise(&self) -> bool {
        self.is_averaged()
    }

    fn teacher(&self) -> Option<&Dit<B::InnerBackend>> {
        FlowMapObjective::teacher(self)
    }
}

impl<B: AutodiffBackend> Objective<B> for ResidualObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B::InnerBackend>,
    ) -> Losses<B> {
        let times = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        draw.score(tokens, &times, |tokens, noise, rows, dropout| {
            ResidualObjective::losses(self, model, tokens, noise, rows, dropout)
        })
    }

    fn evaluations(&self, batch: usize) -> f64 {
        ResidualObjective::evaluations(self, batch)
    }

    fn teacher(&self) -> Option<&Dit<B::InnerBackend>> {
        Some(self.denoiser())
    }
}

impl<B: AutodiffBackend> Objective<B> for ResidualStudent<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B::InnerBackend>,
    ) -> Losses<B> {
        let times = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        draw.score(tokens, &times, |tokens, noise, rows, dropout| {
            ResidualStudent::losses(self, model, tokens, noise, rows, dropout)
        })
    }

    fn evaluations(&self, batch: usize) -> f64 {
        ResidualStudent::evaluations(self, batch)
    }

    /// Three networks see it.
    fn wide_noise(&self) -> bool {
        true
    }
}

impl<P: Backend> Draw<'_, P> {
    /// What `losses` says of this part: of its share of the batch's `times`, with noise and dropout of its own.
    fn score<B: AutodiffBackend<InnerBackend = P>>(
        &self,
        tokens: Tensor<B, 2, Int>,
        times: &[TimeRow],
        losses: impl FnOnce(Tensor<B, 2, Int>, &Noise<P>, &[TimeRow], &mut Dropout<'_>) -> RowLosses<B>,
    ) -> Losses<B> {
        let [rows, length] = tokens.dims();
        let noise = self
            .prior
            .draw(rows, length, &mut self.stream.own(purpose::NOISE));
        let mut generator = self.stream.own(purpose::DROPOUT);
        let mut dropout = Dropout::on(self.dropout, &mut generator);
        losses(tokens, &noise, &self.stream.share(times), &mut dropout).into()
    }
}
