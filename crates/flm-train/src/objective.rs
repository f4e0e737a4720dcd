//! What the loop trains: anything that scores a network on rows of tokens.

mod discrete;

use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise, Prior};
use flm_discrete::{Measured, TokenLosses};
use flm_distill::{
    DistributionObjective, FlowMapObjective, FlowObjective, References, ResidualObjective,
    ResidualStudent, RowKind, RowLosses, TimeRow, known_positions,
};
use flm_simplex::Clock;
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
        draw: &Draw<'_, B>,
    ) -> Losses<B>;

    /// What a step of `batch` sequences costs, in evaluations of the network (`flm_distill::cost`).
    fn evaluations(&self, batch: usize) -> f64;

    /// The clock that is fitted to the losses, as it starts, if the objective can draw its times by one.
    fn clock(&self) -> Option<&Clock> {
        None
    }

    /// Whether noise must be drawn as wide as the vocabulary, so that any network can see it.
    fn wide_noise(&self) -> bool {
        false
    }

    /// A frozen network that sees the same noise, if there is one.
    fn teacher(&self) -> Option<&Dit<B::InnerBackend>> {
        None
    }

    /// How many rows of the training split a step wants for reference, as [`Draw::references`].
    fn references(&self) -> usize {
        0
    }

    /// The network that is trained beside the model, as it starts, if the objective needs one. Parts get it as
    /// [`Draw::auxiliary`], and [`Losses::mean`] includes its loss.
    fn auxiliary(&self) -> Option<Dit<B>> {
        None
    }
}

/// The loss of one part of a step.
#[derive(Clone, Debug)]
pub struct Losses<B: AutodiffBackend> {
    /// What is trained, the mean over all tokens, in the graph, `[1]`; with the auxiliary network's loss, where there is one.
    pub mean: Tensor<B, 1>,
    /// The loss of each token, `[rows, length]`.
    pub per_token: Tensor<B::InnerBackend, 2>,
    /// Under which name each row is reported.
    pub names: Vec<&'static str>,
    /// Means that are reported beside the loss.
    pub diagnostics: Vec<Measured>,
    /// τ of each row, where a clock may be fitted to the losses.
    pub taus: Vec<f64>,
}

impl<B: AutodiffBackend> From<RowLosses<B>> for Losses<B> {
    fn from(losses: RowLosses<B>) -> Self {
        Self {
            mean: losses.mean,
            per_token: losses.per_token,
            names: losses.kinds.into_iter().map(RowKind::name).collect(),
            diagnostics: Vec::new(),
            taus: Vec::new(),
        }
    }
}

impl<B: AutodiffBackend> From<TokenLosses<B>> for Losses<B> {
    fn from(losses: TokenLosses<B>) -> Self {
        Self {
            mean: losses.mean,
            per_token: losses.per_token,
            names: losses.names,
            diagnostics: losses.diagnostics,
            taus: Vec::new(),
        }
    }
}

/// What one part of a step draws from.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a, B: AutodiffBackend> {
    /// Names the generators.
    pub stream: Stream,
    /// The averaged weights as they stand.
    pub average: &'a Dit<B::InnerBackend>,
    /// The network that is trained beside the model, where the objective has one.
    pub auxiliary: Option<&'a Dit<B>>,
    /// Rows of the training split, where the objective wants some; none in validation.
    pub references: Option<References<'a>>,
    /// The clock as it is fitted to the losses by now, where it is.
    pub clock: Option<&'a Clock>,
    /// The noise that sequences start from.
    pub prior: &'a Prior<B::InnerBackend>,
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
    pub(crate) const RENOISING: u64 = 6;
}

impl<B: AutodiffBackend> Objective<B> for FlowObjective {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let clock = draw.clock.unwrap_or(self.schedule().clock());
        let times = self.rows(batch, clock, &mut draw.stream.shared(purpose::TIMES));
        let taus = draw.stream.share(&times);
        let taus = taus.iter().map(|row| row.tau_s).collect();
        let losses = draw.score(tokens, &times, |tokens, noise, rows, dropout| {
            if self.conditioning() == 0.0 {
                let references = draw.references;
                return FlowObjective::losses(
                    self, model, tokens, references, noise, rows, dropout,
                );
            }
            let mut rng = draw.stream.own(purpose::KNOWN);
            let known = known_positions(tokens.dims(), self.conditioning(), &mut rng);
            self.losses_given(model, tokens, &known, noise, rows, dropout)
        });
        Losses { taus, ..losses }
    }

    fn evaluations(&self, batch: usize) -> f64 {
        FlowObjective::evaluations(self, batch)
    }

    fn clock(&self) -> Option<&Clock> {
        Some(self.schedule().clock())
    }

    fn references(&self) -> usize {
        FlowObjective::references(self)
    }
}

impl<B: AutodiffBackend> Objective<B> for FlowMapObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let step = draw.stream.step;
        let times = self.rows(batch, step, &mut draw.stream.shared(purpose::TIMES));
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
        draw: &Draw<'_, B>,
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
        draw: &Draw<'_, B>,
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

impl<B: AutodiffBackend> Objective<B> for DistributionObjective<B::InnerBackend> {
    fn losses(
        &self,
        model: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        batch: usize,
        draw: &Draw<'_, B>,
    ) -> Losses<B> {
        let auxiliary = draw.auxiliary.expect("the loop keeps the auxiliary");
        let rows = self.rows(batch, &mut draw.stream.shared(purpose::TIMES));
        let shape = tokens.dims();
        let noise = draw
            .prior
            .draw(shape[0], shape[1], &mut draw.stream.own(purpose::NOISE));
        let renoising = self.renoising(shape, &mut draw.stream.own(purpose::RENOISING));
        let mut generator = draw.stream.own(purpose::DROPOUT);
        let losses = DistributionObjective::losses(
            self,
            [model, auxiliary],
            tokens,
            [&noise, &renoising],
            &draw.stream.share(&rows),
            &mut Dropout::on(draw.dropout, &mut generator),
        );
        let rows = losses.contrast.dims()[0];
        let count = rows as f64;
        let of_auxiliary: f64 = losses.auxiliary.clone().inner().into_scalar().elem();
        Losses {
            mean: losses.student + losses.auxiliary,
            per_token: losses.contrast,
            names: vec!["contrast"; rows],
            diagnostics: vec![Measured {
                name: "auxiliary",
                sum: of_auxiliary * count,
                count,
            }],
            taus: Vec::new(),
        }
    }

    fn evaluations(&self, batch: usize) -> f64 {
        DistributionObjective::evaluations(self, batch)
    }

    fn teacher(&self) -> Option<&Dit<B::InnerBackend>> {
        DistributionObjective::teacher(self)
    }

    fn auxiliary(&self) -> Option<Dit<B>> {
        let auxiliary = DistributionObjective::auxiliary(self).clone();
        Some(Dit::from_inner(auxiliary).map(&mut Trainable))
    }
}

/// Makes the parameters of a network that was frozen take gradients.
struct Trainable;

impl<B: AutodiffBackend> ModuleMapper<B> for Trainable {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.require_grad(), mapper)
    }
}

impl<B: AutodiffBackend> Draw<'_, B> {
    /// What `losses` says of this part: of its share of the batch's `times`, with noise and dropout of its own.
    fn score(
        &self,
        tokens: Tensor<B, 2, Int>,
        times: &[TimeRow],
        losses: impl FnOnce(
            Tensor<B, 2, Int>,
            &Noise<B::InnerBackend>,
            &[TimeRow],
            &mut Dropout<'_>,
        ) -> RowLosses<B>,
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
