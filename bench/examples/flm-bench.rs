//! Times one piece of work in a process of its own and prints one line of JSON: seconds of each repetition, and the peak
//! resident memory of the process in MiB.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use clap::{Parser, ValueEnum};
use flm_bench::{Sizes, Work};
use std::time::Instant;

#[derive(Parser)]
#[command(name = "flm-bench", about = "Time one piece of work")]
struct Arguments {
    work: Kind,
    #[command(flatten)]
    sizes: Sizes,
    /// Forward and backward, for a block or a head.
    #[arg(long)]
    backward: bool,
    /// Network evaluations of a sample.
    #[arg(long, default_value_t = 1)]
    jumps: usize,
    /// Repetitions that are not timed.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Repetitions that are.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Block,
    Head,
    Flow,
    Semigroup,
    Evaluation,
    Jvp,
    Sample,
    Peak,
}

impl Arguments {
    fn work(&self) -> Work {
        let sizes = self.sizes;
        match (self.work, self.backward) {
            (Kind::Block, false) => flm_bench::block_forward(sizes),
            (Kind::Block, true) => flm_bench::block_both(sizes),
            (Kind::Head, false) => flm_bench::head_forward(sizes),
            (Kind::Head, true) => flm_bench::head_both(sizes),
            (Kind::Flow, _) => flm_bench::flow_step(sizes),
            (Kind::Semigroup, _) => flm_bench::semigroup_step(sizes),
            (Kind::Evaluation, _) => flm_bench::evaluation(sizes),
            (Kind::Jvp, _) => flm_bench::jvp(sizes),
            (Kind::Sample, _) => flm_bench::sample(sizes, self.jumps),
            (Kind::Peak, _) => flm_bench::peak(),
        }
    }
}

fn main() {
    flm_alloc::keep_memory();
    let arguments = Arguments::parse();
    let mut work = arguments.work();
    (0..arguments.warmup).for_each(|_| work());
    let seconds: Vec<f64> = (0..arguments.repeat)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .collect();
    println!(
        "{}",
        serde_json::json!({"seconds": seconds, "peak_mib": peak_memory()})
    );
}

/// Peak resident memory of this process in MiB; nothing where there is no `/proc`.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
