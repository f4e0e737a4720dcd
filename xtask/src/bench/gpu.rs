//! Benchmarks on a GPU: training steps and sampling at full size, in f32 and bf16, with the card's limits.

use super::Arguments;
use super::contestants::{Answer, Timing};
use super::works::{Kind, LONG, SMALL, Sizes, Work};
use anyhow::{Context, bail};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows of the matrices whose product is the peak.
const PEAK: usize = 8_192;
/// Rows of the matrix whose copy is the bandwidth: 1 GiB.
const COPY: usize = 16_384;
const DTYPES: [&str; 2] = ["f32", "bf16"];

/// A program that runs benchmarks in a number type.
struct Contestant {
    name: &'static str,
    program: PathBuf,
    before: Vec<String>,
    after: Vec<&'static str>,
    /// Whether one process runs many benchmarks.
    many: bool,
    dtypes: &'static [&'static str],
}

/// A result.
#[derive(Serialize)]
struct Line<'a> {
    work: &'a str,
    dtype: &'a str,
    by: &'a str,
    seconds: Vec<f64>,
    /// Seconds before the first timed repetition: weights, compiled kernels.
    warmup: Option<f64>,
    /// Floating-point operations of the necessary products.
    operations: f64,
    gpu_mib: Option<f64>,
    failed: Option<&'a str>,
}

/// The benchmarks of a GPU.
fn works() -> Vec<Work> {
    let mut works = Vec::new();
    let mut add = |name: String, kind, sizes| {
        works.push(Work {
            name,
            kind,
            sizes,
            goal: None,
        });
    };
    for batch in [64, 256] {
        let name = format!("flow step, V 30,522, L 128, batch {batch}");
        add(name, Kind::Flow, Sizes { batch, ..SMALL });
    }
    // A pass takes eight: attention scores are kept for the backward pass.
    for (batch, parts) in [(8, 1), (32, 4)] {
        let name = format!("flow step, V 50,258, L 1,024, batch {batch} in passes of 8");
        let sizes = Sizes {
            batch,
            parts,
            ..LONG
        };
        add(name, Kind::Flow, sizes);
    }
    let name = "semigroup step, V 30,522, L 128, batch 64".to_owned();
    add(name, Kind::Semigroup, Sizes { batch: 64, ..SMALL });
    for batch in [1, 64] {
        for jumps in [1, 8] {
            let name = format!("sample, V 30,522, L 128, batch {batch}, {jumps} evaluations");
            add(name, Kind::Sample { jumps }, Sizes { batch, ..SMALL });
        }
    }
    works
}

impl Contestant {
    /// Runs benchmarks, each a line of options, and returns the results in order.
    fn run(&self, works: &[Vec<String>]) -> anyhow::Result<Vec<Answer>> {
        if !self.many {
            return works.iter().map(|work| self.one(work)).collect();
        }
        let mut file = tempfile::NamedTempFile::new()?;
        for work in works {
            let line: Vec<&str> = work.iter().map(String::as_str).collect();
            writeln!(file, "{} {}", line.join(" "), self.after.join(" "))?;
        }
        let output = Command::new(&self.program)
            .args(&self.before)
            .arg("--many")
            .arg(file.path())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut answers: Vec<Answer> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let said = reason(&output.stderr);
        answers.resize_with(works.len(), || Answer::failed(&said));
        Ok(answers)
    }

    fn one(&self, work: &[String]) -> anyhow::Result<Answer> {
        let output = Command::new(&self.program)
            .args(&self.before)
            .args(work)
            .args(&self.after)
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answer = text.lines().last().map(serde_json::from_str);
        Ok(match answer {
            Some(Ok(answer)) if output.status.success() => answer,
            _ => Answer::failed(&reason(&output.stderr)),
        })
    }
}

/// The last output of a failed process.
fn reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("no reason given").to_owned()
}

/// Runs every benchmark on a GPU, writes JSON lines, and prints the table.
pub(super) fn run(arguments: &Arguments, binary: PathBuf) -> anyhow::Result<()> {
    let torch = |name, python: &Path, after: &[&'static str], dtypes| Contestant {
        name,
        program: python.to_owned(),
        before: vec![arguments.script().display().to_string()],
        after: after.to_vec(),
        many: true,
        dtypes,
    };
    let mut contestants = vec![Contestant {
        name: "flm",
        program: binary,
        before: Vec::new(),
        after: vec!["--head-numbers", "134217728"],
        many: false,
        dtypes: &DTYPES,
    }];
    if let Some(python) = &arguments.against_torch {
        let released = ["--variant", "released", "--fused"];
        contestants.push(torch("torch as released", python, &released, &DTYPES));
        let lean = ["--variant", "lean", "--fused", "--attention", "sdpa"];
        contestants.push(torch(
            "torch, lean, fused attention",
            python,
            &lean,
            &DTYPES[1..],
        ));
        if arguments.compile {
            let compiled = [&lean[..], &["--compile"]].concat();
            contestants.push(torch("the same, compiled", python, &compiled, &DTYPES[1..]));
        }
    }
    let works: Vec<Work> = works()
        .into_iter()
        .filter(|work| work.name.contains(&arguments.only))
        .collect();
    let mut json = match &arguments.json {
        Some(path) => {
            Some(std::fs::File::create(path).with_context(|| path.display().to_string())?)
        }
        None => None,
    };
    let on =
        |dtype: &str| ["--device", arguments.device.as_str(), "--dtype", dtype].map(str::to_owned);
    let square = |work: &str, size: usize, dtype| {
        let size = size.to_string();
        let options = [work, "--size", &size, "--warmup", "3", "--repeat", "20"];
        [&options.map(str::to_owned)[..], &on(dtype)].concat()
    };
    // The best product of each number type in this run.
    let mut peaks = [0.0_f64; 2];
    for contestant in &contestants {
        let limits = [
            square("peak", PEAK, "f32"),
            square("peak", PEAK, "bf16"),
            square("copy", COPY, "f32"),
        ];
        let answers = contestant.run(&limits)?;
        for (i, answer) in answers.iter().enumerate() {
            let median = Timing::of(answer).median();
            let (what, size) = match i {
                2 => ("bytes of f32 read and written", 8.0 * (COPY as f64).powi(2)),
                i => (DTYPES[i], 2.0 * (PEAK as f64).powi(3)),
            };
            let rate = size / median / 1e12;
            println!("{}, {what}: {rate:.2} T/s", contestant.name);
            if let (Some(peak), true) = (peaks.get_mut(i), rate.is_finite()) {
                *peak = peak.max(rate * 1e12);
            }
        }
    }
    println!(
        "\n| work | numbers | by | median | from–to | flm is faster | of the peak | before it | GPU memory |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut ours: Vec<[Option<f64>; 2]> = vec![[None; 2]; works.len()];
    for contestant in &contestants {
        for dtype in contestant.dtypes {
            let number = usize::from(*dtype == "bf16");
            let lines: Vec<Vec<String>> = works
                .iter()
                .map(|work| {
                    let mut options = work.arguments(arguments.repeat);
                    options.extend(on(dtype));
                    options
                })
                .collect();
            let batches: Vec<&[Vec<String>]> = if contestant.many {
                vec![&lines]
            } else {
                lines.chunks(1).collect()
            };
            let mut index = 0;
            for batch in batches {
                for answer in contestant.run(batch)? {
                    let work = &works[index];
                    let timing = Timing::of(&answer);
                    if contestant.name == "flm" && timing.failed.is_none() {
                        ours[index][number] = Some(timing.median());
                    }
                    let line = Line {
                        work: &work.name,
                        dtype,
                        by: contestant.name,
                        seconds: answer.seconds,
                        warmup: answer.warmup,
                        operations: work.operations(),
                        gpu_mib: answer.gpu_mib,
                        failed: timing.failed.as_deref(),
                    };
                    if let Some(file) = &mut json {
                        writeln!(file, "{}", serde_json::to_string(&line)?)?;
                    }
                    println!(
                        "{}",
                        row(&line, &timing, ours[index][number], peaks[number])
                    );
                    index += 1;
                }
            }
        }
    }
    if ours.iter().flatten().all(Option::is_none) {
        bail!("nothing ran on {}", arguments.device);
    }
    Ok(())
}

fn row(line: &Line<'_>, timing: &Timing, ours: Option<f64>, peak: f64) -> String {
    let start = format!("| {} | {} | {} |", line.work, line.dtype, line.by);
    if let Some(reason) = &timing.failed {
        let reason: String = reason.chars().take(100).collect();
        return format!("{start} failed: {reason} | | | | | |");
    }
    let (median, (from, to)) = (timing.median(), timing.spread());
    let ratio = match ours {
        Some(ours) if line.by != "flm" => format!("{:.2}×", median / ours),
        _ => String::new(),
    };
    let ms = |seconds: f64| format!("{:.2}", 1e3 * seconds);
    format!(
        "{start} {} ms | {}–{} | {ratio} | {:.0} % | {:.0} s | {:.1} GiB |",
        ms(median),
        ms(from),
        ms(to),
        100.0 * line.operations / median / peak,
        line.warmup.unwrap_or(f64::NAN),
        line.gpu_mib.unwrap_or(f64::NAN) / 1024.0,
    )
}
