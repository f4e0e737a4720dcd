//! Trains a flow on ten sentences, distills it into a flow map, and samples both in one step.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "an example, which a test runs"
)]

use flm::backend::{Autodiff, Flex};
use flm::distill::DistributionConfig;
use flm::train::{OptimizerConfig, OptimizerKind};
use flm::{DitConfig, Layout, Rows, SampleOptions, TrainConfig, Trainer};

type Train = Autodiff<Flex>;

const TEXTS: [&str; 10] = [
    "the cat sleeps",
    "the dog sleeps",
    "a cat runs",
    "a dog runs",
    "the old cat sees a dog",
    "the old dog sees a cat",
    "a young cat sees the dog",
    "a young dog sees the cat",
    "the young cat runs",
    "an old dog sleeps",
];

fn settings(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        batch: 10,
        micro_batch: 10,
        ema_decay: 0.95,
        optimizer: OptimizerConfig {
            kind: OptimizerKind::Muon,
            lr: 1e-2,
            muon_lr: 0.04,
            warmup: 20,
            ..Default::default()
        },
        ..Default::default()
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = Rows::from_words(Layout::Rows, 8, &TEXTS)?;
    let network = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 32, 2, 2);
    let flow = Trainer::<Train, _>::flow(network, &rows, settings(600), &Default::default())?;
    let flow = flow.train()?.model;

    let objective = DistributionConfig::default();
    let map = Trainer::<Train, _>::distribution(&flow, None, objective, &rows, settings(600))?;
    let map = map.train()?.model;
    for (name, model) in [("flow", &flow), ("flow map", &map)] {
        let texts = model.sample(SampleOptions::steps(1).count(100).seed(0))?;
        let known = texts
            .iter()
            .filter(|text| TEXTS.contains(&text.text.as_str()));
        println!(
            "{name} in one step: {} of 100 are sentences of the corpus",
            known.count()
        );
    }
    Ok(())
}
