//! Every objective and variant from one teacher, at equal evaluations of the network.

use super::flm::Used;
use super::runs::{Runs, name, read, same, set, words};
use super::{Arguments, build, report, write};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

/// Steps in which every model is sampled.
pub(crate) const STEPS: [usize; 4] = [1, 2, 4, 8];

/// What a variant is compared with, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// The objectives as they come.
    Objective,
    /// One with an option.
    Option,
    /// Without a teacher, from nothing, with the teacher's evaluations besides.
    Alone,
    /// From what another variant made, with its evaluations besides.
    After(&'static str),
}

/// A way to a flow map.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    /// Beside the preset, in the section `distill.flow_map`.
    pub(crate) settings: &'static [&'static str],
}

const fn variant(name: &'static str, group: Group, settings: &'static [&'static str]) -> Variant {
    Variant {
        name,
        group,
        settings,
    }
}

/// In the order in which they are run: what matters most first.
pub(crate) const VARIANTS: &[Variant] = &[
    variant("semigroup", Group::Objective, &["objective=semigroup"]),
    variant("lagrangian", Group::Objective, &["objective=lagrangian"]),
    variant("eulerian", Group::Objective, &["objective=eulerian"]),
    variant(
        "eulerian, squared error",
        Group::Objective,
        &["objective=eulerian", "measure=squared_error"],
    ),
    variant("ecld", Group::Objective, &["objective=ecld"]),
    variant("consistency", Group::Objective, &["objective=consistency"]),
    variant(
        "semigroup, random midpoint",
        Group::Option,
        &["objective=semigroup", "midpoint=random"],
    ),
    variant(
        "semigroup, squared error",
        Group::Option,
        &["objective=semigroup", "measure=squared_error"],
    ),
    variant(
        "semigroup, weight 2 off the diagonal",
        Group::Option,
        &["objective=semigroup", "off_diagonal_weight=2"],
    ),
    variant(
        "semigroup, averaged target",
        Group::Option,
        &["objective=semigroup", "target=average"],
    ),
    variant(
        "lagrangian, student's denoiser",
        Group::Option,
        &["objective=lagrangian", "denoiser=student"],
    ),
    variant(
        "semigroup, learned weight",
        Group::Option,
        &["objective=semigroup", "loss_weight=true"],
    ),
    variant("residual", Group::Option, &["objective=residual"]),
    variant("residual, second stage", Group::After("residual"), &[]),
    variant("semigroup, alone", Group::Alone, &["objective=semigroup"]),
    variant("lagrangian, alone", Group::Alone, &["objective=lagrangian"]),
    variant("eulerian, alone", Group::Alone, &["objective=eulerian"]),
];

/// How large everything is.
struct Size {
    /// Settings of data and teacher beside the preset.
    data: &'static [&'static str],
    training: &'static [&'static str],
    /// Evaluations of each distillation.
    evaluations: u64,
    samples: usize,
}

const PRESET: &str = "grammar-trajectory";

/// A finished run: what it took and how good its samples are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) variant: String,
    pub(crate) seed: u64,
    /// Optimizer steps, evaluations of the network and seconds of the training alone.
    pub(crate) steps: u64,
    pub(crate) evaluations: u64,
    pub(crate) seconds: f64,
    pub(crate) used: Used,
    /// The commands beside sampling and judging.
    pub(crate) command: String,
    /// Of the project, when the run was finished.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    pub(crate) figures: Vec<Figures>,
}

/// The samples in some number of steps, judged.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) steps: usize,
    pub(crate) samples: usize,
    pub(crate) valid: f64,
    pub(crate) oracle_nats_per_token: f64,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
}

struct Study {
    runs: Runs,
    size: Size,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let size = if arguments.smoke {
        Size {
            data: &["data.sentences=600"],
            training: &[
                "train.steps=2",
                "distill.train.batch=4",
                "distill.train.micro_batch=2",
                "distill.train.validation_rows=2",
                "train.batch=4",
                "train.micro_batch=2",
                "train.validation_rows=2",
            ],
            evaluations: 60,
            samples: 4,
        }
    } else {
        Size {
            data: &[],
            training: &[],
            evaluations: arguments.evaluations,
            samples: 1_000,
        }
    };
    let program = match &arguments.flm {
        Some(program) => program.clone(),
        None => build()?,
    };
    let study = Study {
        runs: Runs::new(program, &arguments.out)?,
        size,
    };
    study.prepare()?;
    let teacher = study.teacher()?;
    for variant in VARIANTS {
        for &seed in &arguments.seeds {
            if name(variant.name, seed).contains(&arguments.only) {
                study.distill(variant, seed, &teacher)?;
            }
        }
    }
    report::publish(
        &study.finished()?,
        &teacher,
        study.size.evaluations,
        &arguments.results,
    )
}

impl Study {
    fn prepare(&self) -> anyhow::Result<()> {
        let preset = words(&["--preset", PRESET]);
        self.runs
            .prepare(&[preset, set("", self.size.data)].concat())
    }

    /// The flow that everybody learns from.
    fn teacher(&self) -> anyhow::Result<Finished> {
        let data = self.runs.path(&["data"]);
        let arguments = words(&["train", "--preset", PRESET, "--data", &data]);
        self.finish("teacher", 0, arguments, &[1, 2, 4, 8, 32, 128])
    }

    fn distill(&self, variant: &Variant, seed: u64, teacher: &Finished) -> anyhow::Result<()> {
        let mut budget = self.size.evaluations;
        let start = match variant.group {
            Group::Objective | Group::Option => self.from("teacher", 0),
            Group::After(other) => self.from(other, seed),
            Group::Alone => {
                budget += teacher.evaluations;
                // From nothing, at the rates at which the teacher came from nothing.
                let rates = set("distill.train.optimizer.", &["lr=1e-2", "muon_lr=0.04"]);
                [words(&["--self"]), rates].concat()
            }
        };
        let mut arguments = words(&[
            "distill",
            "--preset",
            PRESET,
            "--data",
            &self.runs.path(&["data"]),
            "--evaluations",
            &budget.to_string(),
        ]);
        arguments.extend(start);
        arguments.extend(set("distill.train.", &[&format!("seed={seed}")]));
        arguments.extend(set("distill.flow_map.", variant.settings));
        self.finish(variant.name, seed, arguments, &STEPS).map(drop)
    }

    /// That a run learns from a finished one.
    fn from(&self, other: &str, seed: u64) -> Vec<String> {
        words(&["--teacher", &self.runs.run(&name(other, seed))])
    }

    /// Does a run with its samples, or reads what it came to.
    fn finish(
        &self,
        variant: &str,
        seed: u64,
        mut arguments: Vec<String>,
        steps: &[usize],
    ) -> anyhow::Result<Finished> {
        let name = name(variant, seed);
        arguments.extend(set("", self.size.training));
        let command = self.runs.command(&name, &arguments);
        let result = PathBuf::from(self.runs.path(&["finished", &format!("{name}.json")]));
        if result.is_file() {
            let finished: Finished = read(&result)?;
            same(&result, &finished.command, &command)?;
            return Ok(finished);
        }
        println!("{variant}, seed {seed}");
        let trained = self.runs.train(&name, &arguments, false)?;
        let figures = steps
            .iter()
            .map(|&steps| self.judge(&name, steps))
            .collect::<anyhow::Result<_>>()?;
        let finished = Finished {
            variant: variant.to_owned(),
            seed,
            steps: trained.steps,
            evaluations: trained.evaluations,
            seconds: trained.seconds,
            used: trained.used,
            command: trained.command,
            commit: trained.commit,
            figures,
        };
        write(&result, &serde_json::to_string_pretty(&finished)?)?;
        Ok(finished)
    }

    /// Samples a run in so many steps and judges what comes.
    fn judge(&self, name: &str, steps: usize) -> anyhow::Result<Figures> {
        let samples = self
            .runs
            .path(&["samples", &format!("{name}-{steps}.jsonl")]);
        fs::create_dir_all(self.runs.out.join("samples"))?;
        let (count, number) = (self.size.samples.to_string(), steps.to_string());
        let run = self.runs.run(name);
        self.runs.flm.run(&words(&[
            "sample", "--force", "--model", &run, "--steps", &number, "--count", &count, "--out",
            &samples,
        ]))?;
        let data = self.runs.path(&["data"]);
        let judged = self.runs.judge(&words(&[&samples, "--data", &data]))?;
        let figure = |key: &str| {
            judged["figures"][key]
                .as_f64()
                .with_context(|| format!("flm eval tells no {key}: {judged}"))
        };
        Ok(Figures {
            steps,
            samples: self.size.samples,
            valid: figure("valid")?,
            oracle_nats_per_token: figure("oracle_nats_per_token")?,
            entropy: figure("entropy")?,
            distinct: figure("distinct")?,
        })
    }

    /// All runs of the study that are finished, variant by variant.
    fn finished(&self) -> anyhow::Result<Vec<Finished>> {
        let folder = self.runs.out.join("finished");
        let mut all = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // Beside them may lie one that was being written when the pipeline was stopped.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let finished: Finished = read(&path)?;
            if let Some(place) = VARIANTS.iter().position(|v| v.name == finished.variant) {
                all.push((place, finished.seed, finished));
            }
        }
        all.sort_by_key(|(place, seed, _)| (*place, *seed));
        Ok(all.into_iter().map(|(_, _, finished)| finished).collect())
    }
}
