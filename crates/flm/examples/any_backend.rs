//! Runs the same training on several backends: on the CPU, and on a GPU with the feature `wgpu`.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "an example, which a test runs"
)]

use flm::backend::{Autodiff, Flex};
use flm::burn::tensor::backend::AutodiffBackend;
use flm::{DitConfig, Layout, Rows, SampleOptions, TrainConfig, Trainer};

fn run<B: AutodiffBackend>(device: &B::Device) -> flm::Result<String> {
    let rows = Rows::from_words(Layout::Rows, 4, &["a b c", "c b a", "b b b", "a a a"])?;
    let network = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 32, 1, 2);
    let settings = TrainConfig {
        steps: 20,
        batch: 8,
        micro_batch: 8,
        ..Default::default()
    };
    let model = Trainer::<B, _>::flow(network, &rows, settings, device)?
        .train()?
        .model;
    Ok(model.sample(SampleOptions::steps(8).count(1))?[0]
        .text
        .clone())
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cpu: {}", run::<Autodiff<Flex>>(&Default::default())?);
    #[cfg(feature = "wgpu")]
    println!(
        "wgpu: {}",
        run::<Autodiff<flm::backend::Wgpu>>(&Default::default())?
    );
    Ok(())
}
