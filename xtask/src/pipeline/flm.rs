//! The program under study, run and watched.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// How often a process is looked at.
const GLANCE: Duration = Duration::from_millis(200);
/// Clock ticks of the processor times in /proc: 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// `flm`, and where its output goes.
pub(crate) struct Flm {
    pub(crate) program: PathBuf,
    pub(crate) log: PathBuf,
}

/// What a process has used, as far as the system tells: Linux does.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Seconds of all cores together.
    pub(crate) cpu_seconds: Option<f64>,
    /// Most memory at once.
    pub(crate) peak_mib: Option<f64>,
}

impl Flm {
    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[String]) -> anyhow::Result<Used> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut used = Used::default();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            used = glance(child.id()).unwrap_or(used);
            sleep(GLANCE);
        };
        ensure!(
            status.success(),
            "`flm {}` failed with {status}: see {}",
            arguments.join(" "),
            self.log.display()
        );
        Ok(used)
    }

    /// What a command prints.
    pub(crate) fn ask(&self, arguments: &[String]) -> anyhow::Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .output()
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

/// What a living process has used so far.
fn glance(process: u32) -> Option<Used> {
    let folder = Path::new("/proc").join(process.to_string());
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .split_whitespace()
        .next()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // Behind the name in brackets, which may hold anything; user and system time are the 12th and 13th from there.
    let mut times = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    Some(Used {
        cpu_seconds: Some((ticks()? + ticks()?) / TICKS),
        peak_mib: Some(peak.parse::<f64>().ok()? / 1024.0),
    })
}
