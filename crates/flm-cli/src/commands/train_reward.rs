//! The `flm train-reward` command: training a classifier of real rows, which rewards samples.

use crate::device::Device;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::progress::Progress;
use crate::purpose;
use crate::{stop, table};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm_data::Dataset;
use flm_reward::{ClassifierConfig, ClassifierFile, ClassifierTraining, Existing, recognized};
use flm_simplex::stream::generator;
use rand::RngExt;
use std::path::PathBuf;

/// Train a reward: a small classifier of real against corrupted rows
///
/// Corrupted rows have tokens replaced or swapped, or continue as another row does: the errors of
/// samples in few steps. The folder holds `config.json` and `model.safetensors`. Use it with `flm
/// sample --reward classifier:DIR`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example: flm train-reward --data data --out runs/reward")]
pub(crate) struct TrainRewardArgs {
    /// Data folder with the real rows
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Optimizer steps
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub(crate) steps: u64,
    /// Real rows per step; the same number is corrupted
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) batch: usize,
    /// Width of the classifier
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) width: usize,
    /// Initial learning rate; it decays to zero
    #[arg(long, default_value_t = 2e-3, value_name = "RATE")]
    pub(crate) lr: f64,
    /// Seed of weights, rows and corruption
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Replace an existing reward
    #[arg(long)]
    pub(crate) force: bool,
    /// Device: cpu, wgpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
}

/// Maximum number of validation rows that measure the classifier.
const MEASURED: usize = 1_000;

/// A reward that recognizes a smaller share of rows is no better than a guess.
const CHANCE: f64 = 0.55;

/// Trains a classifier, writes its folder and reports its accuracy.
pub(crate) fn train(args: &TrainRewardArgs) -> Result<String> {
    for (what, value) in [("steps", args.steps), ("rows per step", args.batch as u64)] {
        if value == 0 {
            return Err(CliError::input(format!(
                "the number of {what} must be at least 1, found 0"
            )));
        }
    }
    if !(args.lr.is_finite() && args.lr > 0.0) {
        return Err(CliError::input(format!(
            "--lr must be a finite number above 0, found {}",
            args.lr
        )));
    }
    if args.out.exists() {
        let out = args.out.display();
        if !args.force {
            return Err(CliError::input(format!(
                "{out} exists already: choose another folder, or add --force to replace it"
            )));
        }
        flm_reward::check_replaced(&args.out)?;
    }
    let dataset = Dataset::open(&args.data)?;
    let sizes = sizes(&dataset, args);
    (sizes.validate())
        .map_err(|error| CliError::input(format!("--width {}: {error}", args.width)))?;
    dataset.verify()?;
    device::run(
        args.device,
        RewardJob {
            dataset: &dataset,
            sizes,
            args,
        },
    )
}

fn sizes(dataset: &Dataset, args: &TrainRewardArgs) -> ClassifierConfig {
    ClassifierConfig {
        width: args.width,
        ..ClassifierConfig::new(dataset.tokenizer().vocab_size())
    }
}

struct RewardJob<'a> {
    dataset: &'a Dataset,
    sizes: ClassifierConfig,
    args: &'a TrainRewardArgs,
}

impl Job for RewardJob<'_> {
    type Output = String;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<String> {
        let Self {
            dataset,
            sizes,
            args,
        } = self;
        let (tokenizer, split) = (dataset.tokenizer(), dataset.train());
        let training = ClassifierTraining {
            steps: args.steps,
            batch: args.batch,
            lr: args.lr,
            seed: args.seed,
            pad: tokenizer.pad_id(),
        };
        let progress = Progress::new("reward", args.steps);
        let rows = |count: usize, rng: &mut rand_chacha::ChaCha8Rng| {
            if stop::asked() {
                return Err(CliError::interrupted(
                    "stopped before the training was complete",
                ));
            }
            let numbers = (0..count).map(|_| rng.random_range(0..split.rows()));
            let rows = numbers.map(|row| Ok(split.row(row)?));
            rows.collect::<Result<Vec<_>>>()
        };
        let observe = |step: u64, loss: f64| {
            if !loss.is_finite() {
                return Err(CliError::input(format!(
                    "the loss became {loss} in step {}: choose a smaller --lr than {:?}",
                    step + 1,
                    args.lr
                )));
            }
            progress.update(step + 1, &format!("loss {loss:.3}"));
            Ok(())
        };
        let classifier = flm_reward::train::<B, _>(&sizes, training, &place.device, rows, observe)?;
        let existing = match args.force {
            true => Existing::Replace,
            false => Existing::Refuse,
        };
        let file = ClassifierFile::new(sizes, tokenizer.hash());
        flm_reward::save(&args.out, &classifier, &file, existing)?;

        let validation = dataset.validation();
        let measured = (0..validation.rows().min(MEASURED)).map(|row| validation.row(row));
        let measured = measured.collect::<std::result::Result<Vec<_>, _>>()?;
        let mut rng = generator(args.seed, purpose::CORRUPTED, 0, 0);
        let shares = (!measured.is_empty()).then(|| {
            recognized(
                &classifier,
                &measured,
                training.pad,
                &mut rng,
                &place.device,
            )
        });

        let mut report = String::new();
        if let Some([real, corrupted]) = shares {
            let share = |share: f64| format!("{:.1} %", 100.0 * share);
            let lines = [
                vec!["validation rows".to_owned(), "recognized".to_owned()],
                vec![format!("{} real", measured.len()), share(real)],
                vec![format!("{} corrupted", measured.len()), share(corrupted)],
            ];
            report += &table::aligned(&lines);
            let mean = (real + corrupted) / 2.0;
            if mean < CHANCE {
                eprintln!(
                    "warning: the reward recognizes {:.0} % on average, about as many as a guess: train it longer, or with a lower --lr",
                    100.0 * mean
                );
            }
        }
        let out = args.out.display();
        Ok(report
            + &format!(
                "reward     {out}\nnext       flm sample --model RUN --steps 4 --reward classifier:{out}\n"
            ))
    }
}
