//! Everything a run needs to go on as if it had never stopped.

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::optimizer::Optimizers;
use burn::module::Module;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder, RecorderError};
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::Dit;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the checkpoint format.
const FORMAT: u32 = 3;
/// Older checkpoints than this many are removed.
const KEPT: usize = 2;
const STATE: &str = "state.json";

type FileFormat = NamedMpkFileRecorder<FullPrecisionSettings>;

/// What is not a tensor.
///
/// Data position and generators need no entry: both are functions of the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// Steps done.
    pub(crate) step: u64,
    /// Seconds trained so far.
    pub(crate) seconds: f64,
    /// Identity of the token data.
    pub(crate) data: String,
    pub(crate) config: TrainConfig,
}

impl State {
    pub(crate) fn new(step: u64, seconds: f64, data: &str, config: &TrainConfig) -> Self {
        Self {
            format: FORMAT,
            step,
            seconds,
            data: data.to_owned(),
            config: config.clone(),
        }
    }
}

/// The tensors of a run.
pub(crate) struct Tensors<B: AutodiffBackend> {
    pub(crate) model: Dit<B>,
    pub(crate) ema: Dit<B::InnerBackend>,
    pub(crate) optimizers: Optimizers<B>,
}

/// Writes a checkpoint beside its place and moves it there when it is whole; then removes the oldest ones.
pub(crate) fn save<B: AutodiffBackend>(
    root: &Path,
    tensors: &Tensors<B>,
    state: &State,
) -> Result<PathBuf, TrainError> {
    fs::create_dir_all(root).map_err(TrainError::io("create", root))?;
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(root)
        .map_err(TrainError::io("create a folder in", root))?;
    write(partial.path(), tensors).map_err(|error| broken(partial.path(), error.to_string()))?;
    let json = serde_json::to_vec_pretty(state)
        .map_err(|error| broken(partial.path(), error.to_string()))?;
    fs::write(partial.path().join(STATE), json).map_err(TrainError::io("write", partial.path()))?;
    for entry in fs::read_dir(partial.path()).map_err(TrainError::io("read", partial.path()))? {
        let path = entry
            .map_err(TrainError::io("read", partial.path()))?
            .path();
        fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(TrainError::io("sync", &path))?;
    }
    let place = root.join(format!("step-{:08}", state.step));
    if place.exists() {
        fs::remove_dir_all(&place).map_err(TrainError::io("replace", &place))?;
    }
    let partial = partial.keep();
    fs::rename(&partial, &place).map_err(TrainError::io("move into place", &place))?;
    let all = list(root)?;
    for old in &all[..all.len().saturating_sub(KEPT)] {
        fs::remove_dir_all(old).map_err(TrainError::io("remove", old))?;
    }
    Ok(place)
}

fn write<B: AutodiffBackend>(folder: &Path, tensors: &Tensors<B>) -> Result<(), RecorderError> {
    let recorder = FileFormat::default();
    recorder.record(tensors.model.clone().into_record(), folder.join("model"))?;
    Recorder::<B::InnerBackend>::record(
        &recorder,
        tensors.ema.clone().into_record(),
        folder.join("ema"),
    )?;
    tensors.optimizers.save(folder, &recorder)
}

/// The newest checkpoint under `root`, if there is one.
pub fn latest(root: &Path) -> Result<Option<PathBuf>, TrainError> {
    Ok(list(root)?.pop())
}

fn list(root: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(TrainError::io("read", root))? {
        let entry = entry.map_err(TrainError::io("read", root))?;
        if entry.file_name().to_string_lossy().starts_with("step-") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Fills freshly made tensors from a checkpoint of the same run.
pub(crate) fn load<B: AutodiffBackend>(
    path: &Path,
    tensors: Tensors<B>,
    data: &str,
    config: &TrainConfig,
    device: &B::Device,
) -> Result<(Tensors<B>, State), TrainError> {
    let json = fs::read(path.join(STATE)).map_err(TrainError::io("read", path.join(STATE)))?;
    let state: State =
        serde_json::from_slice(&json).map_err(|error| broken(path, format!("{STATE}: {error}")))?;
    if state.format != FORMAT {
        return Err(broken(
            path,
            format!("format {FORMAT} expected, found {}", state.format),
        ));
    }
    if state.data != data {
        return Err(broken(
            path,
            format!("it was trained on data {}, not on {data}", state.data),
        ));
    }
    let extended = TrainConfig {
        steps: config.steps,
        ..state.config.clone()
    };
    if extended != *config {
        return Err(broken(
            path,
            "its training settings differ from the ones given (only steps may change)".to_owned(),
        ));
    }
    let shapes = shapes(&tensors.model);
    let recorder = FileFormat::default();
    let loaded = (|| {
        let model = tensors
            .model
            .load_record(recorder.load(path.join("model"), device)?);
        let ema = tensors.ema.load_record(Recorder::<B::InnerBackend>::load(
            &recorder,
            path.join("ema"),
            device,
        )?);
        let optimizers = tensors.optimizers.load(path, &recorder, device)?;
        Ok::<_, RecorderError>(Tensors {
            model,
            ema,
            optimizers,
        })
    })()
    .map_err(|error| broken(path, error.to_string()))?;
    let found = self::shapes(&loaded.model);
    if found.len() != shapes.len() {
        return Err(broken(
            path,
            format!("{} tensors expected, found {}", shapes.len(), found.len()),
        ));
    }
    if let Some((expected, found)) = shapes.iter().zip(&found).find(|(a, b)| a != b) {
        return Err(broken(
            path,
            format!("a tensor of shape {expected:?} expected, found {found:?}"),
        ));
    }
    Ok((loaded, state))
}

fn shapes<B: AutodiffBackend>(model: &Dit<B>) -> Vec<Vec<usize>> {
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::Tensor;
    struct Shapes(Vec<Vec<usize>>);
    impl<B: burn::tensor::backend::Backend> ModuleVisitor<B> for Shapes {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0.push(param.dims().to_vec());
        }
    }
    let mut shapes = Shapes(Vec::new());
    model.visit(&mut shapes);
    shapes.0
}

fn broken(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    }
}
