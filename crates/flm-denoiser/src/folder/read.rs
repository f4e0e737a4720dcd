//! Reading a model folder.

use super::{
    CONFIG_FILE, ConfigFile, DENOISER_FOLDER, FORMAT_VERSION, FolderError, TENSORS_FILE,
    check_pair, io_error,
};
use crate::tensor_file::{self, Fault};
use crate::{Dit, DitConfig, NamedTensor, Residual, apply_tensors};
use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;

/// Reads the network of a model folder and its configuration. On an autodiff backend, its
/// parameters are trainable.
///
/// 16-bit tensors are widened to f32.
///
/// # Errors
///
/// - [`FolderError::Residual`] if the folder holds two networks ([`load_residual`])
/// - [`FolderError::Io`] if a file cannot be read
/// - [`FolderError::Config`], [`FolderError::Version`], [`FolderError::Sizes`] or
///   [`FolderError::Count`] if `config.json` is not a valid configuration of the network
/// - [`FolderError::Corrupt`], [`FolderError::Type`] or [`FolderError::Tensor`] if
///   `model.safetensors` does not hold exactly the network's parameters
pub fn load<B: Backend>(
    dir: &Path,
    device: &B::Device,
) -> Result<(Dit<B>, DitConfig), FolderError> {
    let config = read_config(dir)?;
    if config.residual {
        return Err(FolderError::Residual {
            path: dir.to_path_buf(),
        });
    }
    load_network(dir, config, device)
}

/// Reads both networks of a residual flow map and their configurations, the second network's first.
///
/// # Errors
///
/// The errors of [`load`], for either network; [`FolderError::NotResidual`] if the folder holds a
/// single network; [`FolderError::Pair`] if the networks do not match.
pub fn load_residual<B: Backend>(
    dir: &Path,
    device: &B::Device,
) -> Result<(Residual<B>, [DitConfig; 2]), FolderError> {
    let config = read_config(dir)?;
    if !config.residual {
        return Err(FolderError::NotResidual {
            path: dir.to_path_buf(),
        });
    }
    let (denoiser, of_denoiser) = load::<B>(&dir.join(DENOISER_FOLDER), device)?;
    check_pair(&config, &of_denoiser)?;
    let (second, config) = load_network::<B>(dir, config, device)?;
    Ok((Residual { denoiser, second }, [config, of_denoiser]))
}

/// Reads the configuration of a model folder.
///
/// # Errors
///
/// [`FolderError::Io`] if it cannot be read; [`FolderError::Config`], [`FolderError::Version`] or
/// [`FolderError::Sizes`] if it is not a valid configuration.
pub fn read_config(dir: &Path) -> Result<DitConfig, FolderError> {
    let path = dir.join(CONFIG_FILE);
    let config = load_config(&path)?;
    match config.validate() {
        Ok(()) => Ok(config),
        Err(source) => Err(FolderError::Sizes { path, source }),
    }
}

fn load_network<B: Backend>(
    dir: &Path,
    config: DitConfig,
    device: &B::Device,
) -> Result<(Dit<B>, DitConfig), FolderError> {
    let config_path = dir.join(CONFIG_FILE);
    let path = dir.join(TENSORS_FILE);
    let tensors = load_tensors(&path)?;
    check_count(&config_path, &config, &tensors)?;
    // All parameters are replaced, so the seed does not matter.
    let model = config
        .init(&mut ChaCha8Rng::seed_from_u64(0), device)
        .map_err(|source| FolderError::Sizes {
            path: config_path,
            source,
        })?;
    Ok((apply_tensors(model, &path, tensors)?, config))
}

/// Rejects a network far larger than its file before allocating it. For smaller differences, a
/// later check names the tensor.
fn check_count(
    path: &Path,
    config: &DitConfig,
    tensors: &[NamedTensor],
) -> Result<(), FolderError> {
    let held: usize = tensors.iter().map(|tensor| tensor.values.len()).sum();
    let described = config.parameter_count();
    if described > 8 * held as u128 {
        return Err(FolderError::Count {
            path: path.to_path_buf(),
            described,
            held,
        });
    }
    Ok(())
}

fn load_config(path: &Path) -> Result<DitConfig, FolderError> {
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    let config_error = |source| FolderError::Config {
        path: path.to_path_buf(),
        source,
    };
    // Check the version first, so that changes in later versions do not look like mistakes.
    #[derive(serde::Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = serde_json::from_str(&text).map_err(config_error)?;
    if format_version != FORMAT_VERSION {
        return Err(FolderError::Version {
            path: path.to_path_buf(),
            found: format_version,
        });
    }
    let file: ConfigFile<DitConfig> = serde_json::from_str(&text).map_err(config_error)?;
    Ok(file.model)
}

fn load_tensors(path: &Path) -> Result<Vec<NamedTensor>, FolderError> {
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    tensor_file::parse(&bytes).map_err(|fault| {
        let path = path.to_path_buf();
        match fault {
            Fault::Corrupt(reason) => FolderError::Corrupt { path, reason },
            Fault::Type { name, found } => FolderError::Type { path, name, found },
        }
    })
}
