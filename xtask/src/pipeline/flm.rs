//! The program under study, run and watched.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use sysinfo::{Pid, Process, ProcessesToUpdate, System};

/// How often a process is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// `flm`, and where its output goes.
pub(crate) struct Flm {
    pub(crate) program: PathBuf,
    pub(crate) log: PathBuf,
}

/// What a process has used, as far as the system tells; memory is looked at five times a second.
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
        let (mut system, mut used) = (System::new(), Used::default());
        let process = Pid::from_u32(child.id());
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            system.refresh_processes(ProcessesToUpdate::Some(&[process]), true);
            if let Some(process) = system.process(process) {
                used.add(process);
            }
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

impl Used {
    /// Adds what a living process has used so far.
    fn add(&mut self, process: &Process) {
        let memory = process.memory() as f64 / f64::from(1 << 20);
        let seconds = process.accumulated_cpu_time() as f64 / 1e3;
        self.cpu_seconds = Some(seconds);
        self.peak_mib = Some(self.peak_mib.unwrap_or(0.0).max(memory));
    }
}
