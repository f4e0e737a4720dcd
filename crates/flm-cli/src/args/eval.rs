//! What is asked of samples, models and texts.

use super::{DeviceArgs, GuidesArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Judge samples: validity for the grammar, perplexity under a scorer, entropy and diversity for any text
///
/// A scorer is another model that reads the samples: GPT-2 or a model of the Llama family, by its folder of the Hugging Face hub (with its
/// tokenizer.json) or its GGUF file, an autoregressive model that flm trained, by its folder, or an n-gram model of a data folder's training rows, as `ngram:DATA` or `ngram:DATA:ORDER`. Several
/// may be named. Of a data folder the validation rows are judged, so that samples can be told from text.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  flm eval quickstart/samples --data quickstart/data
  flm eval quickstart/data
  flm eval samples.jsonl --scorer gpt2-large --scorer runs/ar --scorer ngram:data:4
  flm eval samples.jsonl --data data --scorer SmolLM2-135M-Instruct.Q4_1.gguf --mauve"
)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// A .jsonl file of `flm sample`, a text file with a sample a line, a folder of such files, or a data folder
    #[arg(value_name = "SAMPLES", required = true)]
    pub(crate) samples: Option<PathBuf>,
    /// The data folder the model was trained on
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Also find the longest run of tokens that each sample shares with a training row; compare with that of `flm eval DATA --copying`
    #[arg(long)]
    pub(crate) copying: bool,
    /// Also compare the distribution of the samples with that of the validation rows of --data, by features of the pretrained scorers (MAUVE)
    #[arg(long)]
    pub(crate) mauve: bool,
    #[command(flatten)]
    pub(crate) score: ScoreArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    Frontier(Box<FrontierArgs>),
    Bound(BoundArgs),
    Infill(InfillArgs),
    Perfect(PerfectArgs),
    Controls(ControlsArgs),
}

/// Write samples of no model: what a good metric must rank last
///
/// Makes three files of samples from the training rows: `unigrams.jsonl` has the words of the corpus in no order, each drawn alone; `shuffled.jsonl` has
/// training rows with their words in random order; `repeated.jsonl` has one training row again and again. Judge them by `flm eval OUT`.
#[derive(Debug, Args)]
#[command(after_help = "Example: flm eval controls --data data --count 1000 --out nonsense")]
pub(crate) struct ControlsArgs {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Samples in each file
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// By what samples are scored.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// A model that reads the samples: a folder of GPT-2, of the Llama family or of an autoregressive model of ours, a GGUF file, ngram:DATA or ngram:DATA:ORDER; may be repeated
    #[arg(long = "scorer", value_name = "SCORER")]
    pub(crate) scorers: Vec<String>,
    /// Tokens of the scorer at which a model from elsewhere cuts a sample; the samples' own length where it is not given, and for --mauve all that
    /// the model reads
    #[arg(long, value_name = "N")]
    pub(crate) score_length: Option<usize>,
    /// Samples that a network reads together; changes the speed and no figure
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) score_batch: usize,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Sweep steps, gamma, temperature and guidance, and compare models at equal entropy
///
/// Quality alone is gamed by saying little: a model that repeats itself has a fine perplexity. So every model is sampled at every setting, the
/// settings that no other beats in both quality and entropy make its frontier, and frontiers are compared where their entropies
/// agree, interpolated between settings and never beyond them. Quality is the grammar's nats per token, or a scorer's. Makes a folder with
/// `samples/`, `frontier.json` and `frontier.svg`; samples that are there already are not drawn again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: flm eval frontier runs/a runs/b --data data --steps 1,4 --temperature 0.6,0.8,1 --out frontier"
)]
pub(crate) struct FrontierArgs {
    /// Model folders or finished runs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<PathBuf>,
    /// The data folder the models were trained on; without a scorer its grammar judges
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) score: ScoreArgs,
    /// Numbers of steps; models are compared at each of them
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 4])]
    pub(crate) steps: Vec<usize>,
    /// How flows go from noise to text; flow maps jump
    #[arg(long, value_enum, default_value = "ode", value_name = "NAME")]
    pub(crate) sampler: super::SamplerName,
    /// Values of gamma, for flow maps
    #[arg(long, value_name = "G,G", value_delimiter = ',', default_values_t = [0.0])]
    pub(crate) gamma: Vec<f64>,
    /// Temperatures
    #[arg(long, value_name = "T,T", value_delimiter = ',', default_values_t = [0.5, 0.7, 0.85, 1.0])]
    pub(crate) temperature: Vec<f64>,
    /// Scales of the noise that flows and flow maps start from
    #[arg(long, value_name = "S,S", value_delimiter = ',', default_values_t = [1.0])]
    pub(crate) noise_scale: Vec<f64>,
    /// Values of eta for autoguidance, of flows and flow maps: 1 is the model alone
    #[arg(long, value_name = "ETA,ETA", value_delimiter = ',')]
    pub(crate) guidance: Vec<f64>,
    #[command(flatten)]
    pub(crate) guides: GuidesArgs,
    /// How far states are moved along the reward's gradient: 0 is the model alone; 0.3 where it is not given
    #[arg(
        long,
        value_name = "LAMBDA,LAMBDA",
        value_delimiter = ',',
        requires = "reward"
    )]
    pub(crate) reward_scale: Vec<f64>,
    /// Nucleus sampling: keep the smallest set of tokens with total probability of at least P
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f64,
    /// Samples at each setting
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Samples drawn together
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) batch: usize,
    /// The folder to make, or to go on with
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Measure how likely models find validation rows: in full if autoregressive, at most if a diffusion of tokens
///
/// The likelihood of a masked (mdlm) or uniform-state (duo) diffusion is known by a bound, which is estimated at random times. Figures are nats
/// per token of text and its end, so that beside them those of a grammar can stand, which no model can beat.
#[derive(Debug, Args)]
#[command(after_help = "Example: flm eval bound runs/mdlm runs/duo runs/ar --data data")]
pub(crate) struct BoundArgs {
    /// Model folders or finished runs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<PathBuf>,
    /// The data folder the models were trained on
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Validation rows to read, from the first on; all where it is not given
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<usize>,
    /// Times at which each row is asked for, where a bound is estimated
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) draws: usize,
    /// Seed of times and noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Have models fill holes in validation rows, and compare with what is there and with waiting for a sample that fits
///
/// Of each row a span of words is taken out, and the rest is given, end and padding as well. Reported are how often the very words come back, how often the
/// whole row is a sentence of the grammar, and how many fills differ. Beside them stands rejection: samples that the same model draws with
/// nothing given, of which those count that agree with all that is known of a row.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: flm eval infill runs/flm runs/fmlm runs/mdlm --data data --span 1,3,5 --steps 1,4,16"
)]
pub(crate) struct InfillArgs {
    /// Model folders or finished runs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<PathBuf>,
    /// The data folder the models were trained on
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Tokens in a hole
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 3, 5])]
    pub(crate) span: Vec<usize>,
    /// Numbers of steps; an autoregressive model takes one for each token
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 4, 16])]
    pub(crate) steps: Vec<usize>,
    /// Validation rows with a hole, the first that have room for it
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(crate) count: usize,
    /// Samples with nothing given, for rejection; 0 for none
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) rejection_samples: usize,
    /// Noise put back after each jump of a flow map
    #[arg(long, default_value_t = 0.0, value_name = "G")]
    pub(crate) gamma: f64,
    /// Divides the logits
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Seed of holes and noise
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Samples drawn together
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) batch: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Sample models that know the grammar's law exactly, in few steps: what is left of their errors when nothing is left to learn
///
/// A masked or a uniform-state diffusion with exact marginals draws the tokens of a step one without the other, so it errs in few steps however well it is
/// trained; a flow with the exact denoiser errs by the length of its Euler steps. An exact flow map errs in no number of steps, so it is not drawn.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flm eval perfect --data data --steps 1,2,4,8,16,32
  flm eval perfect --data quickstart/data --embedding-from quickstart/flm")]
pub(crate) struct PerfectArgs {
    /// A data folder of the grammar's sentences, a row each
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Let the flow see states as the network of this flow does, through its embedding, which leaves as many directions of them as the network is wide
    #[arg(long, value_name = "MODEL")]
    pub(crate) embedding_from: Option<PathBuf>,
    /// Tokens that compete in the flow's time schedule (`model.schedule_vocab`); 0 for the data's own. With --embedding-from it is the model's
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        conflicts_with = "embedding_from"
    )]
    pub(crate) schedule_vocab: usize,
    /// Evaluations for each sample, one set of samples for each number
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32])]
    pub(crate) steps: Vec<usize>,
    /// Samples in a set
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the samples
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}
