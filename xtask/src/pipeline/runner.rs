//! Runs the commands of a study once, and again only where something they depend on changed.

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};
use sysinfo::{Pid, ProcessesToUpdate, System};

/// How often the memory of a running command is read.
const POLL: Duration = Duration::from_millis(200);

/// What a command makes, below the folder of the study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The data folder `data`.
    Data,
    /// The run folder `runs/NAME`. An interrupted training resumes.
    Training,
    /// The file `samples/NAME.jsonl`.
    Samples,
    /// JSON on standard output, kept in the record.
    Answer,
}

/// A command of `flm`.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) arguments: Vec<String>,
    /// Trainings whose weights the command reads.
    pub(crate) inputs: Vec<String>,
}

/// What a command did, kept in `records/NAME.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) command: String,
    /// Hashes of the weights that the command read.
    pub(crate) inputs: Vec<String>,
    /// False while a training runs.
    pub(crate) done: bool,
    /// Hash of the weights that a training wrote.
    pub(crate) weights: String,
    /// Commit of the project.
    pub(crate) commit: Option<String>,
    /// Trainings that shared the machine.
    pub(crate) jobs: usize,
    pub(crate) seconds: f64,
    pub(crate) used: Used,
    pub(crate) answer: Value,
}

/// Resources of a process; none for a training that was resumed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Seconds of all cores together.
    pub(crate) cpu_seconds: Option<f64>,
    /// Largest memory, sampled five times a second.
    pub(crate) peak_mib: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Missing,
    /// A training that was interrupted.
    Started,
    /// An input or the output changed since.
    Stale,
    Done,
}

/// The folder of a study, and the program that fills it.
pub(crate) struct Runner {
    pub(crate) program: PathBuf,
    pub(crate) out: PathBuf,
    /// Trainings at a time.
    pub(crate) jobs: usize,
}

impl Task {
    pub(crate) fn new(name: &str, kind: Kind, arguments: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            arguments: words(arguments),
            inputs: Vec::new(),
        }
    }

    /// Appends arguments that may contain spaces.
    pub(crate) fn with<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        let more = arguments.into_iter().map(|word| word.as_ref().to_owned());
        self.arguments.extend(more);
        self
    }

    pub(crate) fn reads(mut self, run: &str) -> Self {
        self.inputs.push(run.to_owned());
        self
    }
}

impl Runner {
    pub(crate) fn data(&self) -> String {
        self.path("data")
    }

    /// The folder of a training.
    pub(crate) fn folder(&self, run: &str) -> String {
        self.path(&format!("runs/{run}"))
    }

    pub(crate) fn samples(&self, name: &str) -> String {
        self.path(&format!("samples/{name}.jsonl"))
    }

    fn path(&self, name: &str) -> String {
        self.out.join(name).display().to_string()
    }

    fn record(&self, task: &Task) -> PathBuf {
        self.out.join(format!("records/{}.json", task.name))
    }

    /// What the task makes; an answer makes nothing.
    pub(crate) fn output(&self, task: &Task) -> Option<String> {
        match task.kind {
            Kind::Data => Some(self.data()),
            Kind::Training => Some(self.folder(&task.name)),
            Kind::Samples => Some(self.samples(&task.name)),
            Kind::Answer => None,
        }
    }

    fn arguments(&self, task: &Task) -> Vec<String> {
        let mut all = task.arguments.clone();
        if let Some(output) = self.output(task) {
            all.extend(["--out".to_owned(), output]);
        }
        all
    }

    pub(crate) fn command(&self, task: &Task) -> String {
        format!("flm {}", self.arguments(task).join(" "))
    }

    /// The hash of a training's weights, or an empty string before it has some.
    fn weights(&self, run: &str) -> anyhow::Result<String> {
        let path = Path::new(&self.folder(run)).join("model/model.safetensors");
        if !path.is_file() {
            return Ok(String::new());
        }
        Ok(flm_files::sha256(&path)?[..16].to_owned())
    }

    fn inputs(&self, task: &Task) -> anyhow::Result<Vec<String>> {
        task.inputs.iter().map(|run| self.weights(run)).collect()
    }

    /// The record of a task, if its command is the same.
    ///
    /// # Errors
    ///
    /// Another command made the data or the training of that name.
    fn found(&self, task: &Task) -> anyhow::Result<Option<Record>> {
        let place = self.record(task);
        if !place.is_file() {
            return Ok(None);
        }
        let found: Record = read(&place)?;
        let command = self.command(task);
        if same_words(&found.command, &command) {
            return Ok(Some(found));
        }
        if matches!(task.kind, Kind::Data | Kind::Training) {
            bail!(
                "another command made {}: remove it and {}, or choose another --out\n  then {}\n  now  {command}",
                self.output(task).unwrap_or_default(),
                place.display(),
                found.command
            );
        }
        Ok(None)
    }

    pub(crate) fn state(&self, task: &Task) -> anyhow::Result<State> {
        let Some(found) = self.found(task)? else {
            return Ok(State::Missing);
        };
        let there = match task.kind {
            Kind::Data => Path::new(&self.data()).join("dataset.json").is_file(),
            Kind::Training => !self.weights(&task.name)?.is_empty(),
            Kind::Samples => Path::new(&self.samples(&task.name)).is_file(),
            Kind::Answer => true,
        };
        let trained = task.kind == Kind::Training;
        if !found.done || (trained && !there) {
            return Ok(State::Started);
        }
        if !there {
            return Ok(State::Missing);
        }
        let changed = trained && self.weights(&task.name)? != found.weights;
        match changed || self.inputs(task)? != found.inputs {
            true => Ok(State::Stale),
            false => Ok(State::Done),
        }
    }

    /// Runs the task unless it is done, and returns its record.
    pub(crate) fn run(&self, task: &Task) -> anyhow::Result<Record> {
        let (state, place) = (self.state(task)?, self.record(task));
        if state == State::Done {
            return read(&place);
        }
        let mut record = Record {
            command: self.command(task),
            inputs: self.inputs(task)?,
            commit: commit(),
            jobs: self.jobs,
            ..Record::default()
        };
        let mut arguments = self.arguments(task);
        let output = self.output(task).map(PathBuf::from);
        if let Some(parent) = output.as_ref().and_then(|output| output.parent()) {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let config = output.as_ref().map(|output| output.join("config.toml"));
        let resumes = state == State::Started && config.is_some_and(|config| config.is_file());
        if resumes {
            arguments.push("--resume".to_owned());
        } else if output.is_some_and(|output| output.exists()) {
            arguments.push("--force".to_owned());
        }
        if task.kind != Kind::Answer {
            println!("flm {}", arguments.join(" "));
        }
        if task.kind == Kind::Training {
            write_json(&place, &record)?;
        }
        let start = Instant::now();
        if task.kind == Kind::Answer {
            record.answer = self.ask(&arguments)?;
        } else {
            record.used = self.watch(&arguments)?;
        }
        record.seconds = start.elapsed().as_secs_f64();
        if task.kind == Kind::Training {
            let card: Value = read(&Path::new(&self.folder(&task.name)).join("model/run.json"))?;
            record.answer = card["training"].clone();
            record.weights = self.weights(&task.name)?;
            if resumes {
                record.used = Used::default();
            }
        }
        record.done = true;
        write_json(&place, &record)?;
        Ok(record)
    }

    /// Runs chains of tasks, as many at a time as there are jobs; tasks of a chain run one after another.
    pub(crate) fn run_all(&self, chains: Vec<Vec<Task>>) -> anyhow::Result<()> {
        let waiting = Mutex::new(VecDeque::from(chains));
        let next = || waiting.lock().expect("no worker panics").pop_front();
        let work = || -> anyhow::Result<()> {
            while let Some(chain) = next() {
                if let Err(error) = chain.iter().try_for_each(|task| self.run(task).map(drop)) {
                    // The other workers finish their chain and start no other.
                    waiting.lock().expect("no worker panics").clear();
                    return Err(error);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("no worker panics"))
        })
    }

    /// Runs a command to its end, its output in `log.txt`.
    pub(crate) fn watch(&self, arguments: &[String]) -> anyhow::Result<Used> {
        let log = self.out.join("log.txt");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let process = duct::cmd(&self.program, arguments)
            .stdin_null()
            .stdout_file(file)
            .stderr_to_stdout()
            .unchecked()
            .start()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let pids: Vec<Pid> = process.pids().into_iter().map(Pid::from_u32).collect();
        let (mut system, mut used) = (System::new(), Used::default());
        let output = loop {
            if let Some(output) = process.try_wait()? {
                break output;
            }
            system.refresh_processes(ProcessesToUpdate::Some(&pids), true);
            for process in pids.iter().filter_map(|pid| system.process(*pid)) {
                let memory = process.memory() as f64 / f64::from(1 << 20);
                used.cpu_seconds = Some(process.accumulated_cpu_time() as f64 / 1e3);
                used.peak_mib = Some(used.peak_mib.unwrap_or(0.0).max(memory));
            }
            sleep(POLL);
        };
        ensure!(
            output.status.success(),
            "`flm {}` failed with {}: see {}",
            arguments.join(" "),
            output.status,
            log.display()
        );
        Ok(used)
    }

    /// Parses what a command prints.
    pub(crate) fn ask<T: DeserializeOwned>(&self, arguments: &[String]) -> anyhow::Result<T> {
        let text = self.print(arguments)?;
        serde_json::from_str(&text)
            .with_context(|| format!("cannot parse the output of `flm {}`", arguments.join(" ")))
    }

    /// What a command prints.
    pub(crate) fn print(&self, arguments: &[String]) -> anyhow::Result<String> {
        let output = duct::cmd(&self.program, arguments)
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .run()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "`flm {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Whether two commands have the same words, in any order.
fn same_words(one: &str, other: &str) -> bool {
    let sorted = |command: &str| {
        let mut words = words(command);
        words.sort();
        words
    };
    sorted(one) == sorted(other)
}

/// The commit that is checked out, marked if a file differs; none without git.
fn commit() -> Option<String> {
    let describe = ["describe", "--always", "--dirty", "--abbrev=7"];
    duct::cmd("git", describe).stderr_null().read().ok()
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    Ok(flm_files::write(path, text.as_bytes())?)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that writes weights to its training, and appends a line to its samples.
    const PROGRAM: &str = r#"#!/bin/sh
case $1 in
train)
    mkdir -p $3/model; touch $3/config.toml
    echo weights > $3/model/model.safetensors
    echo '{"training": {"steps": 1}}' > $3/model/run.json;;
sample) echo "$*" >> $3;;
esac
"#;

    #[test]
    fn a_task_runs_again_only_where_its_input_changed() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("flm");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let runner = Runner {
            program,
            out: home.path().join("study"),
            jobs: 1,
        };
        let training = Task::new("flow", Kind::Training, "train");
        let samples = Task::new("flow-1", Kind::Samples, "sample").reads("flow");
        let lines = || {
            fs::read_to_string(runner.samples("flow-1"))
                .unwrap()
                .lines()
                .count()
        };
        fs::create_dir_all(&runner.out).unwrap();
        for _ in 0..2 {
            runner
                .run_all(vec![vec![training.clone(), samples.clone()]])
                .unwrap();
            assert_eq!(lines(), 1);
        }
        let weights = Path::new(&runner.folder("flow")).join("model/model.safetensors");
        fs::write(&weights, "others").unwrap();
        assert_eq!(runner.state(&training).unwrap(), State::Stale);
        assert_eq!(runner.state(&samples).unwrap(), State::Stale);
        runner.run(&samples).unwrap();
        assert_eq!((lines(), runner.state(&samples).unwrap()), (2, State::Done));
        // A training without its model was interrupted just before its end.
        fs::remove_file(&weights).unwrap();
        assert_eq!(runner.state(&training).unwrap(), State::Started);
        let other = Task::new("flow", Kind::Training, "train --steps 2");
        let error = runner.run(&other).unwrap_err().to_string();
        assert!(error.contains("another command made"), "{error}");
    }
}
