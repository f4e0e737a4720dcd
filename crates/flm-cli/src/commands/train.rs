//! The `flm train` command.

use super::print;
use crate::args::{SettingsArgs, reject_section};
use crate::command_line::CommandLine;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use crate::files::RunFolder;
use crate::run::{Request, RunArgs, RunPlan, Start, next, run_settings};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm::{Card, Rows, Trainer};
use flm_denoiser::{DitConfig, Family};
use flm_discrete::duo::DuoObjective;
use flm_objective::Objective;
use std::path::PathBuf;

/// Train a flow language model on a data folder
///
/// The run folder holds `config.toml`, `metrics.jsonl`, `checkpoints/` and, at the end, `model/`
/// and `losses.svg`. Ctrl-C writes a checkpoint and stops; --resume continues with identical
/// results. Without a preset the network has the published size, which needs a GPU.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example: flm train --data data --preset grammar-tiny --set optimizer.lr=5e-4 --out runs/flow"
)]
pub(crate) struct TrainArgs {
    /// Data folder, from `flm data prepare`
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

pub(crate) fn run(args: TrainArgs) -> Result<()> {
    let config = run_settings(&args.settings, &args.run, None, &["train"])?;
    if config.model.family != Family::Duo {
        let elsewhere = format!(
            "only for models of family duo, but model.family is {}",
            config.model.family
        );
        reject_section(&args.settings, "curriculum", &elsewhere)?;
    }
    let out = args.run.out.clone();
    train(Request {
        config,
        data: &args.data,
        start: Start::from(&args.run),
        evaluations: args.run.evaluations,
        compute: args.run.device.into(),
        out: RunFolder::new(args.run.out),
        command: CommandLine::current(),
        silent: false,
    })?;
    print(&next(&out))
}

/// Trains a model of the family that the configuration names.
pub(crate) fn train(request: Request<'_>) -> Result<Card> {
    let rows = Rows::open(request.data)?;
    let network =
        (request.config.model).network(rows.tokenizer().vocab_size(), rows.length(), false)?;
    if let (Some((key, plain)), false) = (
        request.config.train.of_flows(),
        network.family == Family::Flow,
    ) {
        return Err(CliError::input(format!(
            "train.{key} is for flows, but model.family is {}: set it to {plain}",
            network.family
        )));
    }
    let run = RunPlan::new(request, false)?;
    device::run(
        run.request.compute,
        TrainJob {
            run,
            network,
            rows: &rows,
        },
    )
}

struct TrainJob<'a> {
    run: RunPlan<'a>,
    network: DitConfig,
    rows: &'a Rows,
}

impl Job for TrainJob<'_> {
    type Output = Card;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Card> {
        let Self { run, network, rows } = self;
        let (settings, device) = (run.settings().clone(), &place.device);
        match network.family {
            Family::Flow => run.train(place, Trainer::flow(network, rows, settings, device)?),
            Family::Mdlm => run.train(place, Trainer::masked(network, rows, settings, device)?),
            Family::Duo => {
                // The curriculum lasts a share of the steps, which `--evaluations` may set.
                let step = Objective::<B>::evaluations(&DuoObjective::default(), settings.batch);
                let run = run.spending(step)?;
                let (curriculum, settings) =
                    (run.request.config.curriculum, run.settings().clone());
                let trainer = Trainer::uniform_state(network, curriculum, rows, settings, device)?;
                run.train(place, trainer)
            }
            Family::Autoregressive => run.train(
                place,
                Trainer::autoregressive(network, rows, settings, device)?,
            ),
        }
    }
}
