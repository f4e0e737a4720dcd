//! Flows and their flow maps beside discrete diffusion and autoregression: one network, one text, as many evaluations.

mod compare;
mod picture;
mod report;

use super::build;
use super::runs::{Runs, Trained, name, read, same_words, set, words};
use super::write;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// Up to so many steps models are sampled at all temperatures, to be compared at equal entropy.
const FEW: usize = 8;
/// The first is how models were trained; lower ones trade entropy for quality.
const TEMPERATURES: [f64; 4] = [1.0, 0.85, 0.7, 0.5];

/// What the command is told.
#[derive(Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Where runs and samples go; an earlier pipeline there is gone on with
    #[arg(long, value_name = "DIR", default_value = "runs/headline")]
    out: PathBuf,
    /// Where the page, its picture and its numbers go
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    results: PathBuf,
    /// As the page, its picture and its numbers are called
    #[arg(long, value_name = "NAME", default_value = "headline")]
    page: String,
    /// A data folder of real text, in the place of the grammar. An autoregressive model that is trained for it judges
    #[arg(long, value_name = "DIR", requires = "preset")]
    text: Option<PathBuf>,
    /// Sizes and rates of all models of real text: a preset by name or a TOML file
    #[arg(long, value_name = "NAME|FILE", requires = "text")]
    preset: Option<String>,
    /// Override one setting of every training; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Override one setting of every distillation; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set_distilled: Vec<String>,
    /// Evaluations of the network that each training may spend, a pass back counting as two
    #[arg(long, value_name = "N", default_value_t = 499_200)]
    evaluations: u64,
    /// The same for each distillation, all rounds together
    #[arg(long, value_name = "N", default_value_t = 384_000)]
    distillation: u64,
    /// Seeds of trainings, distillations and samples
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Steps in which every model is sampled but the autoregressive one, which takes a step a token
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 128])]
    steps: Vec<usize>,
    /// Samples for each figure
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    samples: usize,
    /// Trainings at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Stop when everything is trained; the same command without it goes on
    #[arg(long)]
    train_only: bool,
    /// Where to train and sample
    #[arg(long, default_value = "cpu")]
    device: String,
    /// What matrix products are made of
    #[arg(long, default_value = "f32", value_name = "f32|bf16")]
    dtype: String,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
    /// Everything at the smallest size and in a temporary folder, to see that it runs
    #[arg(long)]
    smoke: bool,
}

/// A model that is compared.
#[derive(Debug)]
pub(crate) struct Entrant {
    pub(crate) name: &'static str,
    family: &'static str,
    /// What it is distilled from.
    pub(crate) teacher: Option<&'static str>,
}

const fn trained(name: &'static str, family: &'static str) -> Entrant {
    Entrant {
        name,
        family,
        teacher: None,
    }
}

const fn distilled(name: &'static str, teacher: &'static str) -> Entrant {
    Entrant {
        name,
        // The teacher's, which is not asked for again.
        family: "",
        teacher: Some(teacher),
    }
}

pub(crate) const FLOW_MAP: &str = "FMLM";
/// Each behind its teacher.
pub(crate) const ENTRANTS: &[Entrant] = &[
    trained("FLM", "flow"),
    distilled(FLOW_MAP, "FLM"),
    trained("MDLM", "mdlm"),
    distilled("MDLM + SDTT", "MDLM"),
    trained("Duo", "duo"),
    distilled("Duo + DCD", "Duo"),
    trained("AR", "autoregressive"),
];
/// Judges real text; of a seed that no entrant has.
const JUDGE: Entrant = trained("judge", "autoregressive");
const JUDGE_SEED: u64 = 1_000;

/// A model of one seed, with its samples judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) entrant: String,
    pub(crate) seed: u64,
    pub(crate) trained: Trained,
    /// Nats a token of validation rows: exact, or a bound from above; flows have none.
    pub(crate) likelihood: Option<f64>,
    pub(crate) figures: Vec<Figures>,
}

/// Samples in some number of steps at some temperature, judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) steps: usize,
    pub(crate) temperature: f64,
    pub(crate) samples: usize,
    /// Of the whole command, and of all cores together as far as the system tells.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: Option<f64>,
    /// Share of sentences of the language, where it is known.
    pub(crate) valid: Option<f64>,
    pub(crate) nats_per_token: f64,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
    command: String,
}

/// The text itself, judged like samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) rows: usize,
    pub(crate) nats_per_token: f64,
    /// Nats a token of rows as likelihoods count them, where the law is known.
    pub(crate) likelihood: Option<f64>,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
}

/// How large everything is.
struct Size {
    /// Settings of the data beside the preset.
    data: &'static [&'static str],
    /// Settings of every training, and of every distillation.
    training: Vec<String>,
    distilling: Vec<String>,
}

struct Study<'a> {
    arguments: &'a Arguments,
    runs: Runs,
    size: Size,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = match &arguments.flm {
        Some(program) => program.clone(),
        None => build()?,
    };
    if arguments.smoke {
        return smoke(program);
    }
    let study = Study {
        arguments,
        runs: Runs::new(program, &arguments.out)?,
        size: Size {
            data: &[],
            training: arguments.set.clone(),
            distilling: arguments.set_distilled.clone(),
        },
    };
    study.go()
}

/// Everything at the smallest size, on the grammar and on text, in folders that are removed.
pub(crate) fn smoke(program: PathBuf) -> anyhow::Result<()> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let text = home.path().join("text");
    let grammar = Arguments {
        out: home.path().join("grammar"),
        results: home.path().join("results"),
        page: "headline".to_owned(),
        text: None,
        preset: None,
        set: Vec::new(),
        set_distilled: Vec::new(),
        evaluations: 100,
        distillation: 300,
        seeds: vec![0],
        steps: vec![1, 2],
        samples: 4,
        jobs: 2,
        train_only: false,
        device: "cpu".to_owned(),
        dtype: "f32".to_owned(),
        flm: None,
        smoke: true,
    };
    let of_text = Arguments {
        out: home.path().join("of-text"),
        results: home.path().join("results"),
        page: "headline-text".to_owned(),
        text: Some(text.clone()),
        preset: Some("shakespeare-char".to_owned()),
        ..grammar.clone()
    };
    let settings = |words: &str| words.split_whitespace().map(str::to_owned).collect();
    for arguments in [&grammar, &of_text] {
        let study = Study {
            arguments,
            runs: Runs::new(program.clone(), &arguments.out)?,
            size: Size {
                data: &["data.sentences=600"],
                training: settings(
                    "model.width=16 model.blocks=1 model.heads=2 model.cond_dim=8 \
                     train.batch=4 train.micro_batch=2 train.validation_rows=2",
                ),
                distilling: settings(
                    "distill.train.batch=4 distill.train.micro_batch=2 distill.train.validation_rows=2",
                ),
            },
        };
        if arguments.text.is_some() {
            let book = "docs/concepts.md";
            study.runs.flm.run(&words(&[
                "data",
                "prepare",
                "--input",
                book,
                "--tokenizer",
                "chars",
                "--length",
                "16",
                "--pack",
                "--validation-share",
                "0.05",
                "--out",
                &text.display().to_string(),
            ]))?;
        }
        study.go()?;
        // What is finished is not done again.
        let page = arguments.results.join(format!("{}.json", arguments.page));
        let before = fs::read_to_string(&page)?;
        study.go()?;
        ensure!(
            fs::read_to_string(&page)? == before,
            "{} changed when nothing was done",
            page.display()
        );
    }
    Ok(())
}

impl Study<'_> {
    fn go(&self) -> anyhow::Result<()> {
        self.prepare()?;
        let seeds = &self.arguments.seeds;
        let mut chains: VecDeque<Vec<(&Entrant, u64)>> = VecDeque::new();
        if self.arguments.text.is_some() {
            chains.push_back(vec![(&JUDGE, JUDGE_SEED)]);
        }
        for &seed in seeds {
            for first in ENTRANTS.iter().filter(|entrant| entrant.teacher.is_none()) {
                let pupils = ENTRANTS.iter().filter(|e| e.teacher == Some(first.name));
                chains.push_back(
                    [first]
                        .into_iter()
                        .chain(pupils)
                        .map(|e| (e, seed))
                        .collect(),
                );
            }
        }
        self.train_all(chains)?;
        if self.arguments.train_only {
            return Ok(());
        }
        let text = self.text()?;
        let mut finished = Vec::new();
        for entrant in ENTRANTS {
            for &seed in seeds {
                finished.push(self.finish(entrant, seed)?);
            }
        }
        let budgets = (self.arguments.evaluations, self.arguments.distillation);
        let (folder, page) = (&self.arguments.results, self.arguments.page.as_str());
        report::publish(&finished, &text, budgets, folder, page)
    }

    fn data(&self) -> String {
        match &self.arguments.text {
            Some(data) => data.display().to_string(),
            None => self.runs.path(&["data"]),
        }
    }

    fn prepare(&self) -> anyhow::Result<()> {
        if self.arguments.text.is_some() {
            return Ok(());
        }
        let preset = words(&["--preset", "grammar-tiny"]);
        self.runs
            .prepare(&[preset, set("", self.size.data)].concat())
    }

    /// Each chain from its first to its last, so many at a time as there are jobs.
    fn train_all(&self, chains: VecDeque<Vec<(&Entrant, u64)>>) -> anyhow::Result<()> {
        let waiting = Mutex::new(chains);
        let work = || -> anyhow::Result<()> {
            loop {
                let next = waiting.lock().expect("no worker panics").pop_front();
                let Some(chain) = next else { return Ok(()) };
                for (entrant, seed) in chain {
                    if let Err(error) = self.train(entrant, seed) {
                        // The others finish what they have begun, and begin nothing.
                        waiting.lock().expect("no worker panics").clear();
                        return Err(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let jobs = self.arguments.jobs.max(1);
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("no worker panics"))
        })
    }

    /// Trains a model, or reads what its training took.
    fn train(&self, entrant: &Entrant, seed: u64) -> anyhow::Result<Trained> {
        let name = name(entrant.name, seed);
        let arguments = self.training(entrant, seed);
        let command = self.runs.command(&name, &arguments);
        let place = PathBuf::from(self.runs.path(&["trained", &format!("{name}.json")]));
        if place.is_file() {
            let trained: Trained = read(&place)?;
            same(&place, &trained.command, &command)?;
            return Ok(trained);
        }
        println!("{}, seed {seed}", entrant.name);
        let trained = self.runs.train(&name, &arguments)?;
        write(&place, &serde_json::to_string_pretty(&trained)?)?;
        Ok(trained)
    }

    fn training(&self, entrant: &Entrant, seed: u64) -> Vec<String> {
        let data = self.data();
        let preset = self.arguments.preset.as_deref();
        let family = |name: &'static str| match ENTRANTS.iter().find(|e| e.name == name) {
            Some(teacher) => teacher.family,
            None => entrant.family,
        };
        let (mut arguments, section, budget) = match entrant.teacher {
            Some(teacher) => {
                let run = self.runs.run(&name(teacher, seed));
                let preset = preset.unwrap_or_else(|| of_grammar(family(teacher)));
                (
                    words(&["distill", "--preset", preset, "--teacher", &run]),
                    "distill.train.",
                    self.arguments.distillation,
                )
            }
            None => {
                let preset = preset.unwrap_or_else(|| of_grammar(entrant.family));
                (
                    words(&["train", "--preset", preset]),
                    "train.",
                    self.arguments.evaluations,
                )
            }
        };
        if self.arguments.preset.is_some() && entrant.teacher.is_none() {
            arguments.extend(set("model.family=", &[entrant.family]));
        }
        arguments.extend(words(&[
            "--data",
            &data,
            "--evaluations",
            &budget.to_string(),
        ]));
        arguments.extend(set(section, &[&format!("seed={seed}")]));
        let more = match entrant.teacher {
            Some(_) => &self.size.distilling,
            None => &self.size.training,
        };
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        arguments.extend(set("", &more));
        arguments.extend(self.place());
        arguments
    }

    /// A trained model with its samples judged.
    fn finish(&self, entrant: &Entrant, seed: u64) -> anyhow::Result<Finished> {
        let trained = self.train(entrant, seed)?;
        println!("{}, seed {seed}: samples", entrant.name);
        let mut figures = Vec::new();
        for temperature in TEMPERATURES {
            if entrant.family == "autoregressive" {
                figures.push(self.sample(entrant, seed, None, temperature)?);
                continue;
            }
            let steps = self.arguments.steps.iter().copied();
            for steps in steps.filter(|&steps| temperature == 1.0 || steps <= FEW) {
                figures.push(self.sample(entrant, seed, Some(steps), temperature)?);
            }
        }
        Ok(Finished {
            entrant: entrant.name.to_owned(),
            seed,
            likelihood: self.likelihood(entrant, seed)?,
            trained,
            figures,
        })
    }

    /// Samples of a model, judged, or what was found of them before.
    fn sample(
        &self,
        entrant: &Entrant,
        seed: u64,
        steps: Option<usize>,
        temperature: f64,
    ) -> anyhow::Result<Figures> {
        let run = name(entrant.name, seed);
        let number = steps.map_or_else(|| "all".to_owned(), |steps| steps.to_string());
        let sampled = format!("{run}-{number}-{temperature}");
        let samples = self.runs.path(&["samples", &format!("{sampled}.jsonl")]);
        let mut arguments = words(&["sample", "--model", &self.runs.run(&run)]);
        if let Some(steps) = steps {
            arguments.extend(words(&["--steps", &steps.to_string()]));
        }
        for (option, value) in [
            ("--count", self.arguments.samples.to_string()),
            ("--seed", seed.to_string()),
            ("--temperature", temperature.to_string()),
            ("--out", samples.clone()),
        ] {
            arguments.extend(words(&[option, &value]));
        }
        arguments.extend(self.place());
        let command = format!("flm {}", arguments.join(" "));
        let place = PathBuf::from(self.runs.path(&["judged", &format!("{sampled}.json")]));
        if place.is_file() {
            let figures: Figures = read(&place)?;
            same(&place, &figures.command, &command)?;
            return Ok(figures);
        }
        fs::create_dir_all(self.runs.path(&["samples"]))?;
        arguments.push("--force".to_owned());
        let begun = Instant::now();
        let used = self.runs.flm.run(&arguments)?;
        let seconds = begun.elapsed().as_secs_f64();
        let judged = self.judge(&samples)?;
        let figures = Figures {
            steps: judged
                .value
                .pointer("/drawn/steps")
                .and_then(serde_json::Value::as_u64)
                .context("samples do not tell their steps")? as usize,
            temperature,
            samples: self.arguments.samples,
            seconds,
            cpu_seconds: used.cpu_seconds,
            valid: judged
                .value
                .pointer("/figures/valid")
                .and_then(|v| v.as_f64()),
            nats_per_token: judged.figure(self.nats())?,
            entropy: judged.figure(self.entropy())?,
            distinct: judged.figure("/figures/distinct")?,
            command,
        };
        write(&place, &serde_json::to_string_pretty(&figures)?)?;
        Ok(figures)
    }

    /// What validation rows tell of a model that has a likelihood: nats a token.
    fn likelihood(&self, entrant: &Entrant, seed: u64) -> anyhow::Result<Option<f64>> {
        if entrant.teacher.is_some() || entrant.family == "flow" {
            return Ok(None);
        }
        let run = name(entrant.name, seed);
        let bound = self.bound(&run)?;
        Ok(bound
            .pointer("/models/0/nats_per_token")
            .and_then(|nats| nats.as_f64()))
    }

    /// The answer of `flm eval bound` of a run, asked for once.
    fn bound(&self, run: &str) -> anyhow::Result<serde_json::Value> {
        let place = PathBuf::from(self.runs.path(&["judged", &format!("{run}-bound.json")]));
        if !place.is_file() {
            let mut arguments = words(&["eval", "bound", &self.runs.run(run), "--json"]);
            arguments.extend(words(&["--data", &self.data()]));
            arguments.extend(self.place());
            write(&place, &self.runs.flm.ask(&arguments)?)?;
        }
        read(&place)
    }

    /// The text itself: its validation rows as if they were samples.
    fn text(&self) -> anyhow::Result<Text> {
        let judged = self.judge(&self.data())?;
        let ar = name("AR", self.arguments.seeds[0]);
        Ok(Text {
            rows: judged.figure("/figures/samples")? as usize,
            nats_per_token: judged.figure(self.nats())?,
            likelihood: self.bound(&ar)?["grammar_nats_per_token"].as_f64(),
            entropy: judged.figure(self.entropy())?,
            distinct: judged.figure("/figures/distinct")?,
        })
    }

    fn judge(&self, samples: &str) -> anyhow::Result<Judged> {
        let mut arguments = words(&[samples, "--data", &self.data()]);
        if self.arguments.text.is_some() {
            let judge = self.runs.run(&name(JUDGE.name, JUDGE_SEED));
            arguments.extend(words(&["--scorer", &judge]));
        }
        let value = self.runs.judge(&arguments)?;
        Ok(Judged { value })
    }

    /// Where `flm eval` tells of quality.
    fn nats(&self) -> &'static str {
        match self.arguments.text {
            Some(_) => "/scores/0/nats_per_token",
            None => "/figures/oracle_nats_per_token",
        }
    }

    /// And of entropy: of a grammar's words, or of tokens.
    fn entropy(&self) -> &'static str {
        match self.arguments.text {
            Some(_) => "/token_entropy",
            None => "/figures/entropy",
        }
    }

    /// Where networks compute.
    fn place(&self) -> Vec<String> {
        let (device, dtype) = (&self.arguments.device, &self.arguments.dtype);
        words(&["--device", device, "--dtype", dtype])
    }
}

/// The preset of a family on the grammar.
fn of_grammar(family: &str) -> &'static str {
    match family {
        "mdlm" => "grammar-mdlm",
        "duo" => "grammar-duo",
        "autoregressive" => "grammar-ar",
        _ => "grammar-tiny",
    }
}

/// Refuses what another command made.
fn same(place: &Path, then: &str, now: &str) -> anyhow::Result<()> {
    ensure!(
        same_words(then, now),
        "{} was made by another command: remove it, or choose another --out\n  then {then}\n  now  {now}",
        place.display()
    );
    Ok(())
}

/// An answer of `flm eval`.
struct Judged {
    value: serde_json::Value,
}

impl Judged {
    fn figure(&self, place: &str) -> anyhow::Result<f64> {
        self.value
            .pointer(place)
            .and_then(serde_json::Value::as_f64)
            .with_context(|| format!("flm eval tells no {place}: {}", self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What some training took.
    pub(super) fn trained() -> Trained {
        Trained {
            steps: 1,
            evaluations: 1,
            seconds: 1.0,
            used: super::super::flm::Used::default(),
            command: String::new(),
            commit: None,
        }
    }

    #[test]
    fn teachers_come_before_their_pupils() {
        for (place, entrant) in ENTRANTS.iter().enumerate() {
            if let Some(teacher) = entrant.teacher {
                assert_eq!(ENTRANTS[place - 1].name, teacher);
            }
        }
    }
}
