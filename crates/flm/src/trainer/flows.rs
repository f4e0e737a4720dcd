//! Constructors for the training of flows.

use super::Trainer;
use crate::{Error, Result, Rows, kind, purpose};
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::{DitConfig, Family};
use flm_distill::{FlowObjective, Padding};
use flm_simplex::stream::generator;
use flm_train::TrainConfig;

impl<'a, B: AutodiffBackend> Trainer<'a, B, FlowObjective> {
    /// Trains a flow from scratch.
    ///
    /// With the setting `conditioning` the network takes known positions as input. With
    /// `self_conditioning` it takes its own earlier prediction as input.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the configuration is not for a flow or settings exclude each other,
    /// [`Error::Config`] if the sizes are invalid.
    pub fn flow(
        network: DitConfig,
        rows: &'a Rows,
        settings: TrainConfig,
        device: &B::Device,
    ) -> Result<Self> {
        if network.family != Family::Flow || network.two_time || network.residual {
            return Err(Error::Option(format!(
                "the network must be a flow, found {}",
                kind(&network)
            )));
        }
        for (key, set) in [
            ("references", settings.references > 0),
            ("self_conditioning", settings.self_conditioning > 0.0),
        ] {
            if set && settings.conditioning > 0.0 {
                return Err(Error::Option(format!(
                    "train.{key} cannot be combined with train.conditioning: set one of them to 0"
                )));
            }
        }
        let config = DitConfig {
            conditioning: settings.conditioning > 0.0,
            self_conditioning: settings.self_conditioning > 0.0,
            ..network
        };
        let mut rng = generator(settings.seed, purpose::INITIALIZATION, 0, 0);
        let network = config.init(&mut rng, device)?;
        let tokenizer = rows.tokenizer();
        let objective = FlowObjective::new(config.schedule()?)
            .with_conditioning(settings.conditioning)
            .with_references(settings.references)
            .with_self_conditioning(settings.self_conditioning)
            .with_padding(Padding {
                pad: tokenizer.pad_id(),
                end: tokenizer.eos_id(),
                weight: settings.padding_loss,
            });
        Ok(Self::new(network, config, objective, rows, settings))
    }
}
