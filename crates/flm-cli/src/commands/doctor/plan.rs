//! Estimated cost of a preset's training step.

use super::{Rates, gib};
use crate::commands::data;
use crate::commands::doctor::DoctorArgs;
use crate::config::Config;
use crate::device::Device;
use crate::error::{CliError, Result};
use flm_denoiser::{DitConfig, NoiseWidth, Precision};
use flm_objective::TRAINED;

/// f32 numbers per parameter: the parameter, its gradient, two moments and its average.
const PER_PARAMETER: f64 = 5.0;
/// f32 numbers that a block keeps per token and unit of width until the backward pass: with the
/// CPU's kernels, which recompute most of them, and as a composition.
const KEPT: [f64; 2] = [16.0, 60.0];
/// V-wide tensors of the head that are alive at once, of 64 MiB on the CPU and 512 MiB on a GPU.
const HEAD_TENSORS: f64 = 4.0;
/// Share of the peak matrix product rate that a training step reaches on the CPU
/// (docs/internals/performance.md). It was lower on a GPU.
const SHARE: f64 = 0.55;

/// A preset whose training cost is estimated.
pub(super) struct Wish<'a> {
    preset: &'a str,
    network: DitConfig,
    batch: usize,
    micro_batch: usize,
    steps: u64,
    dtype: Precision,
}

impl<'a> Wish<'a> {
    pub(super) fn of(preset: &'a str, config: &Config, args: &DoctorArgs) -> Result<Self> {
        let vocab = args.vocab.unwrap_or(30_522);
        let length = match (args.length, config.data.dataset()) {
            (Some(length), _) => length,
            (None, Some(name)) => data::manifest(name)?.length,
            (None, None) => config.data.length,
        };
        let network = config.model.network(vocab, length, false)?;
        let batch = args.batch.unwrap_or(config.train.batch);
        if batch == 0 {
            return Err(CliError::input("--batch must be at least 1, found 0"));
        }
        config.train.validate()?;
        Ok(Self {
            preset,
            network,
            batch,
            micro_batch: config.train.micro_batch.min(batch),
            steps: config.train.steps,
            dtype: args.dtype,
        })
    }

    /// Estimates a training step of the flow on a device with these rates and this many bytes of
    /// free memory.
    pub(super) fn on(
        &self,
        device: Device,
        rates: Rates,
        free: Option<f64>,
    ) -> Vec<(&'static str, String)> {
        let network = &self.network;
        let operations = TRAINED * network.operations() * self.batch as f64;
        let Some(rate) = rates.product[usize::from(self.dtype == Precision::Bf16)] else {
            return vec![(
                "step",
                format!("this device does not support {}", self.dtype),
            )];
        };
        let mut lines = vec![(
            "step",
            format!(
                "{}, {} million parameters, V {}, L {}: {} {:.2} s for a batch of {} in {}",
                self.preset,
                network.parameter_count() / 1_000_000,
                network.vocab_size,
                network.length,
                if device == Device::Cpu {
                    "about"
                } else {
                    "more than"
                },
                operations / (SHARE * rate),
                self.batch,
                self.dtype
            ),
        )];
        let minutes = self.steps as f64 * operations / (SHARE * rate) / 60.0;
        lines.push((
            "",
            format!("about {minutes:.0} min for {} steps", self.steps),
        ));
        let held = self.held(device);
        let row = self.row(device);
        lines.push((
            "",
            format!(
                "about {} with micro-batches of {}: {} for weights and moments, {} per sequence",
                gib(held + row * self.micro_batch as f64),
                self.micro_batch,
                gib(held),
                gib(row)
            ),
        ));
        if let Some(free) = free {
            let fits = ((0.9 * free - held) / row).floor();
            let text = if fits >= 1.0 {
                format!("{fits:.0} sequences fit into memory")
            } else {
                "not even one sequence fits into memory".to_owned()
            };
            lines.push(("", text));
        }
        lines
    }

    /// Returns the bytes that are held for any batch size.
    fn held(&self, device: Device) -> f64 {
        let head = match device {
            Device::Cpu => 1_u64 << 26,
            _ => 1 << 29,
        };
        4.0 * PER_PARAMETER * self.network.parameter_count() as f64 + HEAD_TENSORS * head as f64
    }

    /// Returns the bytes per sequence of a micro-batch.
    fn row(&self, device: Device) -> f64 {
        let network = &self.network;
        let [length, width, heads] =
            [network.length, network.width, network.heads].map(|x| x as f64);
        let (kept, scores, noise) = match device {
            Device::Cpu => (KEPT[0] * width, 0.0, 0.0),
            // The attention scores in three stages, and the noise.
            _ => (KEPT[1] * width, 3.0 * heads * length, self.noise() as f64),
        };
        4.0 * length * (network.blocks as f64 * (kept + scores) + noise)
    }

    /// Returns the numbers of noise per position.
    fn noise(&self) -> usize {
        let DitConfig {
            vocab_size,
            width,
            length,
            ..
        } = self.network;
        let parts = self.batch.div_ceil(self.micro_batch);
        match NoiseWidth::cheaper(vocab_size, width, self.batch * length, parts, false) {
            NoiseWidth::Network => 2 * width,
            NoiseWidth::Vocabulary => vocab_size,
        }
    }
}
