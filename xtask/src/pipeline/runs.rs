//! Trainings of a study: done once, watched, and gone on with where they were stopped.

use super::flm::{Flm, Used};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of a study, and the program that makes what is in it.
pub(crate) struct Runs {
    pub(crate) flm: Flm,
    pub(crate) out: PathBuf,
}

/// What a training took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trained {
    /// Optimizer steps, evaluations of the network and seconds of the training alone.
    pub(crate) steps: u64,
    pub(crate) evaluations: u64,
    pub(crate) seconds: f64,
    pub(crate) used: Used,
    pub(crate) command: String,
    /// Of the project, when the run was finished.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    /// Trainings that shared the machine.
    #[serde(default = "one")]
    pub(crate) jobs: usize,
    /// Of the model, and of its teacher if it has one: the beginning of their SHA-256.
    #[serde(default)]
    pub(crate) weights: String,
    #[serde(default)]
    pub(crate) teacher: Option<String>,
}

fn one() -> usize {
    1
}

/// What of a model's card is told.
#[derive(Deserialize)]
struct Card {
    training: Training,
}

#[derive(Deserialize)]
struct Training {
    steps: u64,
    evaluations: u64,
    seconds: f64,
}

impl Runs {
    /// Makes the folder.
    pub(crate) fn new(program: PathBuf, out: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let log = out.join("log.txt");
        Ok(Self {
            flm: Flm { program, log },
            out: out.to_path_buf(),
        })
    }

    pub(crate) fn path(&self, parts: &[&str]) -> String {
        let place = parts
            .iter()
            .fold(self.out.clone(), |all, part| all.join(part));
        place.display().to_string()
    }

    /// The folder of a run.
    pub(crate) fn run(&self, name: &str) -> String {
        self.path(&["runs", name])
    }

    /// Prepares the data, unless it is there.
    pub(crate) fn prepare(&self, arguments: &[String]) -> anyhow::Result<()> {
        let data = self.path(&["data"]);
        if Path::new(&data).join("dataset.json").is_file() {
            return Ok(());
        }
        let mut all = words(&["data", "prepare", "--force", "--out", &data]);
        all.extend_from_slice(arguments);
        self.flm.run(&all).map(drop)
    }

    /// The command of a training, as it can be typed.
    pub(crate) fn command(&self, name: &str, arguments: &[String]) -> String {
        format!("flm {} --out {}", arguments.join(" "), self.run(name))
    }

    /// Trains to the end: goes on where it was stopped, or begins `anew`.
    pub(crate) fn train(
        &self,
        name: &str,
        arguments: &[String],
        anew: bool,
    ) -> anyhow::Result<Trained> {
        let run = self.run(name);
        let folder = PathBuf::from(&run);
        let mut all = arguments.to_vec();
        all.extend(words(&["--out", &run]));
        let started = folder.join("config.toml").is_file() && !anew;
        let begun = PathBuf::from(self.path(&["begun", &format!("{name}.txt")]));
        let command = self.command(name, arguments);
        if started && let Ok(then) = fs::read_to_string(&begun) {
            same(&folder, &then, &command)?;
        }
        super::write(&begun, &command)?;
        if started {
            all.push("--resume".to_owned());
        } else if folder.exists() {
            all.push("--force".to_owned());
        }
        let mut used = self.flm.run(&all)?;
        if started {
            // Only the last part of the run was watched.
            used = Used::default();
        }
        let Card { training } = read(&folder.join("model/run.json"))?;
        Ok(Trained {
            steps: training.steps,
            evaluations: training.evaluations,
            seconds: training.seconds,
            used,
            command,
            commit: commit(),
            jobs: 1,
            weights: String::new(),
            teacher: None,
        })
    }

    /// The figures of a file of samples, or of a data folder, by `flm eval`.
    pub(crate) fn judge(&self, arguments: &[String]) -> anyhow::Result<serde_json::Value> {
        let mut all = words(&["eval", "--json"]);
        all.extend_from_slice(arguments);
        let answer = self.flm.ask(&all)?;
        let [judged]: [serde_json::Value; 1] = serde_json::from_str(&answer)?;
        Ok(judged)
    }
}

/// As a file is called.
pub(crate) fn name(variant: &str, seed: u64) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let joined = variant.replace(", ", "-").replace(" + ", "-");
    let words: String = joined.chars().map(plain).collect();
    format!("{words}-{seed}")
}

/// Refuses what another command made.
pub(crate) fn same(place: &Path, then: &str, now: &str) -> anyhow::Result<()> {
    ensure!(
        same_words(then, now),
        "{} was made by another command: remove it and the run of that name, or choose another --out\n  then {then}\n  now  {now}",
        place.display()
    );
    Ok(())
}

/// Whether two commands say the same, in whatever order.
pub(crate) fn same_words(one: &str, other: &str) -> bool {
    let sorted = |command: &str| {
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    sorted(one) == sorted(other)
}

/// The commit that is checked out, marked if something is changed; none without git.
pub(crate) fn commit() -> Option<String> {
    let git = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=7"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(git.stdout).ok()?.trim().to_owned())
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn set(section: &str, settings: &[&str]) -> Vec<String> {
    settings
        .iter()
        .flat_map(|setting| ["--set".to_owned(), format!("{section}{setting}")])
        .collect()
}

pub(crate) fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} cannot be understood", path.display()))
}
