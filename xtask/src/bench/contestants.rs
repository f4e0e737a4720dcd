//! The contestants of a benchmark, each repetition in its own process.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Command;

/// Compiled PyTorch, for blocks and flow steps only.
pub(super) const COMPILED: &str = "torch, lean, compiled";

/// The output of a process.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) seconds: Vec<f64>,
    pub(super) peak_mib: Option<f64>,
    pub(super) warmup: Option<f64>,
    pub(super) gpu_mib: Option<f64>,
    pub(super) error: Option<String>,
}

impl Answer {
    pub(super) fn failed(reason: &str) -> Self {
        Self {
            seconds: Vec::new(),
            peak_mib: None,
            warmup: None,
            gpu_mib: None,
            error: Some(reason.to_owned()),
        }
    }
}

/// A program that runs benchmarks.
pub(super) struct Contestant {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
}

impl Contestant {
    fn run(&self, arguments: &[String]) -> anyhow::Result<Answer> {
        let output = Command::new(&self.program)
            .args(&self.before)
            .args(arguments)
            .args(&self.after)
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: {}",
                self.name,
                error.lines().last().unwrap_or("no reason")
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("{} did not answer in JSON: {text}", self.name))
    }
}

/// The repetitions of one contestant over all rounds.
#[derive(Default)]
pub(super) struct Timing {
    pub(super) seconds: Vec<f64>,
    pub(super) peak: f64,
    pub(super) failed: Option<String>,
}

impl Timing {
    pub(super) fn of(answer: &Answer) -> Self {
        Self {
            seconds: answer.seconds.clone(),
            peak: answer.peak_mib.unwrap_or_default(),
            failed: answer.error.clone(),
        }
    }

    pub(super) fn median(&self) -> f64 {
        if self.seconds.is_empty() {
            return f64::NAN;
        }
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        }
    }

    pub(super) fn spread(&self) -> (f64, f64) {
        let fold = |f: fn(f64, f64) -> f64, start| self.seconds.iter().copied().fold(start, f);
        (fold(f64::min, f64::INFINITY), fold(f64::max, 0.0))
    }
}

/// Runs every contestant once per round; one that fails skips the later rounds.
pub(super) fn time(contestants: &[Contestant], arguments: &[String], rounds: usize) -> Vec<Timing> {
    let mut timings: Vec<Timing> = contestants.iter().map(|_| Timing::default()).collect();
    for _ in 0..rounds {
        for (contestant, timing) in contestants.iter().zip(&mut timings) {
            let compiles = matches!(arguments[0].as_str(), "peak" | "block" | "flow");
            if timing.failed.is_some() || contestant.name == COMPILED && !compiles {
                timing
                    .failed
                    .get_or_insert_with(|| "not compiled".to_owned());
                continue;
            }
            match contestant.run(arguments) {
                Ok(answer) => {
                    timing.seconds.extend(answer.seconds);
                    timing.peak = timing.peak.max(answer.peak_mib.unwrap_or(f64::NAN));
                }
                Err(error) => timing.failed = Some(format!("{error:#}")),
            }
        }
    }
    timings
}
