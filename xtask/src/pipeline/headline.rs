//! Flows and flow maps beside discrete diffusion and autoregression: one network, one text, equal evaluations.

use super::runner::{Runner, words};
use super::study::{Data, FEW, Model, Study, TEMPERATURES, Table, set};
use super::{build, perfect, report};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

#[derive(Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of runs and samples; the same command resumes there
    #[arg(long, value_name = "DIR", default_value = "runs/headline")]
    out: PathBuf,
    /// Folder of the page, its picture and its numbers
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    results: PathBuf,
    /// Name of the page, its picture and its numbers
    #[arg(long, value_name = "NAME", default_value = "headline")]
    page: String,
    /// A data folder of real text, scored by an autoregressive model trained for it [default: the grammar corpus]
    #[arg(long, value_name = "DIR", requires = "preset")]
    text: Option<PathBuf>,
    /// Preset of all models of real text: a name or a TOML file
    #[arg(long, value_name = "NAME|FILE", requires = "text")]
    preset: Option<String>,
    /// Override one setting of every training; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Override one setting of every distillation; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set_distilled: Vec<String>,
    /// Network evaluations of each training; a backward pass counts as two
    #[arg(long, value_name = "N", default_value_t = 499_200)]
    evaluations: u64,
    /// Network evaluations of each distillation, all rounds together
    #[arg(long, value_name = "N", default_value_t = 384_000)]
    distillation: u64,
    /// Seeds of trainings, distillations and samples
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Numbers of sampling steps; the autoregressive model takes one per token
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 128])]
    steps: Vec<usize>,
    /// Samples per figure
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    samples: usize,
    /// Trainings at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Stop when everything is trained; the same command without it continues
    #[arg(long)]
    train_only: bool,
    /// Device of trainings and samples
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Type of matrix products
    #[arg(long, default_value = "f32", value_name = "f32|bf16")]
    dtype: String,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
    /// Run everything at the smallest size in a temporary folder
    #[arg(long)]
    smoke: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Flow,
    Mdlm,
    Duo,
    Autoregressive,
}

impl Family {
    /// The preset on the grammar, and the family's name in a configuration.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Flow => ("grammar-trajectory", "flow"),
            Self::Mdlm => ("grammar-mdlm", "mdlm"),
            Self::Duo => ("grammar-duo", "duo"),
            Self::Autoregressive => ("grammar-ar", "autoregressive"),
        }
    }
}

/// A model, or another way to sample one.
struct Row {
    name: &'static str,
    family: Family,
    teacher: Option<&'static str>,
    samples_of: Option<&'static str>,
    options: &'static [&'static str],
    /// Preset on the grammar, if not the family's.
    preset: Option<&'static str>,
    on_grammar: &'static [&'static str],
    on_text: &'static [&'static str],
    only: Option<usize>,
}

const fn trained(name: &'static str, family: Family) -> Row {
    Row {
        name,
        family,
        teacher: None,
        samples_of: None,
        options: &[],
        preset: None,
        on_grammar: &[],
        on_text: &[],
        only: None,
    }
}

const fn distilled(name: &'static str, family: Family, teacher: &'static str) -> Row {
    Row {
        teacher: Some(teacher),
        ..trained(name, family)
    }
}

const fn sampled(
    name: &'static str,
    family: Family,
    model: &'static str,
    options: &'static [&'static str],
) -> Row {
    Row {
        samples_of: Some(model),
        options,
        ..trained(name, family)
    }
}

/// The flow map of the claim, and the flow that perfect models share an embedding with.
const FLOW_MAP: &str = "FMLM by matching";
const FLOW: &str = "FLM";
const EVIDENCE: &str = "FLM with evidence";
/// The claim: the flow map in one step beats its rivals in eight.
const CLAIM: (usize, usize) = (1, 8);

const ROWS: &[Row] = &[
    trained(FLOW, Family::Flow),
    distilled("FMLM", Family::Flow, FLOW),
    // As published for LM1B.
    sampled("FMLM, γ = 0.8", Family::Flow, "FMLM", &["--gamma", "0.8"]),
    Row {
        preset: Some("grammar-tiny"),
        on_text: &["model.evidence=true", "train.self_conditioning=0.25"],
        ..trained(EVIDENCE, Family::Flow)
    },
    sampled(
        "FLM with evidence, bridge",
        Family::Flow,
        EVIDENCE,
        &["--sampler", "bridge"],
    ),
    Row {
        preset: Some("grammar-tiny"),
        // As valid as the preset's at equal evaluations and more varied, but slower on two cores.
        on_grammar: &[
            "distill.distribution.temperature=0.85",
            "distill.distribution.student_temperature=2",
            "distill.train.batch=16",
        ],
        on_text: &[
            "distill.flow_map.objective=distribution",
            "distill.distribution.student_temperature=8",
            "distill.train.auxiliary_rate=3",
            "distill.train.optimizer.lr=2e-4",
            "distill.train.optimizer.muon_lr=1.2e-2",
        ],
        only: Some(1),
        ..distilled(FLOW_MAP, Family::Flow, EVIDENCE)
    },
    trained("MDLM", Family::Mdlm),
    distilled("MDLM + SDTT", Family::Mdlm, "MDLM"),
    trained("Duo", Family::Duo),
    distilled("Duo + DCD", Family::Duo, "Duo"),
    // As published.
    sampled(
        "Duo + DCD, greedy tail",
        Family::Duo,
        "Duo + DCD",
        &["--greedy-tail"],
    ),
    trained("AR", Family::Autoregressive),
];

impl Arguments {
    /// A row of the table as a model of the study.
    fn model(&self, row: &Row) -> Model {
        let (grammar, family) = row.family.names();
        let preset = self
            .preset
            .as_deref()
            .unwrap_or(row.preset.unwrap_or(grammar));
        let (command, evaluations, more) = match row.teacher {
            Some(_) => ("distill", self.distillation, &self.set_distilled),
            None => ("train", self.evaluations, &self.set),
        };
        let mut training = words(&format!("{command} --preset"));
        training.push(preset.to_owned());
        if self.preset.is_some() {
            if row.teacher.is_none() {
                training.extend(set("model.family=", &[family]));
            }
            training.extend(set("", row.on_text));
        } else {
            training.extend(set("", row.on_grammar));
        }
        training.extend(set("", more));
        let own = row.samples_of.is_none();
        Model {
            name: row.name,
            teacher: row.teacher,
            samples_of: row.samples_of,
            training,
            evaluations,
            options: row.options,
            shared: false,
            only: row.only,
            scales_noise: row.family == Family::Flow,
            autoregressive: row.family == Family::Autoregressive,
            likelihood: own && row.teacher.is_none() && row.family != Family::Flow,
            drawn: own,
        }
    }

    fn study(&self, data: &[&str]) -> Study {
        let data = match &self.text {
            Some(folder) => Data::Text {
                folder: folder.display().to_string(),
                scorer: Box::new(self.model(&trained("judge", Family::Autoregressive))),
            },
            None => Data::Grammar([words("--preset grammar-trajectory"), set("", data)].concat()),
        };
        Study {
            table: Table {
                title: "Flows beside their rivals",
                pipeline: "headline",
                models: ROWS.iter().map(|row| self.model(row)).collect(),
                claims: claims(),
            },
            data,
            seeds: self.seeds.clone(),
            steps: self.steps.clone(),
            temperatures: &TEMPERATURES,
            samples: self.samples,
            device: words(&format!("--device {} --dtype {}", self.device, self.dtype)),
        }
    }

    fn go(&self, program: PathBuf, data: &[&str]) -> anyhow::Result<()> {
        ensure!(self.jobs > 0, "--jobs must be at least 1");
        ensure!(
            self.text.is_some() || self.steps.iter().any(|steps| *steps <= FEW),
            "--steps needs a number of at most {FEW}, in which exact models are sampled"
        );
        let runner = Runner {
            program,
            out: self.out.clone(),
            jobs: self.jobs,
        };
        let study = self.study(data);
        if self.train_only {
            return study.train(&runner, "");
        }
        let mut found = study.run(&runner, "")?;
        if self.text.is_none() {
            found.perfect = Some(perfect::measure(&study, &runner, FLOW)?);
        }
        report::publish(&study.table, &found, &self.results, &self.page)
    }
}

/// The flow map in one step beside every distilled rival in eight.
fn claims() -> Vec<super::study::Claim> {
    let ((few, more), rival) = (CLAIM, |row: &&Row| row.family != Family::Flow);
    let distilled = |row: &Row| row.teacher.is_some() || row.samples_of.is_some();
    let rivals = ROWS.iter().filter(rival).filter(|row| distilled(row));
    rivals
        .map(|row| ((FLOW_MAP, few), (row.name, more)))
        .collect()
}

/// The table of a page, for rendering its numbers again.
pub(crate) fn table() -> Table {
    smallest_arguments(Path::new("")).study(&[]).table
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = arguments.flm.clone().map_or_else(build, Ok)?;
    match arguments.smoke {
        true => smoke(program),
        false => arguments.go(program, &[]),
    }
}

fn smallest_arguments(home: &Path) -> Arguments {
    Arguments {
        out: home.join("grammar"),
        results: home.join("results"),
        page: "headline".to_owned(),
        text: None,
        preset: None,
        set: words(
            "model.width=16 model.blocks=1 model.heads=2 model.cond_dim=8 \
             train.batch=4 train.micro_batch=4 train.validation_rows=2",
        ),
        set_distilled: words(
            "distill.train.batch=4 distill.train.micro_batch=2 distill.train.validation_rows=2",
        ),
        evaluations: 100,
        distillation: 300,
        seeds: vec![0],
        steps: vec![1, 8],
        samples: 4,
        jobs: 2,
        train_only: false,
        device: "cpu".to_owned(),
        dtype: "f32".to_owned(),
        flm: None,
        smoke: true,
    }
}

/// Runs everything at the smallest size, on the grammar and on text, in a temporary folder.
pub(crate) fn smoke(program: PathBuf) -> anyhow::Result<()> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let text = home.path().join("text");
    let grammar = smallest_arguments(home.path());
    let on_text = Arguments {
        out: home.path().join("on-text"),
        page: "headline-text".to_owned(),
        text: Some(text.clone()),
        preset: Some("shakespeare-char".to_owned()),
        ..grammar.clone()
    };
    let prepare = "data prepare --input README.md --tokenizer chars --length 16 --pack --validation-share 0.05 --out";
    duct::cmd(
        &program,
        words(prepare)
            .into_iter()
            .chain([text.display().to_string()]),
    )
    .stdout_null()
    .stderr_null()
    .run()
    .context("cannot prepare README.md: run this in the folder of the project")?;
    for arguments in [&grammar, &on_text] {
        let go = || arguments.go(program.clone(), &["data.sentences=600"]);
        go()?;
        let page = arguments.results.join(format!("{}.json", arguments.page));
        let before = std::fs::read_to_string(&page)?;
        go()?;
        ensure!(
            std::fs::read_to_string(&page)? == before,
            "{} changed although nothing ran",
            page.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_and_models_come_first() {
        for (place, row) in ROWS.iter().enumerate() {
            for before in row.teacher.iter().chain(&row.samples_of) {
                let found = ROWS[..place].iter().find(|row| row.name == *before);
                assert!(found.expect("it is there").family == row.family);
            }
        }
    }
}
