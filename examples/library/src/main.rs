//! Trains a flow on ten sentences in memory, saves it as a model folder, loads it and writes with it.

use flm::backend::{Autodiff, Flex};
use flm::train::{Decay, OptimizerConfig, OptimizerKind};
use flm::{
    Conditioning, DitConfig, Event, Existing, Layout, Model, Rows, SampleOptions, Sampler,
    TrainConfig, Trainer,
};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = Rows::from_words(Layout::Rows, 8, &TEXTS)?;
    let network = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 32, 2, 2);
    let settings = TrainConfig {
        steps: 3_000,
        batch: 10,
        micro_batch: 10,
        ema_decay: 0.95,
        log_every: 500,
        optimizer: OptimizerConfig {
            kind: OptimizerKind::Muon,
            lr: 1e-2,
            muon_lr: 0.04,
            warmup: 20,
            decay: Decay::Linear,
            ..Default::default()
        },
        ..Default::default()
    };
    let trainer =
        Trainer::<Autodiff<Flex>, _>::flow(network, &rows, settings, &Default::default())?;
    let trained = trainer
        .on_event(|event| {
            if let Event::Step(line) = event {
                println!("step {:3}  loss {:.3}", line.step, line.loss);
            }
        })
        .train()?;
    let folder = std::env::temp_dir().join(format!("flm-library-{}", std::process::id()));
    trained.model.save(&folder, Existing::Refuse)?;

    let model = Model::<Flex>::load(&folder, &Default::default())?;
    for text in model.sample(
        SampleOptions::steps(16)
            .sampler(Sampler::Bridge)
            .count(5)
            .seed(0),
    )? {
        println!("{text}");
    }
    let options = SampleOptions::steps(16).conditioning(Conditioning::prompt("the old"));
    for text in model.sample(options)? {
        assert!(text.text.starts_with("the old"), "{text}");
        println!("{text}");
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
