//! The published experiments, from fetching the text to the table: `cargo xtask pipeline lm1b`, `… openwebtext`.
//!
//! Every stage is a command of `flm`, printed before it runs; what is there already is not made again, but for samples of a model that was
//! trained again since, and a training that was interrupted goes on.

mod plan;

use super::flm::Flm;
use super::{build, write};
use anyhow::{Context, ensure};
use plan::Preset;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Numbers of steps in the published tables.
const STEPS: [usize; 7] = [1, 2, 4, 8, 32, 128, 1024];

/// An n-gram model of more million tokens does not fit: it numbers them in 32 bits, and takes 20 bytes for each.
const MOST_COUNTED: f64 = 2_000.0;

/// Samples in each number of steps.
const SAMPLES: usize = 1024;

/// What the pipelines of published experiments are told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where data, runs and samples go; an earlier pipeline there is gone on with [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the page and its numbers go
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    results: PathBuf,
    /// A copy of the data set, instead of fetching it
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// Who scores: a folder of gpt2-large as on the hub; an n-gram model of the training text where none is given
    #[arg(long, value_name = "DIR")]
    scorer: Option<PathBuf>,
    /// Where to compute: cpu, wgpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) flm: Option<PathBuf>,
    /// Print the commands, and what they will take, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Every stage at the smallest size, on the text of the book, in a temporary folder
    #[arg(long)]
    smoke: bool,
}

/// A published experiment.
pub(crate) struct Experiment {
    /// Of the data set, the flow's preset and the page.
    name: &'static str,
    title: &'static str,
    /// Noise that the published samples of the flow map put back.
    gamma: f64,
    /// Different tokens.
    vocabulary: usize,
    length: usize,
    /// Tokens of the training text, as far as it is known, in millions.
    million_tokens: f64,
    /// Published: model, steps, perplexity under gpt2-large and entropy in nats (arXiv 2602.16813).
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
        ("flow", 1024, 96.9, 4.29),
        ("flow map", 1, 119.3, 4.16),
        ("flow map", 2, 110.2, 4.21),
        ("flow map", 4, 98.8, 4.21),
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
        ("flow", 1024, 62.2, 5.33),
        ("flow map", 1, 168.3, 5.17),
        ("flow map", 2, 133.3, 5.25),
        ("flow map", 4, 111.3, 5.26),
    ],
};

/// How large everything is.
struct Size {
    /// Of the data set: its name, or the manifest of a small one.
    dataset: String,
    prepare: Vec<String>,
    training: Vec<String>,
    steps: Vec<usize>,
    samples: usize,
}

/// An experiment in its folder.
struct Pipeline<'a> {
    experiment: &'a Experiment,
    arguments: &'a Arguments,
    size: Size,
    flm: Flm,
    out: PathBuf,
}

/// A command, and the file that is there once it is done.
struct Stage {
    command: Vec<String>,
    done: PathBuf,
    /// Where a training that was begun can be gone on with.
    begun: Option<PathBuf>,
    /// The model folder of samples.
    model: Option<PathBuf>,
}

/// What there is of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// Samples of other weights than the model's.
    Stale,
    Done,
}

impl Stage {
    fn state(&self) -> anyhow::Result<State> {
        if !self.done.exists() {
            return Ok(State::Missing);
        }
        match &self.model {
            Some(model) if drawn_with(&self.done)? != weights(model)? => Ok(State::Stale),
            _ => Ok(State::Done),
        }
    }
}

/// What samples say of the weights that they were drawn with; nothing if they were drawn before they said it.
fn drawn_with(samples: &Path) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        weights: String,
    }
    let read = || format!("cannot read {}", samples.display());
    let mut line = String::new();
    BufReader::new(File::open(samples).with_context(read)?)
        .read_line(&mut line)
        .with_context(read)?;
    let line: Line = serde_json::from_str(&line)
        .with_context(|| format!("{} does not begin with a sample", samples.display()))?;
    Ok(line.weights)
}

/// What samples of a model would say; nothing that samples say if there is no model.
pub(super) fn weights(model: &Path) -> anyhow::Result<String> {
    let path = model.join("model.safetensors");
    if !path.is_file() {
        return Ok("no model".to_owned());
    }
    let read = || format!("cannot read {}", path.display());
    let mut file = File::open(&path).with_context(read)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(read)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    let hash = hash.finalize();
    Ok(hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

pub(crate) fn run(experiment: &Experiment, arguments: &Arguments) -> anyhow::Result<()> {
    let program = match &arguments.flm {
        Some(program) => program.clone(),
        None => build()?,
    };
    if arguments.smoke {
        return smoke(experiment, program);
    }
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => Path::new("runs").join(experiment.name),
    };
    let pipeline = Pipeline {
        experiment,
        arguments,
        size: Size {
            dataset: experiment.name.to_owned(),
            prepare: Vec::new(),
            training: Vec::new(),
            steps: STEPS.to_vec(),
            samples: SAMPLES,
        },
        flm: Flm {
            program,
            log: out.join("log"),
        },
        out,
    };
    if arguments.dry_run {
        return pipeline.plan();
    }
    ensure!(
        arguments.scorer.is_some() || experiment.million_tokens < MOST_COUNTED,
        "name a folder of gpt2-large by --scorer: the n-gram model in its place cannot count {} million tokens",
        experiment.million_tokens
    );
    pipeline.go()
}

/// Every stage at the smallest size, on the text of the book, in a folder that is removed.
pub(crate) fn smoke(experiment: &Experiment, program: PathBuf) -> anyhow::Result<()> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let manifest = home.path().join("book.toml");
    fs::copy("docs/concepts.md", home.path().join("concepts.md"))
        .context("cannot copy docs/concepts.md: run this in the folder of the project")?;
    fs::write(&manifest, BOOK).context("cannot write a manifest")?;
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
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
    let out = home.path().join("runs");
    let pipeline = Pipeline {
        experiment,
        arguments: &arguments,
        size: Size {
            dataset: manifest.display().to_string(),
            prepare: words("--train-bpe 300 --length 16"),
            training: words(
                "--set model.width=16 --set model.blocks=1 --set model.heads=2 --set model.cond_dim=8 \
                 --set train.steps=2 --set train.batch=4 --set train.micro_batch=4 --set distill.train.steps=2 \
                 --set distill.train.batch=4 --set distill.train.micro_batch=4",
            ),
            steps: vec![1, 2],
            samples: 4,
        },
        flm: Flm {
            program,
            log: out.join("log"),
        },
        out,
    };
    pipeline.go()?;
    // A training that stopped just before its end goes on, and what is there stays.
    let model = pipeline.path("flow-map/model");
    fs::remove_dir_all(&model).with_context(|| format!("cannot remove {}", model.display()))?;
    pipeline.go()?;
    ensure!(model.is_dir(), "{} was not made again", model.display());
    // Samples of other weights are drawn again.
    let samples = pipeline.samples("flow-map", 1);
    let (found, good) = (fs::read_to_string(&samples)?, weights(&model)?);
    ensure!(
        drawn_with(&samples)? == good,
        "{} is of other weights",
        samples.display()
    );
    fs::write(&samples, found.replace(&good, "0123456789abcdef"))?;
    pipeline.go()?;
    ensure!(
        drawn_with(&samples)? == good,
        "{} was not drawn again",
        samples.display()
    );
    Ok(())
}

/// The manifest of a small data set.
const BOOK: &str = r#"
format = 1
title = "A page of the book"
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
url = "https://github.com/flm-rs/flm/concepts.md"
"#;

impl Pipeline<'_> {
    fn go(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot create {}", self.out.display()))?;
        for stage in self.stages() {
            let state = stage.state()?;
            if state == State::Done {
                println!("there already: {}", stage.done.display());
                continue;
            }
            let mut command = stage.command;
            if state == State::Stale {
                println!(
                    "the model was trained again since: {}",
                    stage.done.display()
                );
                command.push("--force".to_owned());
            }
            if stage.begun.is_some_and(|begun| begun.exists()) {
                command.push("--resume".to_owned());
            }
            println!("flm {}", command.join(" "));
            self.flm.run(&command)?;
            ensure!(
                stage.done.exists(),
                "`flm {}` did not make {}",
                command.join(" "),
                stage.done.display()
            );
        }
        self.report()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The stages in their order.
    fn stages(&self) -> Vec<Stage> {
        let show = |path: &Path| path.display().to_string();
        let words = |text: String| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let name = self.experiment.name;
        let data = show(&self.path("data"));
        let (flow, map) = (self.path("flow"), self.path("flow-map"));
        let device = ["--device".to_owned(), self.arguments.device.clone()];
        let mut prepare = words(format!("data prepare {} --out {data}", self.size.dataset));
        if let Some(from) = &self.arguments.from {
            prepare.extend(["--from".to_owned(), show(from)]);
        }
        prepare.extend(self.size.prepare.clone());
        let mut stages = vec![Stage {
            command: prepare,
            done: self.path("data/dataset.json"),
            begun: None,
            model: None,
        }];
        let mut train = words(format!(
            "train --preset {name} --data {data} --out {}",
            show(&flow)
        ));
        let mut distill = words(format!(
            "distill --preset {name}-fmlm --teacher {} --data {data} --out {}",
            show(&flow),
            show(&map)
        ));
        train.extend(self.size.training.iter().cloned());
        // The teacher decides on the network.
        let mut settings = self.size.training.chunks(2);
        distill.extend(
            settings
                .by_ref()
                .filter(|setting| !setting[1].starts_with("model."))
                .flatten()
                .cloned(),
        );
        for (mut command, run) in [(train, &flow), (distill, &map)] {
            command.extend(device.clone());
            stages.push(Stage {
                command,
                done: run.join("model/config.json"),
                begun: Some(run.join("config.toml")),
                model: None,
            });
        }
        for (run, gamma) in [("flow", None), ("flow-map", Some(self.experiment.gamma))] {
            for steps in &self.size.steps {
                let out = self.samples(run, *steps);
                let mut command = words(format!(
                    "sample --model {} --steps {steps} --count {} --seed 1 --out {}",
                    show(&self.path(run)),
                    self.size.samples,
                    show(&out)
                ));
                command.extend(
                    gamma
                        .iter()
                        .flat_map(|gamma| ["--gamma".to_owned(), gamma.to_string()]),
                );
                command.extend(device.clone());
                stages.push(Stage {
                    command,
                    done: out,
                    begun: None,
                    model: Some(self.path(run).join("model")),
                });
            }
        }
        stages
    }

    fn samples(&self, run: &str, steps: usize) -> PathBuf {
        self.path(&format!("samples/{run}/steps-{steps}.jsonl"))
    }

    /// The commands, and what they will take.
    fn plan(&self) -> anyhow::Result<()> {
        for stage in self.stages() {
            let there = match stage.state()? {
                State::Done => "# done: ",
                State::Stale => "# of another training: ",
                State::Missing => "",
            };
            println!("{there}flm {}", stage.command.join(" "));
        }
        let preset = |name: String| -> anyhow::Result<Preset> {
            let text = self.flm.ask(&["presets".to_owned(), name.clone()])?;
            toml::from_str(&text).with_context(|| format!("the preset {name}"))
        };
        let name = self.experiment.name;
        let flow = preset(name.to_owned())?;
        let map = preset(format!("{name}-fmlm"))?;
        print!("{}", plan::render(self.experiment, &flow, &map));
        Ok(())
    }

    /// The page of what came out.
    fn report(&self) -> anyhow::Result<()> {
        let scorer = match &self.arguments.scorer {
            Some(folder) => folder.display().to_string(),
            None => format!("ngram:{}", self.path("data").display()),
        };
        let mut rows = Vec::new();
        for (run, label) in [("flow", "flow"), ("flow-map", "flow map")] {
            let folder = self.path("samples").join(run);
            let command = [
                "eval".to_owned(),
                folder.display().to_string(),
                "--scorer".to_owned(),
                scorer.clone(),
                "--device".to_owned(),
                self.arguments.device.clone(),
                "--json".to_owned(),
            ];
            let mut judged: Vec<Judged> = serde_json::from_str(&self.flm.ask(&command)?)?;
            for steps in &self.size.steps {
                let name = format!("steps-{steps}");
                let place = judged.iter().position(|judged| judged.name == name);
                let place = place.with_context(|| {
                    format!("nothing was said of {name} in {}", folder.display())
                })?;
                rows.push((label, *steps, judged.swap_remove(place)));
            }
        }
        let page = self.page(&rows)?;
        let path = self
            .arguments
            .results
            .join(format!("{}.md", self.experiment.name));
        write(&path, &page)?;
        println!("written: {}", path.display());
        Ok(())
    }

    fn page(&self, rows: &[(&str, usize, Judged)]) -> anyhow::Result<String> {
        let scorer = (rows.iter().flat_map(|(.., judged)| &judged.scores).next())
            .context("no scorer said anything")?;
        let mut page = format!(
            "# {}\n\nMade by `cargo xtask pipeline {}`. {} samples each, seed 1, scored by `{}`.\n\n\
             | model | steps | perplexity | entropy of tokens | distinct | published: perplexity / entropy |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n",
            self.experiment.title, self.experiment.name, self.size.samples, scorer.scorer
        );
        for (label, steps, judged) in rows {
            let published = (self.experiment.published.iter())
                .find(|(model, of, ..)| model == label && of == steps)
                .map_or_else(String::new, |(.., perplexity, entropy)| {
                    format!("{perplexity} / {entropy}")
                });
            let score = judged.scores.first().context("no score")?;
            page += &format!(
                "| {label} | {steps} | {:.1} | {:.2} | {:.3} | {published} |\n",
                score.perplexity, judged.token_entropy, judged.figures.distinct
            );
        }
        Ok(
            page + "\nPublished perplexities are gpt2-large's; other scorers' do not compare with them.\n"
        )
    }
}

/// What `flm eval --json` says.
#[derive(Deserialize)]
struct Judged {
    name: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_other_weights_are_stale() {
        let home = tempfile::tempdir().unwrap();
        let (samples, model) = (home.path().join("s.jsonl"), home.path().join("model"));
        let stage = Stage {
            command: Vec::new(),
            done: samples.clone(),
            begun: None,
            model: Some(model.clone()),
        };
        assert_eq!(stage.state().unwrap(), State::Missing);
        fs::create_dir(&model).unwrap();
        fs::write(model.join("model.safetensors"), "abc").unwrap();
        // SHA-256 of `abc`, as in the standard.
        let line = |weights: &str| format!("{{\"text\": \"a\", {weights}\"steps\": 1}}\n");
        fs::write(&samples, line("\"weights\": \"ba7816bf8f01cfea\", ")).unwrap();
        assert_eq!(stage.state().unwrap(), State::Done);
        fs::write(&samples, line("")).unwrap();
        assert_eq!(stage.state().unwrap(), State::Stale);
        fs::write(&samples, line("\"weights\": \"ba7816bf8f01cfea\", ")).unwrap();
        fs::write(model.join("model.safetensors"), "abd").unwrap();
        assert_eq!(stage.state().unwrap(), State::Stale);
    }
}
