//! Flows and their flow maps beside discrete diffusion and autoregression: one network, one text, as many evaluations.

mod compare;
mod entrants;
mod figures;
mod perfect;
mod picture;
mod report;
mod training;

use super::build;
use super::published::weights;
use super::runs::{Runs, name, read, set, words};
use anyhow::{Context, ensure};
pub(crate) use entrants::{ENTRANTS, Entrant, FLOW_MAP};
pub(crate) use figures::{Figures, Finished, Text};
use perfect::Perfect;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

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
    /// The numbers of an earlier page: what it tells of models with the same command is taken from it
    #[arg(long, value_name = "FILE")]
    earlier: Option<PathBuf>,
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
    earlier: Option<Found>,
}

/// What a study found.
#[derive(Serialize, Deserialize)]
struct Found {
    evaluations: u64,
    distillation: u64,
    text: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    perfect: Option<Perfect>,
    runs: Vec<Finished>,
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
        earlier: arguments.earlier.as_deref().map(read).transpose()?,
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
        steps: vec![1, 8],
        samples: 4,
        jobs: 2,
        earlier: None,
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
                     train.batch=4 train.micro_batch=4 train.validation_rows=2",
                ),
                distilling: settings(
                    "distill.train.batch=4 distill.train.micro_batch=2 distill.train.validation_rows=2",
                ),
            },
            earlier: None,
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
        self.check()?;
        self.prepare()?;
        self.train_all()?;
        if self.arguments.train_only {
            return Ok(());
        }
        let (text, perfect) = (self.text()?, self.perfect()?);
        let mut finished = Vec::new();
        for entrant in ENTRANTS {
            for &seed in &self.arguments.seeds {
                finished.push(self.finish(entrant, seed)?);
            }
        }
        let found = Found {
            evaluations: self.arguments.evaluations,
            distillation: self.arguments.distillation,
            text,
            perfect,
            runs: finished,
        };
        report::publish(&found, &self.arguments.results, &self.arguments.page)
    }

    /// What would only be found out after all trainings, or train one run twice.
    fn check(&self) -> anyhow::Result<()> {
        let Arguments {
            seeds,
            steps,
            samples,
            jobs,
            ..
        } = self.arguments;
        ensure!(
            !seeds.is_empty() && !steps.contains(&0) && !steps.is_empty(),
            "--seeds and --steps need a number each, and of steps one at least"
        );
        ensure!(
            self.arguments.text.is_some() || steps.iter().any(|steps| *steps <= figures::FEW),
            "--steps needs a number of at most {}, in which perfect models are sampled",
            figures::FEW
        );
        if let Some(earlier) = &self.earlier {
            let mut figures = earlier.runs.iter().flat_map(|run| &run.figures);
            ensure!(
                self.arguments.text.is_none() && figures.all(|figures| figures.samples == *samples),
                "--earlier is for the grammar, and for as many --samples as there were"
            );
        }
        ensure!(
            *samples > 0 && *jobs > 0,
            "--samples and --jobs must be at least 1"
        );
        for (place, seed) in seeds.iter().enumerate() {
            ensure!(!seeds[..place].contains(seed), "--seeds has {seed} twice");
            ensure!(
                *seed != entrants::JUDGE_SEED,
                "--seeds {seed} is that of the judge: choose another"
            );
        }
        Ok(())
    }

    /// Whose samples an entrant shows.
    fn model<'e>(&self, entrant: &'e Entrant) -> &'e Entrant {
        let named = |name| ENTRANTS.iter().find(|e| e.name == name);
        entrant.model.and_then(named).unwrap_or(entrant)
    }

    /// The folder of a run.
    fn run(&self, entrant: &str, seed: u64) -> String {
        self.runs.run(&name(entrant, seed))
    }

    /// The weights of a run's model as they are now.
    fn weights(&self, entrant: &str, seed: u64) -> anyhow::Result<String> {
        weights(&Path::new(&self.run(entrant, seed)).join("model"))
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
        let preset = words(&["--preset", "grammar-trajectory"]);
        self.runs
            .prepare(&[preset, set("", self.size.data)].concat())
    }

    /// Where networks compute.
    fn place(&self) -> Vec<String> {
        let (device, dtype) = (&self.arguments.device, &self.arguments.dtype);
        words(&["--device", device, "--dtype", dtype])
    }
}
