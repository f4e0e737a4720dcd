//! Samples of exact denoisers, which know the grammar's distribution.
//!
//! Nothing is trained. States are as wide as the vocabulary, which is small for a grammar.
//! Everything runs on the CPU, in double precision except for the network.

use crate::device::Host;
use crate::error::{CliError, Result};
use crate::progress::Progress;
use crate::table;
use clap::Args;
use flm::{ModelFolder, text_of};
use flm_data::{Dataset, Layout};
use flm_denoiser::{Dit, DitConfig, Family, folder};
use flm_eval::{Grammar, Quality};
use flm_simplex::Schedule;
use flm_study::exact::{self, ExactFlow, Loss, Nats, Rate, Readers, TIMES, Whose};
use flm_study::{Evaluation, Figures, Symbols};
use serde::Serialize;
use std::path::Path;
use std::path::PathBuf;

/// Sample exact denoisers of the grammar in few steps: the gap that training cannot close
///
/// A masked or uniform-state diffusion draws the tokens of a step independently, so it errs in few
/// steps even with exact marginals. A flow with the exact denoiser errs by the length of its Euler
/// steps. An exact flow map never errs, so it is not sampled.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm eval perfect --data data --steps 1,2,4,8,16,32
  flm eval perfect --data quickstart/data --embedding-from quickstart/flm")]
pub(crate) struct PerfectArgs {
    /// Data folder of grammar sentences, one per row
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Project states through the embedding of this flow, as its network sees them
    #[arg(long, value_name = "MODEL")]
    pub(crate) embedding_from: Option<PathBuf>,
    /// Vocabulary size of the time schedule (`model.schedule_vocab`); 0 for the data's
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        conflicts_with = "embedding_from"
    )]
    pub(crate) schedule_vocab: usize,
    /// Numbers of steps, one set of samples for each
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32])]
    pub(crate) steps: Vec<usize>,
    /// Samples per set
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the samples
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// The report, printed as JSON or as a table.
#[derive(Serialize)]
struct Report {
    data: String,
    seed: u64,
    /// The flow whose embedding projects the states; `None` for full states.
    #[serde(rename = "embedding_from", skip_serializing_if = "Option::is_none")]
    through: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
    /// Vocabulary size of the flow's time schedule.
    schedule_vocab: usize,
    /// Number of validation rows for losses and bounds, and number of times per row.
    rows: usize,
    times: usize,
    flow_losses: Vec<Loss>,
    /// Empty if an embedding is given: discrete diffusions have no projected states.
    bounds: Vec<Rate>,
    samples: Vec<Perfect>,
}

/// Samples of one family at one number of steps.
#[derive(Serialize)]
struct Perfect {
    family: Family,
    steps: usize,
    figures: Quality,
}

/// Samples all families at all numbers of steps.
pub(crate) fn perfect(args: &PerfectArgs) -> Result<String> {
    let fewest = args.steps.iter().copied().min().unwrap_or(0);
    for (option, found) in [("--count", args.count), ("--steps", fewest)] {
        if found == 0 {
            return Err(CliError::input(format!(
                "{option} must be at least 1, found 0"
            )));
        }
    }
    let dataset = Dataset::open(&args.data)?;
    let grammar = distribution(&dataset, &args.data)?;
    let rows = grammar.rows(dataset.meta().length);
    let symbols = Symbols::new(&rows, dataset.tokenizer())?;
    let vocab = dataset.tokenizer().vocab_size();
    let network = match &args.embedding_from {
        Some(model) => Some(network(model, &dataset, &args.data)?),
        None => None,
    };
    let competing = match &network {
        Some((_, config)) => config.schedule_vocab,
        None => args.schedule_vocab,
    };
    let competing = if competing == 0 { vocab } else { competing };
    let schedule = match &network {
        Some((_, config)) => config.schedule()?,
        None => Schedule::new(competing).map_err(|error| CliError::input(error.to_string()))?,
    };
    let exact = |seen| ExactFlow {
        rows: &rows,
        symbols: &symbols,
        schedule: &schedule,
        vocab,
        seen,
    };
    let full = exact(None);
    let through = match &network {
        Some((network, _)) => Some((exact(Some(projection(network, args)?)), network)),
        None => None,
    };
    let readers = Readers {
        full: &full,
        through: through.as_ref().map(|(exact, network)| (exact, *network)),
    };
    let (validation, data) = (dataset.validation(), args.data.display().to_string());
    let report = Report {
        data: data.clone(),
        seed: args.seed,
        through: args
            .embedding_from
            .as_ref()
            .map(|path| path.display().to_string()),
        weights: match &args.embedding_from {
            Some(model) => Some(ModelFolder::open(model)?.weights()?),
            None => None,
        },
        schedule_vocab: competing,
        rows: dataset.validation().rows(),
        times: TIMES,
        flow_losses: {
            let progress = Progress::new("perfect", validation.rows() as u64);
            readers.losses(validation, &data, args.seed, &|done, label| {
                progress.goes_on(done, label)
            })?
        },
        bounds: match &through {
            Some(_) => Vec::new(),
            None => {
                let progress = Progress::new("perfect", validation.rows() as u64);
                readers.rates(validation, &data, args.seed, &|done, label| {
                    progress.goes_on(done, label)
                })?
            }
        },
        samples: samples(
            through.as_ref().map_or(&full, |(exact, _)| exact),
            &grammar,
            &dataset,
            args,
        )?,
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(report.render())
}

/// Returns the grammar of a data folder with one sentence per row.
fn distribution(dataset: &Dataset, data: &Path) -> Result<Grammar> {
    let found = match flm_study::grammar_of(data)? {
        Some(grammar) if dataset.meta().layout == Layout::Rows => return Ok(grammar),
        Some(_) => "sentences packed into blocks",
        None => "another text",
    };
    Err(CliError::input(format!(
        "{}: expected sentences of a grammar, one per row (`flm data prepare --input grammar`), found {found}",
        data.display()
    )))
}

/// Loads the flow whose embedding projects the states.
fn network(model: &Path, dataset: &Dataset, data: &Path) -> Result<(Dit<Host>, DitConfig)> {
    let folder = ModelFolder::open(model)?;
    let config = folder.config();
    if config.family != Family::Flow || config.residual {
        return Err(CliError::input(format!(
            "--embedding-from {}: expected a flow or a flow map of one network, found {}",
            model.display(),
            folder.kind()
        )));
    }
    folder.check_fits(dataset.tokenizer(), dataset.meta().length, data)?;
    Ok(folder::load::<Host>(folder.path(), &Default::default())?)
}

/// Returns the projection of states by the embedding of a network.
fn projection(network: &Dit<Host>, args: &PerfectArgs) -> Result<Vec<f64>> {
    network.embed().projection().ok_or_else(|| {
        let model = args
            .embedding_from
            .as_deref()
            .unwrap_or(Path::new("the model"));
        CliError::input(format!(
            "--embedding-from {}: the embedding has values that are not finite",
            model.display()
        ))
    })
}

/// Draws samples of all families at all numbers of steps.
fn samples(
    flow: &ExactFlow<'_>,
    grammar: &Grammar,
    dataset: &Dataset,
    args: &PerfectArgs,
) -> Result<Vec<Perfect>> {
    let families: &[Family] = match flow.seen {
        Some(_) => &[Family::Flow],
        None => &[Family::Mdlm, Family::Duo, Family::Flow],
    };
    let mut all = Vec::new();
    for &family in families {
        for &steps in &args.steps {
            let progress = Progress::new("perfect", args.count as u64);
            let drawn = (args.count, args.seed);
            let rows = exact::samples::<Host>(flow, family, steps, drawn, &|done, label| {
                progress.goes_on(done, label)
            })?;
            let layout = dataset.meta().layout;
            let texts = rows
                .iter()
                .map(|row| text_of(row, dataset.tokenizer(), layout));
            let sentences = texts.collect::<flm::Result<Vec<_>>>()?;
            let figures = Quality::of(grammar, &sentences);
            all.push(Perfect {
                family,
                steps,
                figures: figures.map_err(|error| CliError::input(error.to_string()))?,
            });
        }
    }
    Ok(all)
}

impl Report {
    /// Formats the report as text.
    fn render(&self) -> String {
        let judged: Vec<Evaluation> = self.samples.iter().map(judged).collect();
        let through = self.through.as_deref().unwrap_or_default();
        let header = |what: &str, first: &str| {
            let cells = [what, "nats/position", "±", first, "< 1/2", "< 3/4", "< 1"];
            cells.map(str::to_owned).to_vec()
        };
        let line = |of: String, nats: &Nats| {
            let figures = [nats.nats_per_place, nats.std_err];
            let figures = figures.iter().chain(&nats.quarters);
            let mut line = vec![of];
            line.extend(figures.map(|nats| format!("{nats:.3}")));
            line
        };
        let mut losses = vec![header("validation loss of a flow", "τ < 1/4")];
        for loss in &self.flow_losses {
            let of = match loss.of {
                Whose::Perfect => "exact denoiser".to_owned(),
                Whose::PerfectThrough => {
                    format!("exact denoiser, through the embedding of {through}")
                }
                Whose::Network => through.to_owned(),
            };
            losses.push(line(of, &loss.nats));
        }
        let mut tables = vec![super::figures::figures(&judged), table::aligned(&losses)];
        if !self.bounds.is_empty() {
            let mut bounds = vec![header("bound of the exact denoiser", "t < 1/4")];
            let rates = self.bounds.iter();
            bounds.extend(rates.map(|rate| line(exact::name(rate.family).to_owned(), &rate.nats)));
            tables.push(table::aligned(&bounds));
        }
        format!(
            "{}{} validation rows of {}, {} times per row; time schedule of the flow for {} tokens\n",
            tables.join("\n"),
            self.rows,
            self.data,
            self.times,
            self.schedule_vocab
        )
    }
}

fn judged(perfect: &Perfect) -> Evaluation {
    Evaluation {
        copied: None,
        name: format!(
            "perfect {}, steps {}",
            exact::name(perfect.family),
            perfect.steps
        ),
        figures: Figures::Grammar(perfect.figures),
        token_entropy: None,
        scores: Vec::new(),
        mauve: Vec::new(),
        drawn: None,
    }
}
