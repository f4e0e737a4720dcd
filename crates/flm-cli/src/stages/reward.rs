//! Training a classifier of real text, which rewards samples.

use super::purpose;
use crate::args::TrainRewardArgs;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::progress::Progress;
use crate::{stop, table};
use burn::tensor::backend::AutodiffBackend;
use flm_data::Dataset;
use flm_reward::{ClassifierConfig, ClassifierFile, Training, recognized};
use flm_simplex::stream::generator;
use rand::RngExt;

/// Validation rows on which the classifier is measured.
const MEASURED: usize = 1_000;

/// Trains one, writes its folder and says how well it tells rows apart.
pub(crate) fn train(args: &TrainRewardArgs) -> Result<String> {
    for (what, value) in [
        ("steps", args.steps),
        ("rows in a step", args.batch as u64),
        ("rows of width", args.width as u64),
    ] {
        if value == 0 {
            return Err(CliError::input(format!(
                "the number of {what} must be at least 1, found 0"
            )));
        }
    }
    if args.out.exists() {
        let out = args.out.display();
        if !args.force {
            return Err(CliError::input(format!(
                "{out} exists already: choose another folder, or add --force to replace it"
            )));
        }
        // Only what is one is replaced.
        flm_reward::read_config(&args.out)?;
    }
    let dataset = Dataset::open(&args.data)?;
    dataset.verify()?;
    device::run(
        args.device,
        RewardJob {
            dataset: &dataset,
            args,
        },
    )
}

struct RewardJob<'a> {
    dataset: &'a Dataset,
    args: &'a TrainRewardArgs,
}

impl Job for RewardJob<'_> {
    type Output = String;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<String> {
        let Self { dataset, args } = self;
        let (tokenizer, split) = (dataset.tokenizer(), dataset.train());
        let config = ClassifierConfig {
            width: args.width,
            ..ClassifierConfig::new(tokenizer.vocab_size())
        };
        let training = Training {
            steps: args.steps,
            batch: args.batch,
            lr: args.lr,
            seed: args.seed,
            pad: tokenizer.pad_id(),
        };
        let progress = Progress::new("reward", args.steps);
        let rows = |count: usize, rng: &mut rand_chacha::ChaCha8Rng| {
            if stop::asked() {
                return Err(CliError::interrupted("stopped before it was trained"));
            }
            let numbers = (0..count).map(|_| rng.random_range(0..split.rows()));
            let rows = numbers.map(|row| Ok(split.row(row)?));
            rows.collect::<Result<Vec<_>>>()
        };
        let observe = |step: u64, loss: f64| {
            progress.update(step + 1, &format!("loss {loss:.3}"));
        };
        let classifier =
            flm_reward::train::<B, _>(&config, training, &place.device, rows, observe)?;

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

        if args.out.exists() {
            std::fs::remove_dir_all(&args.out).map_err(CliError::io("remove", &args.out))?;
        }
        let file = ClassifierFile::new(config, tokenizer.hash());
        flm_reward::save(&args.out, &classifier, &file)?;
        let mut told = String::new();
        if let Some([real, corrupted]) = shares {
            let share = |share: f64| format!("{:.1} %", 100.0 * share);
            let lines = [
                vec!["validation rows".to_owned(), "recognized".to_owned()],
                vec![format!("{} real", measured.len()), share(real)],
                vec![format!("{} corrupted", measured.len()), share(corrupted)],
            ];
            told += &table::aligned(&lines);
        }
        let out = args.out.display();
        Ok(told
            + &format!(
                "reward     {out}\nnext       flm sample --model RUN --steps 4 --reward classifier:{out}\n"
            ))
    }
}
