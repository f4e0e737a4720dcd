//! What the user typed. What it means is worked out in `commands`.

mod eval;
mod given;
mod guidance;
mod sampler;

pub(crate) use eval::{
    BoundArgs, ControlsArgs, EvalArgs, EvalCommand, FrontierArgs, InfillArgs, PerfectArgs,
    ScoreArgs,
};
pub(crate) use given::GivenArgs;
pub(crate) use guidance::{GuidesArgs, check_scales};
pub(crate) use sampler::{SamplerName, check_gammas};

use crate::device::{Compute, Device};
use clap::{Args, Parser, Subcommand};
use flm_denoiser::Precision;
use std::path::PathBuf;

/// Trains, distills and samples continuous flow language models.
#[derive(Debug, Parser)]
#[command(
    name = "flm",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quickstart(QuickstartArgs),
    /// Turn text into token rows, or look at rows that are there
    #[command(subcommand)]
    Data(DataCommand),
    Train(TrainArgs),
    Distill(DistillArgs),
    TrainReward(TrainRewardArgs),
    Sample(Box<SampleArgs>),
    Eval(EvalArgs),
    Convert(ConvertArgs),
    Inspect(InspectArgs),
    Presets(PresetsArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    List(DataListArgs),
    Fetch(FetchArgs),
    Prepare(Box<PrepareArgs>),
    Inspect(DataInspectArgs),
}

/// Which settings hold.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Settings: a preset by name (`flm presets` lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) preset: Option<String>,
    /// Override one setting, as in `--set optimizer.lr=1e-3`; may be repeated. `flm presets NAME` shows keys
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Say on what this flm can compute here, how fast that is, and what a preset would take
///
/// Of each device: what is there, what is missing and where it was looked for, memory, and measured rates of products and of reading and writing.
/// A GPU that is asked for the first time compiles its kernels, which takes some seconds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm doctor
  flm doctor --device cuda:0 --preset lm1b --batch 256 --dtype bf16")]
pub(crate) struct DoctorArgs {
    /// Only this device: cpu, wgpu or cuda:N
    #[arg(long)]
    pub(crate) device: Option<Device>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Sequences in a step of the preset
    #[arg(long, value_name = "N", requires = "preset")]
    pub(crate) batch: Option<usize>,
    /// Tokens in the vocabulary, which the preset leaves to the data; 30,522 where it is not given
    #[arg(long, value_name = "V", requires = "preset")]
    pub(crate) vocab: Option<usize>,
    /// Tokens in a sequence
    #[arg(long, value_name = "L", requires = "preset")]
    pub(crate) length: Option<usize>,
    /// What matrix products are made of
    #[arg(long, default_value_t = Precision::F32, value_name = "f32|bf16", requires = "preset")]
    pub(crate) dtype: Precision,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Where to compute: cpu, wgpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
    /// What matrix products are made of: f32 or bf16. Weights, norms, losses and states are f32 in either case
    #[arg(long, default_value_t = Precision::F32, value_name = "f32|bf16")]
    pub(crate) dtype: Precision,
}

impl From<DeviceArgs> for Compute {
    fn from(args: DeviceArgs) -> Self {
        Self {
            device: args.device,
            precision: args.dtype,
        }
    }
}

/// See it work: grammar, flow, flow map and a report, in about ten minutes without a GPU
///
/// Draws sentences from a small English grammar, trains a flow language model on them, distills it into a flow map,
/// samples both and judges the samples by the grammar, which knows every sentence and its probability. Everything is
/// kept in one folder: `data`, `flm`, `fmlm`, `samples`, `report.json` and `report.html`.
#[derive(Debug, Args)]
#[command(after_help = "Example: flm quickstart --out quickstart --set train.steps=300")]
pub(crate) struct QuickstartArgs {
    /// The folder to make
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Decides everything that is drawn: sentences, initial weights, noise
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Choose the numbers of training steps so that the whole takes about N minutes here, in place of the preset's
    #[arg(long, value_name = "N")]
    pub(crate) minutes: Option<f64>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Replace a folder that an earlier quickstart made
    #[arg(long, conflicts_with = "resume")]
    pub(crate) force: bool,
    /// Go on with a quickstart that was interrupted
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// List the data sets that are known by name, or show the manifest of one
#[derive(Debug, Args)]
pub(crate) struct DataListArgs {
    /// The data set whose manifest to show
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Bring the files of a data set here
///
/// Goes on with what was begun, and checks sizes and checksums where they are known. Without a network it says which files to bring from
/// where. HF_ENDPOINT and HF_TOKEN are heeded.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm data fetch wikitext-2
  flm data fetch lm1b --from /mnt/datasets/lm1b")]
pub(crate) struct FetchArgs {
    /// A data set by name (`flm data list`), or a manifest of your own
    #[arg(value_name = "NAME|FILE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Where the files of a data set are.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// A copy of the data set that is here already: a folder, or its only file. Nothing is fetched, and nothing in it changed
    #[arg(long, value_name = "PATH")]
    pub(crate) from: Option<PathBuf>,
    /// Where fetched files are kept; ~/.cache/flm/datasets, or $FLM_CACHE/datasets, where it is not given
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub(crate) cache: Option<PathBuf>,
}

/// Turn a corpus into a data folder of token rows
///
/// Takes a data set by name (`flm data list`), whose manifest says how it is read, fetching what is missing. Or reads, by --input, a file or a folder of
/// files: text, JSON lines, Parquet, also compressed by gzip or zstd; or draws sentences from the built-in grammar with `--input grammar`.
/// What is not given is taken from the manifest, or from the preset's `[data]` section, or from its defaults. A preparation that was interrupted is
/// gone on with by the same command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm data prepare wikitext-2 --train-bpe 4096 --length 64 --out data
  flm data prepare --input grammar --count 40000 --length 24 --out data
  flm data prepare --input corpus.txt --tokenizer chars --length 128 --pack --whole --out data
  flm data prepare --input docs/ --train-bpe 8000 --length 128 --pack --out data")]
pub(crate) struct PrepareArgs {
    /// A data set by name, or a manifest of your own
    #[arg(value_name = "NAME|FILE", conflicts_with = "input")]
    pub(crate) dataset: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A file, a folder, or `grammar`
    #[arg(long, value_name = "PATH", required_unless_present_any = ["preset", "dataset"])]
    pub(crate) input: Option<String>,
    /// The column of Parquet files, or field of JSON lines, that holds the text
    #[arg(long, value_name = "NAME")]
    pub(crate) column: Option<String>,
    /// What makes ordinary text of an older corpus: lm1b, wikitext, ptb, lambada, scientific_papers or none
    #[arg(long, value_name = "NAME")]
    pub(crate) detokenizer: Option<flm_data::Detokenizer>,
    /// `words` or `chars` of the corpus, or a tokenizer.json
    #[arg(long, value_name = "words|chars|FILE")]
    pub(crate) tokenizer: Option<String>,
    /// Learn a tokenizer of N byte pairs from the corpus
    #[arg(long, value_name = "N", conflicts_with = "tokenizer")]
    pub(crate) train_bpe: Option<usize>,
    /// Tokens in a row
    #[arg(long, value_name = "L")]
    pub(crate) length: Option<usize>,
    /// Pack documents one after the other into full rows, instead of one document a row
    #[arg(long)]
    pub(crate) pack: bool,
    /// Read each text file as one long text, instead of a document a line (needs --pack)
    #[arg(long, requires = "pack")]
    pub(crate) whole: bool,
    /// Sentences to draw from the grammar
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Seed of the grammar's sentences
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Share of documents kept apart for validation
    #[arg(long, value_name = "SHARE")]
    pub(crate) validation_share: Option<f64>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// The data folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace a data folder that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Say what a data folder holds, check it, and show some rows
#[derive(Debug, Args)]
pub(crate) struct DataInspectArgs {
    /// The data folder
    #[arg(value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Rows to show
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) rows: usize,
}

/// Train a flow language model on a data folder
///
/// Without a preset the published sizes hold, which are for a GPU. The run folder holds `config.toml` (all settings), `metrics.jsonl`, `checkpoints/` and, at the end, `model/` and `losses.svg`.
/// Ctrl-C writes a checkpoint and stops; --resume goes on as if nothing had happened.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: flm train --data data --preset grammar-tiny --set optimizer.lr=5e-4 --out runs/flow"
)]
pub(crate) struct TrainArgs {
    /// The data folder, made by `flm data prepare`
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Distill a flow into a flow map, which samples in one step or a few
///
/// Without a preset the settings are those of the teacher's run. Without a teacher (`--self`) the flow map learns from the
/// tokens, and from itself. A teacher that is a masked (mdlm) or uniform-state (duo) diffusion becomes one of fewer steps, by SDTT or DCD: in
/// rounds of `distill.train.steps` each, where each doubles the step of the one before.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm distill --teacher runs/flow --data data --preset grammar-tiny --out runs/flow-map
  flm distill --teacher runs/mdlm --data data --set sdtt.rounds=5 --out runs/sdtt")]
pub(crate) struct DistillArgs {
    /// The model to learn from: a model folder or a finished run
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["no_teacher", "resume"])]
    pub(crate) teacher: Option<PathBuf>,
    /// Distill without a teacher
    #[arg(long = "self", conflicts_with = "teacher")]
    pub(crate) no_teacher: bool,
    /// The data folder the teacher was trained on
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What training and distilling share.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The run folder to make
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Train for as many steps as N evaluations of the network pay for, a pass back counting as two, instead of a number of steps; rounds of a
    /// distillation share them evenly
    #[arg(long, value_name = "N")]
    pub(crate) evaluations: Option<u64>,
    /// Go on from the newest checkpoint in the run folder, with the settings kept there
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace a run that is there
    #[arg(long, conflicts_with = "resume")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Draw samples from a model
///
/// A flow is sampled with Euler steps, a flow map with jumps, a masked (mdlm) or uniform-state (duo) diffusion with ancestral steps. An
/// autoregressive model writes a token after the other and takes no --steps. The same seed gives the same samples, whatever the batch.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm sample --model quickstart/fmlm --steps 1 --count 10
  flm sample --model quickstart/flm --steps 16 --infill 'the ___ sold two ___ .'
  flm sample --model runs/duo --steps 16 --top-p 0.9 --greedy-tail")]
pub(crate) struct SampleArgs {
    /// A model folder or a finished run
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Evaluations of the network for each sample; several numbers make a file each in the folder --out. Needed for every model but an
    /// autoregressive one
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub(crate) steps: Vec<usize>,
    #[command(flatten)]
    pub(crate) given: GivenArgs,
    /// Samples to draw
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Noise put back after each jump of a flow map: 0 for none, 1 for all
    #[arg(long, default_value_t = 0.0, value_name = "G")]
    pub(crate) gamma: f64,
    /// Divides the logits: below 1 likely tokens gain
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// How a flow or a flow map goes from noise to text
    #[arg(long, value_enum, default_value = "ode", value_name = "NAME")]
    pub(crate) sampler: SamplerName,
    /// Scales the noise that a flow or a flow map starts from: below 1 one step of a flow map writes likelier and less varied text, as a lower
    /// temperature does in several
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub(crate) noise_scale: f64,
    /// Nucleus sampling: keep the smallest set of tokens with total probability of at least P; a flow takes the mean over them
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f64,
    /// Take in the last step the likeliest tokens instead of drawing them; for duo models
    #[arg(long)]
    pub(crate) greedy_tail: bool,
    /// Lead away from a weaker network, so many times as far from it as the model is: 1 is the model alone. A second evaluation a step; for
    /// flows and flow maps
    #[arg(long, value_name = "ETA")]
    pub(crate) guidance: Option<f64>,
    #[command(flatten)]
    pub(crate) guides: GuidesArgs,
    /// How far states are moved along the reward's gradient before each evaluation; 0.3 where it is not given
    #[arg(long, value_name = "LAMBDA", requires = "reward")]
    pub(crate) reward_scale: Option<f64>,
    /// Samples drawn together; changes the speed and no sample
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) batch: usize,
    /// Write the likeliest tokens of each position at each step of a flow or a flow map to a JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Write samples to a file, as JSON lines if it ends in .jsonl, instead of printing them; with several numbers of steps, a folder
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Train a reward: a small classifier that tells rows of a corpus from corrupted ones
///
/// Corrupted rows have a few tokens replaced or exchanged, or go on as another row does, which is how samples drawn in few steps go wrong. The
/// folder holds `config.json` and `model.safetensors`; `flm sample --reward classifier:DIR` steers samples with it.
#[derive(Debug, Args)]
#[command(after_help = "Example: flm train-reward --data data --out runs/reward")]
pub(crate) struct TrainRewardArgs {
    /// The data folder whose rows are real
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Steps of the optimizer
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub(crate) steps: u64,
    /// Real rows in a step; as many corrupted ones are made of them
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) batch: usize,
    /// Width of the classifier
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) width: usize,
    /// Learning rate, which falls to nothing
    #[arg(long, default_value_t = 2e-3, value_name = "RATE")]
    pub(crate) lr: f64,
    /// Seed of weights, rows and corruption
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Replace a reward that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Where to compute: cpu, wgpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
}

/// Bring in weights of the published implementation, or hand a model back to it
///
/// A checkpoint (.ckpt, .pt), a .safetensors file or a folder of the Hugging Face hub becomes a model folder. A model folder becomes a
/// folder as on the hub or, if --out ends in .safetensors, one file of tensors. Nothing in a checkpoint is ever run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm convert lm1b_fmlm.ckpt --tokenizer bert/tokenizer.json --out models/lm1b
  flm convert second.ckpt --denoiser flow.ckpt --out models/residual
  flm convert models/lm1b --out for-python")]
pub(crate) struct ConvertArgs {
    /// The file or folder to convert
    #[arg(value_name = "FROM")]
    pub(crate) from: PathBuf,
    /// The model folder to make; of a model folder, the folder or .safetensors file to make
    #[arg(long, value_name = "TO")]
    pub(crate) out: PathBuf,
    /// Take the parameters as training left them, instead of their averages
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// The tokenizer.json of the model; without one it cannot be sampled as text
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// The frozen denoiser of a residual flow map: a file, a folder or a model folder
    #[arg(long, value_name = "FROM")]
    pub(crate) denoiser: Option<PathBuf>,
    /// What the network is for, where its file does not say
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<NetworkKind>,
    /// Tokens in a sequence, where the file does not say
    #[arg(long, value_name = "L")]
    pub(crate) length: Option<usize>,
    /// Attention heads, where the file does not say
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// What a sequence of tokens is: packed, as published models have it, or rows of one document; that of the model's card where it has
    /// one, otherwise packed
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<LayoutName>,
    /// Replace a model that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// What a sequence of tokens is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LayoutName {
    /// A block of a stream of documents
    Packed,
    /// One document, its end, and padding
    Rows,
}

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkKind {
    /// The denoiser of a flow
    Flow,
    /// A flow map
    FlowMap,
    /// The second network of a residual flow map
    Residual,
}

/// Say what a file or folder holds: a model, a run, data, a checkpoint, tensors
#[derive(Debug, Args)]
#[command(after_help = "Example: flm inspect lm1b_fmlm.ckpt --tensors")]
pub(crate) struct InspectArgs {
    /// The file or folder
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// List every tensor with its shape
    #[arg(long)]
    pub(crate) tensors: bool,
}

/// List the presets, or show one
#[derive(Debug, Args)]
pub(crate) struct PresetsArgs {
    /// The preset to show as TOML
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Print completions for a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Write manual pages, one for each command
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write them to
    #[arg(value_name = "DIR")]
    pub(crate) out: PathBuf,
}
