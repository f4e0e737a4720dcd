//! Sources of fixtures and networks.

use crate::fixture::Fixture;
use crate::golden;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::folder::{self, DENOISER_FOLDER, Existing};
use flm_denoiser::reference::{Hints, ReferenceCheckpoint, Weights};
use flm_denoiser::{Dit, DitConfig};
use flm_simplex::Schedule;
use std::path::{Path, PathBuf};

/// The checkpoint files of a fixture folder.
const FLOW: &str = "flm.ckpt";
const FLOW_MAP: &str = "fmlm.ckpt";
const RESIDUAL: &str = "fmlm_residual.ckpt";

/// The full fixtures, or those in the repository.
pub enum Source {
    /// A folder with `expected.safetensors` and `flow_map.safetensors`, and the checkpoints as
    /// model folders.
    Folder(PathBuf, Models),
    /// The golden file, which holds only the flow map's weights.
    Golden(Fixture),
}

/// Model folders converted from the checkpoints of a fixture folder.
pub struct Models {
    /// The flow.
    pub flow: PathBuf,
    /// The flow map.
    pub flow_map: PathBuf,
    /// The residual flow map.
    pub residual: PathBuf,
}

/// A function that converts a checkpoint to a model folder.
///
/// The arguments are the checkpoint, the folder to create and, for a residual flow map, the
/// checkpoint of its denoiser.
pub type Convert<'a> = dyn Fn(&Path, &Path, Option<&Path>) -> Result<(), String> + 'a;

impl Models {
    /// Converts the checkpoints in `fixtures` to model folders in `out`.
    ///
    /// # Errors
    ///
    /// Errors of `convert`.
    pub fn convert(fixtures: &Path, out: &Path, convert: &Convert<'_>) -> Result<Self, String> {
        let flow = fixtures.join(FLOW);
        let models = Self {
            flow: out.join("flow"),
            flow_map: out.join("flow-map"),
            residual: out.join("residual"),
        };
        convert(&flow, &models.flow, None)?;
        convert(&fixtures.join(FLOW_MAP), &models.flow_map, None)?;
        convert(&fixtures.join(RESIDUAL), &models.residual, Some(&flow))?;
        Ok(models)
    }
}

/// Converts a checkpoint in the way of `flm convert`.
///
/// # Errors
///
/// A message if the conversion fails.
pub fn convert<B: Backend>(from: &Path, out: &Path, denoiser: Option<&Path>) -> Result<(), String> {
    let load = |path: &Path| -> Result<(Dit<B>, DitConfig), String> {
        ReferenceCheckpoint::open(path)
            .and_then(|file| file.load(Weights::Averaged, &Hints::default(), &Default::default()))
            .map_err(|error| error.to_string())
    };
    let (model, config) = load(from)?;
    let done = match denoiser {
        None => folder::save(out, &model, &config, &[], Existing::Refuse),
        Some(path) => {
            let (denoiser, of_denoiser) = load(path)?;
            let content = |model, config| folder::Content {
                model,
                config,
                extra: &[],
            };
            folder::save_residual(
                out,
                content(&model, &config),
                content(&denoiser, &of_denoiser),
                Existing::Refuse,
            )
        }
    };
    done.map_err(|error| error.to_string())
}

impl Source {
    /// Opens the golden file of the repository.
    pub fn golden() -> Self {
        Self::Golden(golden::open())
    }

    pub(super) fn fixtures(&self) -> Result<(Fixture, Fixture), String> {
        match self {
            Self::Folder(folder, _) => {
                let read = |name: &str| Fixture::read(&folder.join(name));
                Ok((read("expected.safetensors")?, read("flow_map.safetensors")?))
            }
            Self::Golden(file) => Ok((file.within("expected."), file.within("flow_map."))),
        }
    }

    pub(super) fn schedule(&self) -> Result<Schedule, String> {
        let config = match self {
            Self::Folder(_, models) => {
                folder::read_config(&models.flow).map_err(|error| error.to_string())?
            }
            Self::Golden(_) => crate::fixture::config(true),
        };
        config.schedule().map_err(|error| error.to_string())
    }

    pub(super) fn flow<B: Backend>(&self) -> Result<Option<Dit<B>>, String> {
        match self {
            Self::Folder(_, models) => load(&models.flow).map(Some),
            Self::Golden(_) => Ok(None),
        }
    }

    pub(super) fn flow_map<B: Backend>(&self) -> Result<Option<Dit<B>>, String> {
        match self {
            Self::Folder(_, models) => load(&models.flow_map).map(Some),
            Self::Golden(file) => Ok(Some(golden::model(file))),
        }
    }

    pub(super) fn residual<B: AutodiffBackend>(
        &self,
    ) -> Result<Option<super::TwoNetworks<B>>, String> {
        let Self::Folder(_, models) = self else {
            return Ok(None);
        };
        let (both, _) = folder::load_residual::<B>(&models.residual, &Default::default())
            .map_err(|error| error.to_string())?;
        let denoiser = load(&models.residual.join(DENOISER_FOLDER))?;
        Ok(Some((denoiser, both.second)))
    }
}

fn load<B: Backend>(path: &Path) -> Result<Dit<B>, String> {
    let (model, _) = folder::load(path, &Default::default()).map_err(|error| error.to_string())?;
    Ok(model)
}
