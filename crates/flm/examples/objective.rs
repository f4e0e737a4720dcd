//! Trains a flow with a custom objective: times uniform in t, where flm's objective draws them
//! uniformly in τ.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "an example, which a test runs"
)]

use flm::backend::{Autodiff, Flex};
use flm::burn::tensor::{Int, Tensor, backend::AutodiffBackend};
use flm::denoiser::{Dit, Prior};
use flm::objective::{Inner, Losses, Objective, StepSize, TRAINED, TrainingStep};
use flm::simplex::{interpolant, stream::generator, times::stratified};
use flm::{DitConfig, Layout, Rows, SampleOptions, TrainConfig, Trainer};

struct UniformTimes {
    schedule: flm::simplex::Schedule,
}

impl<B: AutodiffBackend> Objective<B> for UniformTimes {
    type Network = Dit<B>;
    type Shared = Prior<B::InnerBackend>;

    fn shared(&self, network: &Inner<B, Dit<B>>, _: StepSize) -> Self::Shared {
        Prior::new(network.embed())
    }

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let ([rows, length], device) = (tokens.dims(), tokens.device());
        let t = step.share(&stratified(step.batch, &mut step.times()));
        let tau: Vec<f64> = t.iter().map(|&t| self.schedule.tau_of_t(t)).collect();
        let [t, tau] = [&t, &tau].map(|times| interpolant::rows::<B>(times, &device));
        let noise = step.noise([rows, length]);
        let state = noise.interpolate(network.embed(), tokens.clone(), t);
        let prediction =
            step.with_dropout(|dropout| network.forward(state, tau.clone(), tau, dropout));
        let weights = Tensor::full([rows, length], 1.0 / (rows * length) as f64, &device);
        let score = prediction.cross_entropy(tokens, weights);
        Losses::new(score.loss, score.per_token, vec!["uniform"; rows])
    }

    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * TRAINED
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = Rows::from_words(Layout::Rows, 4, &["a b c", "c b a", "b b b", "a a a"])?;
    let config = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 32, 1, 2);
    let network = config.init(&mut generator(0, 0, 0, 0), &Default::default())?;
    let objective = UniformTimes {
        schedule: config.schedule()?,
    };
    let settings = TrainConfig {
        steps: 100,
        batch: 8,
        micro_batch: 8,
        ..Default::default()
    };
    let trainer = Trainer::<Autodiff<Flex>, _>::new(network, config, objective, &rows, settings);
    for text in trainer
        .train()?
        .model
        .sample(SampleOptions::steps(16).count(4))?
    {
        println!("{text}");
    }
    Ok(())
}
