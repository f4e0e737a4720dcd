//! Times one workload in its own process and prints one line of JSON.
//!
//! The line has the seconds of each repetition and of the warm-up, the peak resident memory of the
//! process in MiB and, on an NVIDIA GPU, the GPU memory in use in MiB.
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
#[command(name = "flm-bench", about = "Time one workload")]
struct Arguments {
    work: Kind,
    #[command(flatten)]
    sizes: Sizes,
    /// Time forward and backward, for a block or a head.
    #[arg(long)]
    backward: bool,
    /// Network evaluations per sample.
    #[arg(long, default_value_t = 1)]
    jumps: usize,
    /// Rows of a square matrix, for a product or a copy.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Device to run on.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Precision of products: f32 or bf16.
    #[arg(long, default_value_t = Precision::F32)]
    dtype: Precision,
    /// Largest count of numbers in a V-wide tensor of the head.
    #[arg(long)]
    head_numbers: Option<usize>,
    /// Warm-up repetitions, not timed.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Timed repetitions.
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
            _ => panic!("built without this device: build with --features wgpu,cuda"),
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

/// Returns the memory in use on the first NVIDIA GPU in MiB, as the driver reports it.
///
/// A process frees no GPU memory before it ends, so the value includes its peak.
fn gpu_memory() -> Option<f64> {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    let answer = Command::new("nvidia-smi").args(query).output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Returns the peak resident memory of this process in MiB, or `None` without `/proc`.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
