//! Export of a network to files that the reference reads.

use super::ReferenceError;
use super::names::BACKBONE;
use super::sizes::{ROTARY, frequencies};
use crate::folder::staging;
use crate::folder::{CONFIG_FILE, Existing, TENSORS_FILE};
use crate::{Dit, DitConfig, NamedTensor, named_tensors, tensor_file};
use burn::tensor::backend::Backend;
use serde_json::json;
use std::path::Path;

/// The file format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder with `config.json`, which holds the reference's settings, and `model.safetensors`,
    /// with the names of the reference's module `DIT`.
    HuggingFace,
    /// A single `.safetensors` file, with the names of a training's `state_dict`.
    StateDict,
}

/// Writes `model` completely or not at all. For a residual flow map, pass the second network; the
/// denoiser is exported to another file.
///
/// # Errors
///
/// [`ReferenceError::NotOfReference`] if the reference does not support the network,
/// [`ReferenceError::Folder`] if `place` must not be replaced, [`ReferenceError::Io`] if a file
/// operation fails.
pub fn export<B: Backend>(
    place: &Path,
    model: &Dit<B>,
    config: &DitConfig,
    target: ExportFormat,
    existing: Existing,
) -> Result<(), ReferenceError> {
    check(config)?;
    let mut tensors = named_tensors(model);
    // A constant that the reference stores with the parameters and requires on loading.
    let values = frequencies(config);
    tensors.push(NamedTensor {
        name: ROTARY.to_owned(),
        shape: vec![values.len()],
        values,
    });
    match target {
        ExportFormat::HuggingFace => {
            let staging = staging(place, existing)?;
            let file = Path::new(TENSORS_FILE);
            let path = staging.path(file);
            tensor_file::write(&path, &tensors).map_err(ReferenceError::io("write", &path))?;
            staging.sync(file)?;
            let mut settings = serde_json::to_string_pretty(&settings(config))
                .expect("strings, numbers and booleans are valid JSON");
            settings.push('\n');
            staging.write(Path::new(CONFIG_FILE), settings.as_bytes())?;
            Ok(staging.commit()?)
        }
        ExportFormat::StateDict => {
            for tensor in &mut tensors {
                tensor.name.insert_str(0, BACKBONE);
            }
            write_file(place, &tensors, existing)
        }
    }
}

fn write_file(
    place: &Path,
    tensors: &[NamedTensor],
    existing: Existing,
) -> Result<(), ReferenceError> {
    if existing == Existing::Refuse && place.exists() {
        return Err(crate::folder::FolderError::Exists {
            path: place.to_path_buf(),
        }
        .into());
    }
    let write = |beside: &Path| tensor_file::write(beside, tensors);
    Ok(flm_files::write_with(place, write)?)
}

/// Checks the configuration keys that are constants in the reference.
fn check(config: &DitConfig) -> Result<(), ReferenceError> {
    let plain = DitConfig::new(
        config.vocab_size,
        config.length,
        config.width,
        config.blocks,
        config.heads,
    );
    let own_schedule = [0, config.vocab_size].contains(&config.schedule_vocab);
    let differences = [
        (
            "register_token",
            config.register_token.to_string(),
            plain.register_token.to_string(),
        ),
        (
            "evidence",
            config.evidence.to_string(),
            plain.evidence.to_string(),
        ),
        (
            "self_conditioning",
            config.self_conditioning.to_string(),
            plain.self_conditioning.to_string(),
        ),
        (
            "clock",
            format!("{:?}", config.clock),
            format!("{:?}", plain.clock),
        ),
        (
            "family",
            config.family.to_string(),
            plain.family.to_string(),
        ),
        (
            "schedule_vocab",
            config.schedule_vocab.to_string(),
            (if own_schedule { config } else { &plain })
                .schedule_vocab
                .to_string(),
        ),
        (
            "mlp_ratio",
            config.mlp_ratio.to_string(),
            plain.mlp_ratio.to_string(),
        ),
        (
            "attention_softcap",
            config.attention_softcap.to_string(),
            plain.attention_softcap.to_string(),
        ),
        (
            "logit_softcap",
            config.logit_softcap.to_string(),
            plain.logit_softcap.to_string(),
        ),
        (
            "rope_base",
            config.rope_base.to_string(),
            plain.rope_base.to_string(),
        ),
    ];
    match (differences.into_iter()).find(|(_, found, expected)| found != expected) {
        Some((key, found, expected)) => Err(ReferenceError::NotOfReference {
            key,
            found,
            expected,
        }),
        None => Ok(()),
    }
}

/// The reference's settings for this configuration.
fn settings(config: &DitConfig) -> serde_json::Value {
    let algorithm = match (config.residual, config.two_time) {
        (true, _) => "fmlm_twomodel",
        (false, true) => "fmlm",
        (false, false) => "flm",
    };
    json!({
        "config": {
            "algo": {
                "name": algorithm,
                "backbone": "dit",
                "parameterization": "mean",
                "time_conditioning": true,
                "causal_attention": false,
                "double_temb": config.two_time,
                "learnable_loss_weighting": config.loss_weight,
            },
            "model": {
                "name": "flm",
                "type": "ddit",
                "hidden_size": config.width,
                "cond_dim": config.cond_dim,
                "length": config.length,
                "n_blocks": config.blocks,
                "n_heads": config.heads,
                "dropout": config.dropout,
                "scale_by_sigma": true,
                "tie_word_embeddings": false,
            },
        },
        "vocab_size": config.vocab_size,
    })
}
