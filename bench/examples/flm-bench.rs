//! Times one piece of work in a process of its own and prints one line of JSON: seconds of each repetition, the peak
//! resident memory of the process in MiB, and on an NVIDIA GPU the memory that is taken of it, in MiB.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use clap::{Parser, ValueEnum};
use flm_bench::{Bench, Sizes, Work};
use flm_denoiser::{Execution, Precision};
use std::process::Command;
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
    /// Rows of a square matrix, for a product or a copy.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Where to compute.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// In which numbers: f32 or bf16.
    #[arg(long, default_value_t = Precision::F32)]
    dtype: Precision,
    /// Numbers in a V-wide tensor of the head.
    #[arg(long)]
    head_numbers: Option<usize>,
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
    Copy,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Device {
    Cpu,
    Wgpu,
    #[value(alias = "cuda:0")]
    Cuda,
}

impl Arguments {
    fn work(&self) -> Work {
        match self.device {
            Device::Cpu => self.work_on::<Autodiff<Flex>>(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu => self.work_on::<Autodiff<burn::backend::Wgpu>>(),
            #[cfg(feature = "cuda")]
            Device::Cuda => self.work_on::<Autodiff<burn::backend::Cuda>>(),
            #[cfg(not(all(feature = "wgpu", feature = "cuda")))]
            _ => panic!("built without this device: --features wgpu,cuda"),
        }
    }

    fn work_on<B: AutodiffBackend>(&self) -> Work {
        let usual = Execution::default();
        let bench = Bench::<B> {
            device: Default::default(),
            execution: Execution {
                precision: self.dtype,
                head_numbers: self.head_numbers.unwrap_or(usual.head_numbers),
            },
        };
        let sizes = self.sizes;
        match (self.work, self.backward) {
            (Kind::Block, false) => bench.block_forward(sizes),
            (Kind::Block, true) => bench.block_both(sizes),
            (Kind::Head, false) => bench.head_forward(sizes),
            (Kind::Head, true) => bench.head_both(sizes),
            (Kind::Flow, _) => bench.flow_step(sizes),
            (Kind::Semigroup, _) => bench.semigroup_step(sizes),
            (Kind::Evaluation, _) => bench.evaluation(sizes),
            (Kind::Jvp, _) => bench.jvp(sizes),
            (Kind::Sample, _) => bench.sample(sizes, self.jumps),
            (Kind::Peak, _) => bench.product(self.size),
            (Kind::Copy, _) => bench.copy(self.size),
        }
    }
}

fn main() {
    flm_alloc::keep_memory();
    let arguments = Arguments::parse();
    let started = Instant::now();
    let mut work = arguments.work();
    (0..arguments.warmup).for_each(|_| work());
    let ready = started.elapsed().as_secs_f64();
    let seconds: Vec<f64> = (0..arguments.repeat)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .collect();
    let gpu = (arguments.device == Device::Cuda)
        .then(gpu_memory)
        .flatten();
    println!(
        "{}",
        serde_json::json!({"seconds": seconds, "warmup": ready, "peak_mib": peak_memory(), "gpu_mib": gpu})
    );
}

/// Memory taken of the first NVIDIA GPU in MiB, as its driver counts it: a process gives nothing back before it ends.
fn gpu_memory() -> Option<f64> {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    let answer = Command::new("nvidia-smi").args(query).output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Peak resident memory of this process in MiB; nothing where there is no `/proc`.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
