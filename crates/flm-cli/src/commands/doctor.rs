//! The `flm doctor` command: available devices, their speed, and the cost of a preset.

mod cuda;
mod plan;

use super::print;
use crate::args::SettingsArgs;
use crate::args::settings;
use crate::device::{self, Compute, Device, Job, Place};
use crate::error::{CliError, Result};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Tensor};
use clap::Args;
use flm_denoiser::Precision;
use plan::Wish;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use sysinfo::System;

/// Show available devices, their speed, and what a preset costs on them
///
/// For each device: driver, memory, and measured speed of matrix products and of memory. The first
/// use of a GPU compiles its kernels, which takes some seconds.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm doctor
  flm doctor --device cuda:0 --preset lm1b --batch 256 --dtype bf16")]
pub(crate) struct DoctorArgs {
    /// Only this device: cpu, wgpu or cuda:N
    #[arg(long)]
    pub(crate) device: Option<Device>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Sequences per step of the preset
    #[arg(long, value_name = "N", requires = "preset")]
    pub(crate) batch: Option<usize>,
    /// Vocabulary size [default: 30,522]
    #[arg(long, value_name = "V", requires = "preset")]
    pub(crate) vocab: Option<usize>,
    /// Sequence length
    #[arg(long, value_name = "L", requires = "preset")]
    pub(crate) length: Option<usize>,
    /// Number type of matrix products
    #[arg(long, default_value_t = Precision::F32, value_name = "f32|bf16", requires = "preset")]
    pub(crate) dtype: Precision,
}

/// Duration of a measurement.
const MEASURE: Duration = Duration::from_millis(300);
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Measured rates of a device, per second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Floating-point operations of a matrix product in f32 and in bf16; `None` if the type is
    /// unsupported.
    product: [Option<f64>; 2],
    /// Bytes read and written by an elementwise operation.
    bytes: f64,
}

/// Reports the devices, one after the other.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<()> {
    let wish = match &args.settings.preset {
        Some(preset) => Some(Wish::of(
            preset,
            &settings(&args.settings, None, &[])?,
            args,
        )?),
        None => match args.settings.set.first() {
            Some(setting) => {
                return Err(CliError::input(format!(
                    "--set {setting} changes a preset: choose one with --preset"
                )));
            }
            None => None,
        },
    };
    print(&format!(
        "flm {}, built for {}\n",
        env!("CARGO_PKG_VERSION"),
        built_for().join(", ")
    ))?;
    let devices = match args.device {
        Some(device) => vec![device],
        None => vec![Device::Cpu, Device::Wgpu, Device::Cuda(0)],
    };
    for device in devices {
        print(&format!("\n{device}\n{}", render(device, wish.as_ref())))?;
    }
    Ok(())
}

fn built_for() -> Vec<&'static str> {
    let mut built = vec!["cpu"];
    if cfg!(feature = "wgpu") {
        built.push("wgpu");
    }
    if cfg!(feature = "cuda") {
        built.push("cuda");
    }
    built
}

/// Formats one device as indented lines.
fn render(device: Device, wish: Option<&Wish<'_>>) -> String {
    let mut out = String::new();
    let mut line = |what: &str, text: &str| {
        let _ = writeln!(out, "  {what:10} {text}");
    };
    let memory = match device {
        Device::Cpu => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            line("cores", &cores.to_string());
            host_memory()
        }
        Device::Wgpu => {
            line("drivers", &vulkan_drivers());
            None
        }
        Device::Cuda(number) => {
            for (what, text) in cuda::parts() {
                line(what, &text);
            }
            cuda::memory(number)
        }
    };
    if let Some([total, free]) = memory {
        line("memory", &format!("{}, {} free", gib(total), gib(free)));
    }
    let failed = || Err(CliError::input("the device failed during the measurement"));
    match device::quietly(|| device::run(device, Measure(device))).unwrap_or_else(failed) {
        Err(error) => line("", &error.to_string()),
        Ok(rates) => {
            for (precision, rate) in PRECISIONS.iter().zip(rates.product) {
                let Some(rate) = rate else { continue };
                line(
                    "products",
                    &format!("{:.2} Tflop/s of {precision}", rate / 1e12),
                );
            }
            line(
                "memory",
                &format!("{:.0} GB/s read and written", rates.bytes / 1e9),
            );
            if let Some(wish) = wish {
                for (what, text) in wish.on(device, rates, memory.map(|[_, free]| free)) {
                    line(what, &text);
                }
            }
        }
    }
    out
}

fn gib(bytes: f64) -> String {
    format!("{:.1} GiB", bytes / f64::from(1 << 30))
}

/// Returns the host's total and free memory in bytes, if the system reports them.
fn host_memory() -> Option<[f64; 2]> {
    let mut system = System::new();
    system.refresh_memory();
    let memory = [system.total_memory(), system.available_memory()];
    (memory[0] > 0).then(|| memory.map(|bytes| bytes as f64))
}

/// Returns the names of the installed Vulkan driver manifests.
fn vulkan_drivers() -> String {
    let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let mut names: Vec<String> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(Path::new(folder)).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    if names.is_empty() && cfg!(target_os = "linux") {
        return format!("no Vulkan driver found in {}", folders.join(" or "));
    }
    names.join(", ")
}

struct Measure(Device);

impl Job for Measure {
    type Output = Rates;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Rates> {
        // Large enough to fill the device, small enough to take little time.
        let (size, numbers) = match self.0 {
            Device::Cpu => (1_024, 1 << 24),
            _ => (4_096, 1 << 27),
        };
        let device = &place.device;
        let normal = |shape: [usize; 2]| {
            Tensor::<B::InnerBackend, 2>::random(shape, Distribution::Normal(0.0, 1.0), device)
        };
        let product = PRECISIONS.map(|precision| {
            let place = Compute {
                device: self.0,
                precision,
            };
            device::check(place).ok()?;
            let [a, b] = [0, 1].map(|_| precision.narrow(normal([size, size])));
            let seconds = seconds::<B::InnerBackend, _>(device, || {
                flm_denoiser::matmul(a.clone(), b.clone())
            });
            Some(2.0 * (size as f64).powi(3) / seconds)
        });
        let x = normal([numbers >> 10, 1 << 10]);
        let seconds = seconds::<B::InnerBackend, _>(device, || x.clone().add_scalar(1.0));
        Ok(Rates {
            product,
            bytes: 8.0 * numbers as f64 / seconds,
        })
    }
}

/// Returns the mean seconds that a piece of work takes on a device.
fn seconds<B: Backend, T>(device: &B::Device, mut work: impl FnMut() -> T) -> f64 {
    let mut once = || {
        let result = work();
        // A failure of the device shows in the next operation.
        let _ = B::sync(device);
        drop(result);
    };
    once();
    once();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < MEASURE {
        once();
        count += 1;
    }
    started.elapsed().as_secs_f64() / f64::from(count)
}
