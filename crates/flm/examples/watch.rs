//! Prints the likeliest text at each denoising step, and fills blanks.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "an example, which a test runs"
)]

use flm::backend::{Autodiff, Flex};
use flm::burn::tensor::backend::Backend;
use flm::{DenoisingStep, DitConfig, Layout, Observer, Rows, SampleOptions, TrainConfig, Trainer};

/// Records the likeliest tokens of the first sequence at each step.
#[derive(Default)]
struct Likeliest(std::sync::Mutex<Vec<Vec<u32>>>);

impl<B: Backend> Observer<B> for Likeliest {
    fn step(&self, step: &DenoisingStep<'_, B>) {
        let tokens = step.distribution.argmax().narrow(0, 0, 1).into_data();
        let mut steps = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        steps.push(tokens.iter::<u32>().collect());
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = Rows::from_words(Layout::Rows, 6, &["the cat sleeps", "the dog runs home"])?;
    let network = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 32, 1, 2);
    let settings = TrainConfig {
        steps: 100,
        batch: 8,
        micro_batch: 8,
        ..Default::default()
    };
    let device = Default::default();
    let trainer = Trainer::<Autodiff<Flex>, _>::flow(network, &rows, settings, &device)?;
    let model = trainer.train()?.model;

    let likeliest = Likeliest::default();
    model.sample_with(&SampleOptions::steps(8).count(1), &likeliest)?;
    for tokens in likeliest.0.into_inner()? {
        println!("{}", model.decode(&tokens)?);
    }
    println!(
        "{}",
        model.infill("the ___ sleeps", SampleOptions::steps(8))?[0]
    );
    Ok(())
}
