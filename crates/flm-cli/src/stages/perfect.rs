//! What models would write that know the grammar's law.

mod flow;

use super::eval::{Figures, Judged};
use super::train::check_fits;
use super::{inspect, prepare, purpose};
use crate::args::PerfectArgs;
use crate::error::{CliError, Result};
use crate::progress::Progress;
use crate::{files, stop, table};
use burn::tensor::{Tensor, TensorData};
use burn_flex::Flex;
use flm_data::{Dataset, Layout, TextTokenizer};
use flm_denoiser::{Dit, DitConfig, Dropout, Family, folder};
use flm_eval::{GrammarRows, Posterior, Quality};
use flm_simplex::Schedule;
use flm_simplex::stream::generator;
use flm_train::Workers;
use flow::{Exact, Noisy};
use rand::{Rng, RngExt};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Times at which each row is looked at, as many in each quarter.
const TIMES: usize = 8;

/// What is printed as JSON.
#[derive(Serialize)]
struct Report {
    data: String,
    seed: u64,
    /// By whose embedding the flow sees; in full where none is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<String>,
    /// Of all validation rows, all with the same noise.
    rows: usize,
    flow_losses: Vec<Loss>,
    samples: Vec<Perfect>,
}

/// A flow's validation loss: cross-entropy in nats a place, padding included, at times uniform in τ.
#[derive(Serialize)]
struct Loss {
    of: Whose,
    nats_per_place: f64,
    /// Of the choice of rows, times and noise.
    std_err: f64,
    /// The same for times in each quarter of τ.
    quarters: [f64; 4],
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Whose {
    /// Of who knows the law and sees states in full.
    Perfect,
    /// Of who knows the law and sees states through the network's embedding.
    PerfectThrough,
    /// Of the network.
    Network,
}

/// Samples of one kind.
#[derive(Serialize)]
struct Perfect {
    family: Kind,
    steps: usize,
    figures: Quality,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Mdlm,
    Flow,
}

/// Samples both, in all numbers of steps.
pub(crate) fn perfect(args: &PerfectArgs) -> Result<String> {
    for (option, found) in [("--count", args.count), ("--steps", smallest(&args.steps))] {
        if found == 0 {
            return Err(CliError::input(format!(
                "{option} must be at least 1, found 0"
            )));
        }
    }
    let dataset = Dataset::open(&args.data)?;
    let grammar = prepare::grammar_of(&args.data)?
        .filter(|_| dataset.meta().layout == Layout::Rows)
        .ok_or_else(|| {
            CliError::input(format!(
                "{} is not of a grammar's sentences, a row each, whose law would be known",
                args.data.display()
            ))
        })?;
    let rows = grammar.rows(dataset.meta().length);
    let unknown = vec![0.0; rows.length() * rows.symbols()];
    let any = rows.given(&unknown).ok_or_else(|| {
        CliError::input(format!(
            "no sentence of {} fits into its rows of {} tokens",
            args.data.display(),
            rows.length()
        ))
    })?;
    let network = match &args.through {
        Some(model) => Some(network(model, &dataset, &args.data)?),
        None => None,
    };
    let schedule = match (&network, args.schedule_vocab) {
        (Some((_, config)), _) => config.schedule(),
        (None, 0) => Schedule::new(dataset.tokenizer().vocab_size()),
        (None, vocab) => Schedule::new(vocab),
    };
    let schedule = schedule.map_err(|error| CliError::input(error.to_string()))?;
    let exact = |seen| Exact::new(&rows, &schedule, dataset.tokenizer(), seen);
    let full = exact(None);
    let through = network
        .as_ref()
        .map(|(network, _)| exact(projection(network)));
    let both = through.as_ref().zip(network.as_ref());
    let both = both.map(|(exact, (network, _))| (exact, network));
    let flow_losses = losses(&full, both, &dataset, args)?;
    let exact = through.as_ref().unwrap_or(&full);
    let mut samples = Vec::new();
    for family in [Kind::Mdlm, Kind::Flow] {
        for &steps in &args.steps {
            let sentence = |index: usize| {
                let mut rng = generator(args.seed, purpose::PERFECT, index as u64, 0);
                Ok(rows.sentence(&match family {
                    Kind::Mdlm => unmask(&rows, &any, steps, &mut rng),
                    Kind::Flow => exact.sample(steps, &mut rng),
                }))
            };
            let label = format!("{} in {steps} steps", told(family));
            let sentences = side_by_side(args.count, &label, sentence)?;
            samples.push(Perfect {
                family,
                steps,
                figures: Quality::of(&grammar, &sentences)
                    .map_err(|e| CliError::input(e.to_string()))?,
            });
        }
    }
    let report = Report {
        data: args.data.display().to_string(),
        seed: args.seed,
        through: args
            .through
            .as_ref()
            .map(|model| model.display().to_string()),
        rows: dataset.validation().rows(),
        flow_losses,
        samples,
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(report.told())
}

impl Report {
    /// The report in text.
    fn told(&self) -> String {
        let judged: Vec<Judged> = self.samples.iter().map(judged).collect();
        let through = self.through.as_deref().unwrap_or_default();
        let header = ["validation loss of a flow", "nats a place", "±"];
        let quarters = ["τ < 1/4", "< 1/2", "< 3/4", "< 1"];
        let header = header.iter().chain(&quarters).map(|&cell| cell.to_owned());
        let mut lines = vec![header.collect::<Vec<_>>()];
        for loss in &self.flow_losses {
            let of = match loss.of {
                Whose::Perfect => "of who knows the law".to_owned(),
                Whose::PerfectThrough => format!("and sees through the embedding of {through}"),
                Whose::Network => through.to_owned(),
            };
            let mut line = vec![of];
            line.extend([loss.nats_per_place, loss.std_err].map(|nats| format!("{nats:.3}")));
            line.extend(loss.quarters.map(|nats| format!("{nats:.3}")));
            lines.push(line);
        }
        format!(
            "{}\n{}{} validation rows of {}, {TIMES} times each\n",
            table::figures(&judged),
            table::aligned(&lines),
            self.rows,
            self.data
        )
    }
}

fn smallest(numbers: &[usize]) -> usize {
    numbers.iter().copied().min().unwrap_or(0)
}

fn told(family: Kind) -> &'static str {
    match family {
        Kind::Mdlm => "masked diffusion",
        Kind::Flow => "flow",
    }
}

fn judged(perfect: &Perfect) -> Judged {
    Judged {
        name: format!("perfect {}, steps {}", told(perfect.family), perfect.steps),
        figures: Figures::Grammar(perfect.figures),
        token_entropy: None,
        scores: Vec::new(),
        drawn: None,
    }
}

/// A token as rows of the law have it; none if it is no word of it.
pub(crate) fn symbol(
    rows: &GrammarRows<'_>,
    tokenizer: &TextTokenizer,
    token: u32,
) -> Option<usize> {
    match token {
        _ if token == tokenizer.eos_id() => Some(rows.end()),
        _ if token == tokenizer.pad_id() => Some(rows.padding()),
        _ => rows.symbol(&tokenizer.token(token)?),
    }
}

/// The flow whose embedding is looked through.
fn network(model: &Path, dataset: &Dataset, data: &Path) -> Result<(Dit<Flex>, DitConfig)> {
    let folder = files::model_folder(model)?;
    let config = folder::read_config(&folder)?;
    if config.family != Family::Flow || config.residual {
        return Err(CliError::input(format!(
            "--through {}: expected a flow or a flow map that denoises, found {}",
            model.display(),
            inspect::kind(&config)
        )));
    }
    check_fits(&folder, &config, dataset, data)?;
    let (network, _) = folder::load::<Flex>(&folder, &Default::default())?;
    Ok((network, config))
}

/// The projection onto what a network's embedding leaves of a state, `[vocabulary, vocabulary]`.
fn projection(network: &Dit<Flex>) -> Option<Vec<f64>> {
    let projection = network.embed().projection()?;
    Some(projection.into_data().iter::<f64>().collect())
}

/// Of all validation rows, each at a few times, with noise that no other has.
fn losses(
    full: &Exact<'_>,
    through: Option<(&Exact<'_>, &Dit<Flex>)>,
    dataset: &Dataset,
    args: &PerfectArgs,
) -> Result<Vec<Loss>> {
    let split = dataset.validation();
    if split.rows() < 2 {
        return Err(CliError::input(format!(
            "{} must have at least 2 validation rows, found {}",
            args.data.display(),
            split.rows()
        )));
    }
    let whose: &[Whose] = match through {
        Some(_) => &[Whose::Perfect, Whose::PerfectThrough, Whose::Network],
        None => &[Whose::Perfect],
    };
    // Of each row those of each quarter.
    let all = side_by_side(split.rows(), "losses", |number| {
        let tokens = split.row(number)?;
        let symbols = full.symbols(&tokens, dataset.tokenizer()).ok_or_else(|| {
            CliError::input(format!(
                "row {number} of validation of {} has a token that is no word of its grammar",
                args.data.display()
            ))
        })?;
        let mut rng = generator(args.seed, purpose::PERFECT, number as u64, 1);
        let mut found = vec![[0.0; 4]; whose.len()];
        for noisy in full.noisy(&tokens, TIMES, &mut rng) {
            let nats = |whose: &Whose| match (whose, through) {
                (Whose::PerfectThrough, Some((exact, _))) => exact.nats(&noisy, &symbols),
                (Whose::Network, Some((_, network))) => of_network(network, &noisy, &tokens),
                _ => full.nats(&noisy, &symbols),
            };
            let quarter = ((noisy.tau * 4.0) as usize).min(3);
            for (found, whose) in found.iter_mut().zip(whose) {
                found[quarter] += nats(whose) * 4.0 / TIMES as f64;
            }
        }
        Ok(found)
    })?;
    let count = all.len() as f64;
    let of = |(index, &of): (usize, &Whose)| {
        let rows = || all.iter().map(|row| row[index]);
        let quarters = [0, 1, 2, 3].map(|q| rows().map(|row| row[q]).sum::<f64>() / count);
        let mean = quarters.iter().sum::<f64>() / 4.0;
        let squares = rows().map(|row| (row.iter().sum::<f64>() / 4.0 - mean).powi(2));
        Loss {
            of,
            nats_per_place: mean,
            std_err: (squares.sum::<f64>() / (count - 1.0) / count).sqrt(),
            quarters,
        }
    };
    Ok(whose.iter().enumerate().map(of).collect())
}

/// Cross-entropy of a row in nats a place, given a noisy one, by a network.
fn of_network(network: &Dit<Flex>, noisy: &Noisy, tokens: &[u32]) -> f64 {
    let device = Default::default();
    let length = tokens.len();
    let state = TensorData::new(noisy.state.clone(), [1, length, noisy.state.len() / length]);
    let state = network.embed().project(Tensor::from_data(state, &device));
    let tau = Tensor::from_floats([noisy.tau as f32], &device);
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [1, length]), &device);
    let prediction = network.forward(state, tau.clone(), tau, &mut Dropout::off());
    -f64::from(prediction.log_probs(ids).mean().into_scalar())
}

/// So many answers, on all cores.
fn side_by_side<T: Send>(
    count: usize,
    label: &str,
    answer: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (progress, done) = (Progress::new("perfect", count as u64), AtomicU64::new(0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let answers = Workers::new(cores.min(count))?.map(count, |index| {
        if stop::asked() {
            return Err(CliError::interrupted("stopped before all was drawn"));
        }
        let answer = answer(index)?;
        progress.update(done.fetch_add(1, Ordering::Relaxed) + 1, label);
        Ok(answer)
    });
    answers.into_iter().collect()
}

/// Masked diffusion with exact marginals, as `flm_discrete::mdlm` samples it: in each step every blank is filled with the same chance, by what stands
/// there in a row of its own from the law given what was filled before.
fn unmask<R: Rng + ?Sized>(
    rows: &GrammarRows<'_>,
    any: &Posterior<'_>,
    steps: usize,
    rng: &mut R,
) -> Vec<usize> {
    let mut row: Vec<Option<usize>> = vec![None; rows.length()];
    for step in 0..steps {
        let chance = 1.0 / (steps - step) as f64;
        let filled: Vec<usize> = (0..row.len())
            .filter(|&place| row[place].is_none() && rng.random::<f64>() < chance)
            .collect();
        if filled.is_empty() {
            continue;
        }
        let known = known(rows, &row);
        // What was drawn apart may go together in no sentence: then the law says nothing, and what it says of any row stands in.
        let law = rows.given(&known);
        let law = law.as_ref().unwrap_or(any);
        for place in filled {
            row[place] = Some(law.draw(rng)[place]);
        }
    }
    row.into_iter().flatten().collect()
}

/// Weights that leave nothing but what is known.
fn known(rows: &GrammarRows<'_>, row: &[Option<usize>]) -> Vec<f64> {
    let mut weights = vec![0.0; rows.length() * rows.symbols()];
    for (place, symbol) in weights.chunks_mut(rows.symbols()).zip(row) {
        if let Some(symbol) = symbol {
            place.fill(f64::NEG_INFINITY);
            place[*symbol] = 0.0;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use flm_eval::Grammar;
    use flm_simplex::Denoiser;
    use flm_simplex::law::DiscreteLaw;
    use flm_simplex::noise::gaussian;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const CITIES: &str = "start S\nS -> new york | san diego @2 | los angeles";

    fn valid(mut sample: impl FnMut(&mut ChaCha8Rng) -> String) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let cities = ["new york", "san diego", "los angeles"];
        let found = (0..2_000).filter(|_| cities.contains(&sample(&mut rng).as_str()));
        found.count() as f64 / 2_000.0
    }

    #[test]
    fn masked_diffusion_errs_as_the_factorization_does() {
        let grammar = Grammar::parse(CITIES).unwrap();
        let rows = grammar.rows(3);
        let any = vec![0.0; 3 * rows.symbols()];
        let any = rows.given(&any).unwrap();
        for steps in [1, 4, 64] {
            let found = valid(|rng| rows.sentence(&unmask(&rows, &any, steps, rng)));
            // Both words fall into one step with chance 1/steps, and agree then with chance 1/16 + 1/4 + 1/16.
            let expected = 1.0 - 0.625 / steps as f64;
            // Hoeffding: further with chance 2·exp(−2·2000·0.06²) < 2e-6.
            assert!((found - expected).abs() < 0.06, "{steps} steps: {found}");
        }
    }

    #[test]
    fn the_exact_denoiser_is_the_one_of_the_enumerated_law() {
        let grammar = Grammar::parse(CITIES).unwrap();
        let rows = grammar.rows(3);
        let tokenizer = TextTokenizer::from_words(grammar.words()).unwrap();
        let schedule = Schedule::new(tokenizer.vocab_size()).unwrap();
        let city = |words: [&str; 2]| {
            let [one, other] = words.map(|word| tokenizer.token_id(word).unwrap() as usize);
            vec![one, other, tokenizer.eos_id() as usize]
        };
        let cities = [["new", "york"], ["san", "diego"], ["los", "angeles"]].map(city);
        let law =
            DiscreteLaw::new(tokenizer.vocab_size(), cities.to_vec(), &[0.25, 0.5, 0.25]).unwrap();
        let exact = Exact::new(&rows, &schedule, &tokenizer, None);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for t in [0.0, 0.3, 0.8, 0.99] {
            let state = gaussian::<Flex, _, 3>(law.state_shape(1), &mut rng, &Default::default());
            let found = exact.believe(state.clone(), schedule.tau_of_t(t), 0.0);
            let found: Tensor<Flex, 3> = exact.mean(&found);
            let error: f32 = (found - law.delta(state, t, t)).abs().max().into_scalar();
            assert!(error < 1e-4, "t = {t}: {error}");
        }
        // It knows where it goes after one look.
        assert_eq!(valid(|rng| rows.sentence(&exact.sample(2, rng))), 1.0);
    }

    #[test]
    fn an_embedding_hides_what_it_maps_alike() {
        let grammar = Grammar::parse(CITIES).unwrap();
        let rows = grammar.rows(3);
        let tokenizer = TextTokenizer::from_words(grammar.words()).unwrap();
        let vocab = tokenizer.vocab_size();
        let schedule = Schedule::new(vocab).unwrap();
        let chances = |seen| {
            let exact = Exact::new(&rows, &schedule, &tokenizer, Some(seen));
            let mut state = vec![0.0; 3 * vocab];
            state[tokenizer.token_id("new").unwrap() as usize] = 1.0;
            exact.believe(
                Tensor::<Flex, 1>::from_floats(state.as_slice(), &Default::default())
                    .reshape([1, 3, vocab]),
                0.5,
                0.5,
            )
        };
        let at = |word| rows.symbol(word).unwrap();
        // Of an embedding of nothing the law is left, and all of it by one that keeps everything.
        let nothing = chances(vec![0.0; vocab * vocab]);
        assert!(
            (nothing[at("new")] - 0.25).abs() < 1e-12 && (nothing[at("san")] - 0.5).abs() < 1e-12
        );
        let mut whole = vec![0.0; vocab * vocab];
        (0..vocab).for_each(|i| whole[i * (vocab + 1)] = 1.0);
        let all = chances(whole.clone());
        assert!(all[at("new")] > 0.9, "{}", all[at("new")]);
        // One that has no direction for *new* sees what it is not.
        let new = tokenizer.token_id("new").unwrap() as usize;
        whole[new * (vocab + 1)] = 0.0;
        let rest = chances(whole);
        assert!(rest[at("new")] < all[at("new")] && rest[at("new")] > nothing[at("new")]);
    }
}
