//! Arguments that several commands share.

mod given;
mod guidance;
mod sampler;
mod settings;

pub(crate) use given::GivenArgs;
pub(crate) use guidance::{GuidesArgs, check_scales};
pub(crate) use sampler::{SamplerName, check_gammas};
pub(crate) use settings::{SettingsArgs, reject_section, settings};

use crate::device::{Compute, Device};
use clap::Args;
use flm_denoiser::Precision;

/// Options for where and in which precision to compute.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Device: cpu, wgpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
    /// Number type of matrix products
    ///
    /// Weights, norms, losses and states stay f32.
    #[arg(long, default_value_t = Precision::F32, value_name = "f32|bf16", hide_short_help = true)]
    pub(crate) dtype: Precision,
}

impl From<DeviceArgs> for Compute {
    fn from(args: DeviceArgs) -> Self {
        Self {
            device: args.device,
            precision: args.dtype,
        }
    }
}
