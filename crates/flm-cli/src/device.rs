//! The only module that names and selects a backend.

use crate::error::{CliError, Result};
use burn::tensor::backend::AutodiffBackend;
use flm::backend::{Autodiff, Flex};
use flm_denoiser::{Execution, Precision};
use std::fmt;
use std::panic;
use std::str::FromStr;

/// A compute device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// The first graphics adapter, through WebGPU.
    Wgpu,
    /// An NVIDIA GPU by number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "wgpu" => Ok(Self::Wgpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) if number.parse::<u8>().is_ok() => {
                Ok(Self::Cuda(number.parse().unwrap_or(0)))
            }
            _ => Err("expected cpu, wgpu, cuda or cuda:N".to_owned()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The backend for work that always runs on the CPU.
pub(crate) type Host = Flex;

/// A device and a precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compute {
    pub(crate) device: Device,
    /// Number type of a network's matrix products.
    pub(crate) precision: Precision,
}

impl From<Device> for Compute {
    fn from(device: Device) -> Self {
        Self {
            device,
            precision: Precision::default(),
        }
    }
}

/// Work that is generic over the backend. Each job is compiled once per backend, so keep their
/// number small.
pub(crate) trait Job {
    /// The result of the job.
    type Output;

    /// Runs the job on a backend; inference uses `B::InnerBackend`.
    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Self::Output>;
}

/// A device with execution settings that suit it.
pub(crate) struct Place<B: AutodiffBackend> {
    pub(crate) device: B::Device,
    /// Recommended number of independent pieces of work to run in parallel.
    pub(crate) side_by_side: usize,
    /// Recommended settings for network evaluation.
    pub(crate) execution: Execution,
}

/// Elements in a V-wide tensor on a GPU: 512 MiB in f32. Smaller products leave the GPU idle.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
const HEAD_NUMBERS: usize = 1 << 27;

/// Runs a job on a device.
pub(crate) fn run<J: Job>(compute: impl Into<Compute>, job: J) -> Result<J::Output> {
    let Compute { device, precision } = compute.into();
    match device {
        Device::Cpu => {
            let side_by_side = std::thread::available_parallelism().map_or(1, usize::from);
            job.run::<Autodiff<Flex>>(&Place {
                device: Default::default(),
                side_by_side,
                execution: Execution {
                    precision,
                    ..Default::default()
                },
            })
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu if precision == Precision::Bf16 => Err(CliError::input(
            "--dtype bf16 is unsupported on the device `wgpu`: use f32, or --device cuda",
        )),
        #[cfg(feature = "wgpu")]
        Device::Wgpu => {
            let place =
                gpu::place::<Autodiff<flm::backend::Wgpu>>(device, Default::default(), precision)?;
            job.run(&place)
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => {
            let cuda = flm::backend::CudaDevice::new(number);
            let place = gpu::place::<Autodiff<flm::backend::Cuda>>(device, cuda, precision)?;
            job.run(&place)
        }
        #[cfg(not(all(feature = "wgpu", feature = "cuda")))]
        absent => {
            let feature = absent.to_string();
            let feature = feature.split(':').next().unwrap_or_default();
            Err(CliError::input(format!(
                "flm was built without the device `{absent}`: build it with `--features {feature}`, or use --device cpu"
            )))
        }
    }
}

/// Checks that a device is available.
pub(crate) fn check(compute: impl Into<Compute>) -> Result<()> {
    struct Nothing;
    impl Job for Nothing {
        type Output = ();

        fn run<B: AutodiffBackend>(self, _: &Place<B>) -> Result<()> {
            Ok(())
        }
    }
    run(compute, Nothing)
}

/// Returns the result of `work`, or `None` if it panics. Suppresses the panic message: drivers
/// panic with messages meant for their developers.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    let said = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let answer = panic::catch_unwind(panic::AssertUnwindSafe(work));
    panic::set_hook(said);
    answer.ok()
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu {
    use super::*;
    use crate::files;
    use burn::tensor::Tensor;
    use cubecl_runtime::config::cache::CacheConfig;
    use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig};
    use std::sync::Once;

    static KERNELS: Once = Once::new();

    /// Caches compiled kernels between runs, and autotune results in builds with burn's `autotune`.
    /// Settings of a `cubecl.toml` take precedence.
    fn keep_kernels() {
        KERNELS.call_once(|| {
            let Some(folder) = files::cache().map(|root| root.join("kernels")) else {
                return;
            };
            let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
            let place = || CacheConfig::File(folder.clone());
            config.compilation.cache.get_or_insert_with(place);
            if matches!(config.autotune.cache, CacheConfig::Target) {
                config.autotune.cache = place();
            }
            CubeClRuntimeConfig::set(config);
        });
    }

    /// Opens a GPU and checks it with a small sum.
    pub(super) fn place<B: AutodiffBackend>(
        name: Device,
        device: B::Device,
        precision: Precision,
    ) -> Result<Place<B>> {
        keep_kernels();
        let answer = quietly(|| {
            let ones = precision.narrow(Tensor::<B, 1>::ones([2], &device));
            let sum = flm_denoiser::widen(ones.clone() + ones).sum();
            sum.into_data().iter::<f32>().next()
        });
        match answer {
            Some(Some(4.0)) => Ok(Place {
                device,
                side_by_side: 1,
                execution: Execution {
                    precision,
                    head_numbers: HEAD_NUMBERS,
                },
            }),
            Some(_) => Err(CliError::input(format!(
                "the device `{name}` computes wrong sums and cannot be used"
            ))),
            None => Err(CliError::input(format!(
                "no adapter found for the device `{name}` in {precision}: check its driver, or use --device cpu"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        for name in ["cpu", "wgpu", "cuda:1"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<Device>(), Ok(Device::Cuda(0)));
        for name in ["gpu", "cuda:", "cuda:x", "cpu:0"] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }
}
