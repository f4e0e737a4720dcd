//! The published experiments, from the text to the table: `cargo xtask pipeline lm1b`, `… openwebtext`.

mod plan;

use super::runner::{Kind, Runner, State, Task, words};
use super::study::set;
use super::{build, report};
use anyhow::{Context, ensure};
use plan::Preset;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Numbers of steps in the published tables.
const STEPS: [usize; 7] = [1, 2, 4, 8, 32, 128, 1024];

/// Samples per figure.
const SAMPLES: usize = 1024;

/// An n-gram model counts at most this many million tokens: it numbers them in 32 bits, at 20 bytes each.
const MOST_COUNTED: f64 = 2_000.0;

const FLOW: &str = "flow";
const MAP: &str = "flow-map";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of data, runs and samples; the same command resumes there [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder of the page
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    results: PathBuf,
    /// A copy of the data set, instead of fetching it
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// Scorer of the samples: a folder of gpt2-large [default: an n-gram model of the training text]
    #[arg(long, value_name = "DIR")]
    scorer: Option<PathBuf>,
    /// Device: cpu, wgpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
    /// Print the commands and their cost, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Run every stage at the smallest size in a temporary folder
    #[arg(long)]
    smoke: bool,
}

/// A published experiment.
pub(crate) struct Experiment {
    /// Name of the data set, the flow's preset and the page.
    name: &'static str,
    title: &'static str,
    /// Fresh noise of the published flow map samples.
    gamma: f64,
    vocabulary: usize,
    length: usize,
    /// Tokens of the training text, in millions.
    million_tokens: f64,
    /// Published: run, steps, perplexity under gpt2-large and entropy in nats (arXiv 2602.16813).
    published: &'static [(&'static str, usize, f64, f64)],
}

pub(crate) const LM1B: Experiment = Experiment {
    name: "lm1b",
    title: "LM1B",
    gamma: 0.8,
    vocabulary: 30_522,
    length: 128,
    million_tokens: 900.0,
    published: &[
        (FLOW, 1024, 96.9, 4.29),
        (MAP, 1, 119.3, 4.16),
        (MAP, 2, 110.2, 4.21),
        (MAP, 4, 98.8, 4.21),
    ],
};

pub(crate) const OPENWEBTEXT: Experiment = Experiment {
    name: "openwebtext",
    title: "OpenWebText",
    gamma: 1.0,
    vocabulary: 50_258,
    length: 1024,
    million_tokens: 9_000.0,
    published: &[
        (FLOW, 1024, 62.2, 5.33),
        (MAP, 1, 168.3, 5.17),
        (MAP, 2, 133.3, 5.25),
        (MAP, 4, 111.3, 5.26),
    ],
};

/// The size of everything.
struct Size {
    /// The data set: its name, or the manifest of a small one.
    dataset: String,
    prepare: Vec<String>,
    model: Vec<String>,
    training: Vec<String>,
    steps: Vec<usize>,
    samples: usize,
}

/// An experiment in its folder.
struct Pipeline<'a> {
    experiment: &'a Experiment,
    arguments: &'a Arguments,
    size: Size,
    runner: Runner,
}

pub(crate) fn run(experiment: &Experiment, arguments: &Arguments) -> anyhow::Result<()> {
    let program = arguments.flm.clone().map_or_else(build, Ok)?;
    if arguments.smoke {
        return smoke(experiment, program);
    }
    let out = arguments.out.clone();
    let pipeline = Pipeline {
        experiment,
        arguments,
        size: Size {
            dataset: experiment.name.to_owned(),
            prepare: Vec::new(),
            model: Vec::new(),
            training: Vec::new(),
            steps: STEPS.to_vec(),
            samples: SAMPLES,
        },
        runner: Runner {
            program,
            out: out.unwrap_or_else(|| Path::new("runs").join(experiment.name)),
            jobs: 1,
        },
    };
    if arguments.dry_run {
        return pipeline.plan();
    }
    ensure!(
        arguments.scorer.is_some() || experiment.million_tokens < MOST_COUNTED,
        "--scorer needs a folder of gpt2-large: the n-gram model cannot count {} million tokens",
        experiment.million_tokens
    );
    pipeline.go()
}

/// Runs every stage at the smallest size, on the text of the README, in a temporary folder.
pub(crate) fn smoke(experiment: &Experiment, program: PathBuf) -> anyhow::Result<()> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let manifest = home.path().join("readme.toml");
    fs::copy("README.md", home.path().join("README.md"))
        .context("cannot copy README.md: run this in the folder of the project")?;
    fs::write(&manifest, MANIFEST).context("cannot write a manifest")?;
    let arguments = Arguments {
        out: None,
        results: home.path().join("results"),
        from: Some(home.path().to_path_buf()),
        scorer: None,
        device: "cpu".to_owned(),
        flm: None,
        dry_run: false,
        smoke: true,
    };
    let small = ["steps=2", "batch=4", "micro_batch=4"];
    let pipeline = Pipeline {
        experiment,
        arguments: &arguments,
        size: Size {
            dataset: manifest.display().to_string(),
            prepare: words("--train-bpe 300 --length 16"),
            model: set("model.", &["width=16", "blocks=1", "heads=2", "cond_dim=8"]),
            training: [set("train.", &small), set("distill.train.", &small)].concat(),
            steps: vec![1, 2],
            samples: 4,
        },
        runner: Runner {
            program,
            out: home.path().join("runs"),
            jobs: 1,
        },
    };
    pipeline.go()?;
    // A training that was interrupted just before its end resumes, and the rest stays.
    let model = Path::new(&pipeline.runner.folder(MAP)).join("model");
    fs::remove_dir_all(&model).with_context(|| format!("cannot remove {}", model.display()))?;
    pipeline.go()?;
    ensure!(model.is_dir(), "{} was not made again", model.display());
    for task in pipeline.tasks() {
        let state = pipeline.runner.state(&task)?;
        ensure!(state == State::Done, "{} is {state:?}", task.name);
    }
    Ok(())
}

/// The manifest of a small data set.
const MANIFEST: &str = r#"
format = 1
title = "The README"
license = "that of the project"
page = "https://github.com/flm-rs/flm"
split = { share = 0.1 }
column = "text"
unit = "lines"
detokenizer = "none"
tokenizer = { name = "bpe:300" }
length = 16
layout = "packed"

[[train]]
url = "https://github.com/flm-rs/flm/README.md"
"#;

impl Pipeline<'_> {
    fn go(&self) -> anyhow::Result<()> {
        self.runner.run_all(vec![self.tasks()])?;
        self.report()
    }

    /// The commands in their order.
    fn tasks(&self) -> Vec<Task> {
        let (name, size) = (self.experiment.name, &self.size);
        let device = ["--device", &self.arguments.device];
        let data = self.runner.data();
        let mut prepare = Task::new("data", Kind::Data, "data prepare")
            .with([&size.dataset])
            .with(&size.prepare);
        if let Some(from) = &self.arguments.from {
            prepare = prepare.with(["--from", &from.display().to_string()]);
        }
        let training = |run: &str, arguments: &str| {
            Task::new(run, Kind::Training, arguments)
                .with(["--data", &data])
                .with(&size.training)
                .with(device)
        };
        let flow = training(FLOW, &format!("train --preset {name}")).with(&size.model);
        let map = training(MAP, &format!("distill --preset {name}-fmlm"))
            .with(["--teacher", &self.runner.folder(FLOW)])
            .reads(FLOW);
        let mut tasks = vec![prepare, flow, map];
        for run in [FLOW, MAP] {
            for steps in &size.steps {
                let (steps, count) = (steps.to_string(), size.samples.to_string());
                let sampling =
                    Task::new(&format!("{run}-{steps}"), Kind::Samples, "sample --seed 1")
                        .with(["--model", &self.runner.folder(run)])
                        .with(["--steps", &steps, "--count", &count])
                        .with(device)
                        .reads(run);
                tasks.push(match run {
                    MAP => sampling.with(["--gamma", &self.experiment.gamma.to_string()]),
                    _ => sampling,
                });
            }
        }
        tasks
    }

    /// Prints the commands and their cost.
    fn plan(&self) -> anyhow::Result<()> {
        for task in self.tasks() {
            let state = match self.runner.state(&task)? {
                State::Done => "# done: ",
                State::Stale => "# of another training: ",
                State::Started => "# interrupted: ",
                State::Missing => "",
            };
            println!("{state}{}", self.runner.command(&task));
        }
        let preset = |name: String| -> anyhow::Result<Preset> {
            let text = self.runner.print(&["presets".to_owned(), name.clone()])?;
            toml::from_str(&text).with_context(|| format!("the preset {name}"))
        };
        let name = self.experiment.name;
        let flow = preset(name.to_owned())?;
        let map = preset(format!("{name}-fmlm"))?;
        print!("{}", plan::render(self.experiment, &flow, &map));
        Ok(())
    }

    fn report(&self) -> anyhow::Result<()> {
        let scorer = match &self.arguments.scorer {
            Some(folder) => folder.display().to_string(),
            None => format!("ngram:{}", self.runner.data()),
        };
        let mut rows = Vec::new();
        for run in [FLOW, MAP] {
            for steps in &self.size.steps {
                let name = format!("{run}-{steps}");
                let task = Task::new(&format!("{name}-eval"), Kind::Answer, "eval --json")
                    .with([&self.runner.samples(&name), "--scorer", &scorer])
                    .with(["--device", &self.arguments.device])
                    .reads(run);
                let record = self.runner.run(&task)?;
                let [evaluated]: [Evaluated; 1] = serde_json::from_value(record.answer)
                    .with_context(|| format!("cannot parse the output of `{}`", record.command))?;
                rows.push((run, *steps, evaluated));
            }
        }
        let Experiment { title, name, .. } = *self.experiment;
        let path = self.arguments.results.join(format!("{name}.md"));
        let before = fs::read_to_string(&path).unwrap_or_default();
        let page = report::around(&before, title, name, &self.figures(&rows)?);
        flm_files::write(&path, page.as_bytes())?;
        println!("{}", path.display());
        Ok(())
    }

    fn figures(&self, rows: &[(&str, usize, Evaluated)]) -> anyhow::Result<String> {
        let mut scores = rows.iter().flat_map(|(.., evaluated)| &evaluated.scores);
        let scorer = &scores.next().context("flm eval printed no score")?.scorer;
        let mut out = format!(
            "| model | steps | perplexity, {scorer} | token entropy | distinct | published: perplexity, gpt2-large / entropy |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n"
        );
        for (run, steps, evaluated) in rows {
            let published = (self.experiment.published.iter())
                .find(|(model, of, ..)| model == run && of == steps)
                .map_or_else(String::new, |(.., perplexity, entropy)| {
                    format!("{perplexity} / {entropy}")
                });
            let score = evaluated
                .scores
                .first()
                .context("flm eval printed no score")?;
            out += &format!(
                "| {run} | {steps} | {:.1} | {:.2} | {:.3} | {published} |\n",
                score.perplexity, evaluated.token_entropy, evaluated.figures.distinct
            );
        }
        Ok(out)
    }
}

/// Output of `flm eval --json`.
#[derive(Deserialize)]
struct Evaluated {
    figures: Figures,
    token_entropy: f64,
    scores: Vec<Score>,
}

#[derive(Deserialize)]
struct Figures {
    distinct: f64,
}

#[derive(Deserialize)]
struct Score {
    scorer: String,
    perplexity: f64,
}
