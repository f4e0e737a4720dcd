//! Models that are trained, sampled and evaluated alike: a table of models becomes tasks, and their records become figures.

use super::compare::{Figures, Finished, Trained};
use super::perfect::Perfect;
use super::runner::{Kind, Record, Runner, State, Task, words};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Up to this many steps, models are sampled at all temperatures, to be compared at equal entropy.
pub(crate) const FEW: usize = 8;

/// The first is how models were trained; lower ones trade entropy for quality.
pub(crate) const TEMPERATURES: [f64; 4] = [1.0, 0.85, 0.7, 0.5];

/// A model of the study, or another way to sample one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// The model that it is distilled from.
    pub(crate) teacher: Option<&'static str>,
    /// The model that these samples are of.
    pub(crate) samples_of: Option<&'static str>,
    /// Arguments of its training, without those that the study adds.
    pub(crate) training: Vec<String>,
    /// Evaluations that its training may spend.
    pub(crate) evaluations: u64,
    /// Options of `flm sample`.
    pub(crate) options: &'static [&'static str],
    /// One training for all seeds.
    pub(crate) shared: bool,
    /// The number of steps that it is trained for, if it is one.
    pub(crate) only: Option<usize>,
    /// One step takes the likeliest tokens at any temperature, so the scale of its noise takes the place of the temperature.
    pub(crate) scales_noise: bool,
    /// It takes a step for each token.
    pub(crate) autoregressive: bool,
    /// `flm eval bound` knows its likelihood.
    pub(crate) likelihood: bool,
    /// It has a line in the picture.
    pub(crate) drawn: bool,
}

/// A comparison: a model in a number of steps with another.
pub(crate) type Claim = ((&'static str, usize), (&'static str, usize));

/// The models of a study, and what its page compares.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    /// The pipeline's name.
    pub(crate) pipeline: &'static str,
    /// Each behind its teacher, and other ways to sample behind their model.
    pub(crate) models: Vec<Model>,
    pub(crate) claims: Vec<Claim>,
}

/// A table of models, and how they are trained and sampled.
pub(crate) struct Study {
    pub(crate) table: Table,
    pub(crate) data: Data,
    pub(crate) seeds: Vec<u64>,
    pub(crate) steps: Vec<usize>,
    pub(crate) temperatures: &'static [f64],
    pub(crate) samples: usize,
    /// Arguments of every command that runs a network.
    pub(crate) device: Vec<String>,
}

/// What the models learn.
pub(crate) enum Data {
    /// The grammar corpus, by arguments of `flm data prepare`; its exact distribution scores the samples.
    Grammar(Vec<String>),
    /// A data folder; a model that is trained for it scores the samples.
    Text { folder: String, scorer: Box<Model> },
}

/// The seed of the scorer, which no model of the study has.
pub(crate) const SCORER_SEED: u64 = 1_000;

/// The numbers of a study.
#[derive(Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) text: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) perfect: Option<Perfect>,
    pub(crate) runs: Vec<Finished>,
}

/// The validation rows, evaluated like samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) rows: usize,
    pub(crate) nats_per_token: f64,
    /// Nats per token as likelihoods count them, where the distribution is known.
    pub(crate) likelihood: Option<f64>,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
}

/// The name of a run's files.
fn name(model: &str, seed: u64) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let joined = model.replace(", ", "-").replace(" + ", "-");
    let words: String = joined.chars().map(plain).collect();
    format!("{words}-{seed}")
}

impl Study {
    /// Trains, samples and evaluates every model whose name contains `only`; returns the numbers of all that are finished.
    pub(crate) fn run(&self, runner: &Runner, only: &str) -> anyhow::Result<Found> {
        self.train(runner, only)?;
        let mut runs = Vec::new();
        for model in &self.table.models {
            for &seed in self.seeds_of(model) {
                let training = self.training(runner, self.trained(model), seed);
                let chosen = name(model.name, seed).contains(only);
                if chosen || runner.state(&training)? == State::Done {
                    runs.push(self.finish(runner, model, seed)?);
                }
            }
        }
        Ok(Found {
            text: self.text(runner)?,
            perfect: None,
            runs,
        })
    }

    pub(crate) fn train(&self, runner: &Runner, only: &str) -> anyhow::Result<()> {
        self.check()?;
        if let Data::Grammar(arguments) = &self.data {
            runner.run(&Task::new("data", Kind::Data, "data prepare").with(arguments))?;
        }
        runner.run_all(self.chains(runner, only))
    }

    /// Refuses what would only fail after all trainings, or train a run twice.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.seeds.is_empty() && !self.steps.is_empty() && !self.steps.contains(&0),
            "--seeds and --steps need at least one number, and steps start at 1"
        );
        ensure!(self.samples > 0, "--samples must be at least 1");
        for (i, seed) in self.seeds.iter().enumerate() {
            ensure!(!self.seeds[..i].contains(seed), "--seeds has {seed} twice");
            ensure!(
                *seed != SCORER_SEED,
                "--seeds {seed} is the seed of the scorer: choose another"
            );
        }
        Ok(())
    }

    fn seeds_of(&self, model: &Model) -> &[u64] {
        match model.shared {
            true => &self.seeds[..1],
            false => &self.seeds,
        }
    }

    fn model(&self, name: &str) -> &Model {
        let found = self.table.models.iter().find(|model| model.name == name);
        found.expect("the table names its own models")
    }

    /// The model that was trained.
    fn trained<'a>(&'a self, model: &'a Model) -> &'a Model {
        model.samples_of.map_or(model, |name| self.model(name))
    }

    /// The training's name; a shared one has the first seed.
    fn run_name(&self, model: &Model, seed: u64) -> String {
        name(model.name, if model.shared { self.seeds[0] } else { seed })
    }

    pub(crate) fn folder(&self, runner: &Runner) -> String {
        match &self.data {
            Data::Grammar(_) => runner.data(),
            Data::Text { folder, .. } => folder.clone(),
        }
    }

    /// The task that trains a model.
    fn training(&self, runner: &Runner, model: &Model, seed: u64) -> Task {
        let section = match model.training.first().map(String::as_str) {
            Some("distill") => "distill.train",
            _ => "train",
        };
        let task = Task::new(&self.run_name(model, seed), Kind::Training, "")
            .with(&model.training)
            .with(["--data", &self.folder(runner)])
            .with(["--evaluations", &model.evaluations.to_string()])
            .with(["--set", &format!("{section}.seed={seed}")])
            .with(&self.device);
        match model.teacher {
            Some(teacher) => {
                let teacher = self.run_name(self.model(teacher), seed);
                task.with(["--teacher", &runner.folder(&teacher)])
                    .reads(&teacher)
            }
            None => task,
        }
    }

    /// Trainings that follow from one another, by seed.
    fn chains(&self, runner: &Runner, only: &str) -> Vec<Vec<Task>> {
        let mut chains: Vec<Vec<Task>> = Vec::new();
        if let Data::Text { scorer, .. } = &self.data {
            chains.push(vec![self.training(runner, scorer, SCORER_SEED)]);
        }
        for model in self
            .table
            .models
            .iter()
            .filter(|model| model.samples_of.is_none())
        {
            for &seed in self.seeds_of(model) {
                let task = self.training(runner, model, seed);
                let of_teacher = |chain: &&mut Vec<Task>| {
                    chain
                        .iter()
                        .any(|task_before| task.inputs.contains(&task_before.name))
                };
                if let Some(chain) = chains.iter_mut().find(of_teacher) {
                    if task.name.contains(only) {
                        chain.push(task);
                    }
                } else if task.name.contains(only) || self.is_teacher(model) {
                    chains.push(vec![task]);
                }
            }
        }
        chains
    }

    fn is_teacher(&self, model: &Model) -> bool {
        self.table
            .models
            .iter()
            .any(|other| other.teacher == Some(model.name))
    }

    fn finish(&self, runner: &Runner, model: &Model, seed: u64) -> anyhow::Result<Finished> {
        let trained = self.trained(model);
        let record = runner.run(&self.training(runner, trained, seed))?;
        let mut figures = Vec::new();
        for &temperature in self.temperatures {
            if model.autoregressive {
                figures.push(self.sample(runner, model, seed, None, temperature)?);
                continue;
            }
            let only = trained.only.map(|only| vec![only]);
            for &steps in only.as_ref().unwrap_or(&self.steps) {
                if temperature == 1.0 || steps <= FEW {
                    figures.push(self.sample(runner, model, seed, Some(steps), temperature)?);
                }
            }
        }
        let likelihood = match model.likelihood {
            true => self
                .bound(runner, model, seed)?
                .pointer("/models/0/nats_per_token")
                .cloned(),
            false => None,
        };
        Ok(Finished {
            model: model.name.to_owned(),
            seed,
            trained: Trained::of(&record)?,
            likelihood: likelihood.as_ref().and_then(Value::as_f64),
            figures,
        })
    }

    /// Samples of a model, evaluated.
    fn sample(
        &self,
        runner: &Runner,
        model: &Model,
        seed: u64,
        steps: Option<usize>,
        temperature: f64,
    ) -> anyhow::Result<Figures> {
        let run = self.run_name(self.trained(model), seed);
        let number = steps.map_or_else(|| "all".to_owned(), |steps| steps.to_string());
        let drawn = format!("{}-{number}-{temperature}", name(model.name, seed));
        let option = match model.scales_noise && steps == Some(1) {
            true => "--noise-scale",
            false => "--temperature",
        };
        let mut sampling = Task::new(&drawn, Kind::Samples, "sample")
            .with(["--model", &runner.folder(&run)])
            .with([
                "--count",
                &self.samples.to_string(),
                "--seed",
                &seed.to_string(),
            ])
            .with([option, &temperature.to_string()])
            .with(model.options)
            .with(&self.device)
            .reads(&run);
        if let Some(steps) = steps {
            sampling = sampling.with(["--steps", &steps.to_string()]);
        }
        let sampled = runner.run(&sampling)?;
        let evaluation = self.evaluation(runner, &runner.samples(&drawn)).reads(&run);
        let evaluated = Evaluated(runner.run(&Task {
            name: format!("{drawn}-eval"),
            ..evaluation
        })?);
        let steps = evaluated.figure("/drawn/steps")? as usize;
        Ok(Figures {
            steps,
            temperature,
            samples: self.samples,
            seconds: Some(sampled.seconds),
            valid: evaluated.find("/figures/valid"),
            nats_per_token: evaluated.figure(self.nats())?,
            entropy: evaluated.figure(self.entropy())?,
            distinct: evaluated.figure("/figures/distinct")?,
            command: sampled.command,
        })
    }

    /// The task that evaluates a file of samples, or a data folder.
    fn evaluation(&self, runner: &Runner, samples: &str) -> Task {
        let task = Task::new("text-eval", Kind::Answer, "eval --json").with([
            samples,
            "--data",
            &self.folder(runner),
        ]);
        match &self.data {
            Data::Grammar(_) => task,
            Data::Text { scorer, .. } => {
                let run = self.run_name(scorer, SCORER_SEED);
                task.with(["--scorer", &runner.folder(&run)]).reads(&run)
            }
        }
    }

    fn bound(&self, runner: &Runner, model: &Model, seed: u64) -> anyhow::Result<Value> {
        let run = self.run_name(model, seed);
        let task = Task::new(&format!("{run}-bound"), Kind::Answer, "eval bound --json")
            .with([&runner.folder(&run), "--data", &self.folder(runner)])
            .with(&self.device)
            .reads(&run);
        Ok(runner.run(&task)?.answer)
    }

    /// The validation rows, evaluated as if they were samples.
    fn text(&self, runner: &Runner) -> anyhow::Result<Text> {
        let evaluated = Evaluated(runner.run(&self.evaluation(runner, &self.folder(runner)))?);
        let likely = self.table.models.iter().find(|model| model.autoregressive);
        let likelihood = match likely {
            Some(model) => {
                self.bound(runner, model, self.seeds[0])?["grammar_nats_per_token"].as_f64()
            }
            None => None,
        };
        Ok(Text {
            rows: evaluated.figure("/figures/samples")? as usize,
            nats_per_token: evaluated.figure(self.nats())?,
            likelihood,
            entropy: evaluated.figure(self.entropy())?,
            distinct: evaluated.figure("/figures/distinct")?,
        })
    }

    /// The place of the quality in the output of `flm eval`.
    fn nats(&self) -> &'static str {
        match self.data {
            Data::Text { .. } => "/scores/0/nats_per_token",
            Data::Grammar(_) => "/figures/oracle_nats_per_token",
        }
    }

    /// The place of the entropy: of a grammar's words, or of tokens.
    fn entropy(&self) -> &'static str {
        match self.data {
            Data::Text { .. } => "/token_entropy",
            Data::Grammar(_) => "/figures/entropy",
        }
    }
}

/// The record of an `flm eval`.
struct Evaluated(Record);

impl Evaluated {
    fn find(&self, place: &str) -> Option<f64> {
        self.0
            .answer
            .pointer(&format!("/0{place}"))
            .and_then(Value::as_f64)
    }

    fn figure(&self, place: &str) -> anyhow::Result<f64> {
        self.find(place)
            .with_context(|| format!("`{}` prints no {place}", self.0.command))
    }
}

/// Arguments of settings.
pub(crate) fn set<S: AsRef<str>>(section: &str, settings: &[S]) -> Vec<String> {
    let one = |setting: &S| ["--set".to_owned(), format!("{section}{}", setting.as_ref())];
    settings.iter().flat_map(one).collect()
}

/// Arguments of the smallest training that runs.
pub(crate) fn smallest(sections: &[&str]) -> Vec<String> {
    let rows = |section: &&str| {
        words(&format!(
            "--set {section}.batch=4 --set {section}.micro_batch=2 --set {section}.validation_rows=2"
        ))
    };
    sections.iter().flat_map(rows).collect()
}
