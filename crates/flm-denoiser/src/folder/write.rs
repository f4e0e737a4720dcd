//! Writing a model folder.

use super::staging::Staging;
use super::{CONFIG_FILE, ConfigFile, FORMAT_VERSION, FolderError, TENSORS_FILE, io_error};
use crate::tensors::check_values;
use crate::{Dit, DitConfig, NamedTensor, named_tensors};
use burn::tensor::backend::Backend;
use safetensors::{Dtype, SafeTensorError, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// What to do with a folder that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Refuse,
    /// A model folder, or an empty one, is replaced; anything else is an error.
    Replace,
}

/// Writes `model` with its `config` and `extra` files (name and content) as the folder `dir`.
///
/// Everything is written to a hidden folder beside `dir`, made durable, and renamed. Parent folders are made where they are missing.
///
/// # Errors
///
/// [`FolderError::Exists`] or [`FolderError::NotAModel`] where something is there that may not be replaced,
/// [`FolderError::Mismatch`] if `config` is that of another network, [`FolderError::ExtraName`] if a file's name is not
/// a plain one, is taken or is repeated, [`FolderError::Tensor`] if a parameter is not finite, [`FolderError::Io`] if the
/// system refuses. Nothing is left behind then.
pub fn save<B: Backend>(
    dir: &Path,
    model: &Dit<B>,
    config: &DitConfig,
    extra: &[(&str, &[u8])],
    existing: Existing,
) -> Result<(), FolderError> {
    check_config(model, config)?;
    check_extra(extra)?;
    let tensors = named_tensors(model);
    for tensor in &tensors {
        check_values(tensor, &dir.join(TENSORS_FILE))?;
    }

    let staging = Staging::begin(dir, existing)?;
    let path = staging.path(TENSORS_FILE);
    // PyTorch's loaders ask what a file's layout follows.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let named = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), F32View(tensor)));
    safetensors::serialize_to_file(named, Some(metadata), &path).map_err(|error| {
        let source = match error {
            SafeTensorError::IoError(source) => source,
            other => io::Error::other(other),
        };
        io_error("write", &path)(source)
    })?;
    staging.sync(TENSORS_FILE)?;

    let file = ConfigFile {
        format_version: FORMAT_VERSION,
        model: config,
    };
    let mut json = serde_json::to_string_pretty(&file).map_err(|source| FolderError::Config {
        path: dir.join(CONFIG_FILE),
        source,
    })?;
    json.push('\n');
    staging.write(CONFIG_FILE, json.as_bytes())?;
    for (name, content) in extra {
        staging.write(name, content)?;
    }
    staging.commit()
}

/// Checks that the network has the sizes that `config` says, as far as a wrong one would go unnoticed until loading.
fn check_config<B: Backend>(model: &Dit<B>, config: &DitConfig) -> Result<(), FolderError> {
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
            "anchor",
            config.anchor.to_string(),
            model.has_anchor().to_string(),
        ),
    ] {
        if config != model {
            return Err(FolderError::Mismatch { key, config, model });
        }
    }
    Ok(())
}

fn check_extra(extra: &[(&str, &[u8])]) -> Result<(), FolderError> {
    for (i, (name, _)) in extra.iter().enumerate() {
        let plain =
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
        let taken = [CONFIG_FILE, TENSORS_FILE].contains(name)
            || extra[..i].iter().any(|(other, _)| other == name);
        if !plain || taken {
            return Err(FolderError::ExtraName {
                name: (*name).to_owned(),
            });
        }
    }
    Ok(())
}

/// A tensor as little-endian bytes.
struct F32View<'a>(&'a NamedTensor);

impl View for F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
            .into()
    }

    fn data_len(&self) -> usize {
        self.0.values.len() * size_of::<f32>()
    }
}
