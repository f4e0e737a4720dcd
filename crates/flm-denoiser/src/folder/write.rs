//! Writing a model folder.

use super::{
    CONFIG_FILE, ConfigFile, DENOISER_FOLDER, FORMAT_VERSION, FolderError, TENSORS_FILE,
    check_pair, io_error,
};
use super::{Existing, staging};
use crate::tensors::check_values;
use crate::{Dit, DitConfig, Family, NamedTensor, named_tensors, tensor_file};
use burn::tensor::backend::Backend;
use flm_files::Staging;
use std::path::Path;

/// The content of a model folder: a network, its configuration and extra files.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a, B: Backend> {
    /// The network.
    pub model: &'a Dit<B>,
    /// Its configuration.
    pub config: &'a DitConfig,
    /// Name and content of the extra files.
    pub extra: &'a [(&'a str, &'a [u8])],
}

/// Writes `model` with its `config` and `extra` files (name and content) as the folder `dir`.
///
/// The files are written to a hidden folder next to `dir`, synced to disk, and renamed. Missing
/// parent folders are created.
///
/// # Errors
///
/// - [`FolderError::Exists`] or [`FolderError::NotAModel`] if the existing `dir` must not
///   be replaced
/// - [`FolderError::Mismatch`] if `config` does not match the network
/// - [`FolderError::ExtraName`] if the name of an extra file is invalid, reserved or repeated
/// - [`FolderError::Tensor`] if a parameter is not finite
/// - [`FolderError::Io`] if a file operation fails
///
/// Nothing is left behind after an error.
pub fn save<B: Backend>(
    dir: &Path,
    model: &Dit<B>,
    config: &DitConfig,
    extra: &[(&str, &[u8])],
    existing: Existing,
) -> Result<(), FolderError> {
    let content = Content {
        model,
        config,
        extra,
    };
    check_residual(config, false)?;
    let tensors = content.checked(dir)?;
    let staging = staging(dir, existing)?;
    content.write(&staging, Path::new(""), &tensors)?;
    Ok(staging.commit()?)
}

/// Writes a residual flow map: `second` as in [`save`], with the frozen denoiser as a complete
/// model folder in the subfolder [`DENOISER_FOLDER`]. Both are written together or not at all.
///
/// # Errors
///
/// The errors of [`save`], for either network; [`FolderError::Mismatch`] also if `second` is not
/// residual according to its configuration; [`FolderError::Pair`] if the two differ in vocabulary,
/// length or schedule.
pub fn save_residual<B: Backend>(
    dir: &Path,
    second: Content<'_, B>,
    denoiser: Content<'_, B>,
    existing: Existing,
) -> Result<(), FolderError> {
    check_residual(second.config, true)?;
    check_residual(denoiser.config, false)?;
    check_pair(second.config, denoiser.config)?;
    let inner = Path::new(DENOISER_FOLDER);
    let tensors = second.checked(dir)?;
    let of_denoiser = denoiser.checked(&dir.join(inner))?;
    let staging = staging(dir, existing)?;
    second.write(&staging, Path::new(""), &tensors)?;
    staging.folder(inner)?;
    denoiser.write(&staging, inner, &of_denoiser)?;
    Ok(staging.commit()?)
}

impl<B: Backend> Content<'_, B> {
    /// Checks the content and returns the parameters. `dir` is used only in errors.
    fn checked(&self, dir: &Path) -> Result<Vec<NamedTensor>, FolderError> {
        check_config(self.model, self.config)?;
        check_extra(self.extra)?;
        let tensors = named_tensors(self.model);
        for tensor in &tensors {
            check_values(tensor, &dir.join(TENSORS_FILE))?;
        }
        Ok(tensors)
    }

    /// Writes the files into the folder `inside` of the staging folder.
    fn write(
        &self,
        staging: &Staging,
        inside: &Path,
        tensors: &[NamedTensor],
    ) -> Result<(), FolderError> {
        let file = inside.join(TENSORS_FILE);
        let path = staging.path(&file);
        tensor_file::write(&path, tensors).map_err(io_error("write", &path))?;
        staging.sync(&file)?;

        let config = ConfigFile {
            format_version: FORMAT_VERSION,
            model: self.config,
        };
        let path = inside.join(CONFIG_FILE);
        let mut json =
            serde_json::to_string_pretty(&config).map_err(|source| FolderError::Config {
                path: staging.path(&path),
                source,
            })?;
        json.push('\n');
        staging.write(&path, json.as_bytes())?;
        for (name, content) in self.extra {
            staging.write(&inside.join(name), content)?;
        }
        Ok(())
    }
}

fn check_residual(config: &DitConfig, residual: bool) -> Result<(), FolderError> {
    mismatch("residual", config.residual, residual)
}

/// Checks that `config` describes `model`, for the keys whose mismatch would otherwise go unnoticed
/// until loading.
///
/// # Errors
///
/// [`FolderError::Mismatch`] with the first key that differs.
pub fn check_config<B: Backend>(model: &Dit<B>, config: &DitConfig) -> Result<(), FolderError> {
    let [vocab_size, width] = model.embed().embedding.dims();
    for (key, config, model) in [
        (
            "vocab_size",
            config.vocab_size.to_string(),
            vocab_size.to_string(),
        ),
        ("width", config.width.to_string(), width.to_string()),
        (
            "blocks",
            config.blocks.to_string(),
            model.block_count().to_string(),
        ),
        ("heads", config.heads.to_string(), model.heads().to_string()),
        (
            "two_time",
            config.two_time.to_string(),
            model.is_two_time().to_string(),
        ),
        (
            "register_token",
            config.register_token.to_string(),
            model.has_register().to_string(),
        ),
        (
            "loss_weight",
            config.loss_weight.to_string(),
            model.has_loss_weight().to_string(),
        ),
        (
            "evidence",
            config.evidence.to_string(),
            model.has_evidence().to_string(),
        ),
        (
            "self_conditioning",
            config.self_conditioning.to_string(),
            model.has_self_conditioning().to_string(),
        ),
        // Mask token and causality identify the family, except that `flow` and `duo` networks are
        // saved alike.
        (
            "family",
            config.family.to_string(),
            family_of(model, config.family).to_string(),
        ),
    ] {
        mismatch(key, config, model)?;
    }
    Ok(())
}

/// The network's family: `said` if it is possible, otherwise the first one that is.
fn family_of<B: Backend>(model: &Dit<B>, said: Family) -> Family {
    let is = |family: &Family| {
        (family.has_mask_token(), family.is_causal()) == (model.has_mask_token(), model.is_causal())
    };
    [said, Family::Flow, Family::Mdlm, Family::Autoregressive]
        .into_iter()
        .find(is)
        .unwrap_or(said)
}

fn mismatch<T: PartialEq + ToString>(
    key: &'static str,
    config: T,
    model: T,
) -> Result<(), FolderError> {
    if config == model {
        return Ok(());
    }
    Err(FolderError::Mismatch {
        key,
        config: config.to_string(),
        model: model.to_string(),
    })
}

fn check_extra(extra: &[(&str, &[u8])]) -> Result<(), FolderError> {
    for (i, (name, _)) in extra.iter().enumerate() {
        let plain =
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
        let taken = [CONFIG_FILE, TENSORS_FILE, DENOISER_FOLDER].contains(name)
            || extra[..i].iter().any(|(other, _)| other == name);
        if !plain || taken {
            return Err(FolderError::ExtraName {
                name: (*name).to_owned(),
            });
        }
    }
    Ok(())
}
