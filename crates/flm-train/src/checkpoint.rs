//! Checkpoints: everything a run needs to resume as if it had never stopped.

use crate::clock::FittedClock;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::optimizer::Optimizers;
use burn::module::Module;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder, RecorderError};
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::named_shapes;
use flm_files::{Existing, Staging, sha256};
use flm_objective::{Inner, Network};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the checkpoint format.
const FORMAT: u32 = 1;
/// Number of checkpoints to keep; older ones are removed.
const KEPT: usize = 2;
const STATE: &str = "state.json";
/// Prefix of the names of checkpoint folders, before the step.
const PREFIX: &str = "step-";

type FileFormat = NamedMpkFileRecorder<FullPrecisionSettings>;

/// The contents of `state.json`: all state but the tensors, and the data to verify the tensors.
///
/// The data position and the generators need no entry: both are functions of the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    /// Steps done.
    step: u64,
    /// Seconds trained so far.
    seconds: f64,
    /// Identity of the token data.
    data: String,
    config: TrainConfig,
    /// The clock and the losses that it is fitted to, if one is fitted.
    clock: Option<FittedClock>,
    /// Names and shapes of the network's parameters.
    parameters: BTreeMap<String, Vec<usize>>,
    /// Names of the tensor files with their SHA-256.
    files: BTreeMap<String, String>,
}

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: u64,
    /// Seconds trained so far.
    pub(crate) seconds: f64,
    /// The clock and the losses that it is fitted to, if one is fitted.
    pub(crate) clock: Option<FittedClock>,
}

/// The data and settings that a checkpoint must match to be resumed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Identity of the token data.
    pub(crate) data: &'a str,
    pub(crate) config: &'a TrainConfig,
}

/// The tensors of a run.
pub(crate) struct Tensors<B: AutodiffBackend, N: Network<B>> {
    pub(crate) model: N,
    pub(crate) ema: Inner<B, N>,
    pub(crate) optimizers: Optimizers<B, N>,
    pub(crate) auxiliary: Option<Auxiliary<B, N>>,
}

/// A network that is trained alongside the model, and its optimizers.
pub(crate) struct Auxiliary<B: AutodiffBackend, N: Network<B>> {
    pub(crate) network: N,
    pub(crate) optimizers: Optimizers<B, N>,
}

/// Prefix of the file names of an [`Auxiliary`]'s optimizers.
const AUXILIARY: &str = "auxiliary-";

/// Writes a checkpoint to a staging folder and moves it into place when complete. Then removes all
/// but the [`KEPT`] newest checkpoints.
pub(crate) fn save<B: AutodiffBackend, N: Network<B>>(
    root: &Path,
    tensors: &Tensors<B, N>,
    state: &State,
    origin: Origin<'_>,
) -> Result<PathBuf, TrainError> {
    let place = root.join(folder_name(state.step));
    let staging = Staging::begin(&place, Existing::Replace, |_| true)?;
    let folder = staging.path(Path::new(""));
    write(&folder, tensors).map_err(|error| {
        broken(
            &place,
            format!("it cannot be written ({error}): free some disk space, then resume"),
        )
    })?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(TrainError::io("read", &folder))? {
        let entry = entry.map_err(TrainError::io("read", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        staging.sync(Path::new(&name))?;
        files.insert(name, sha256(&entry.path())?);
    }
    let saved = Saved {
        format: FORMAT,
        step: state.step,
        seconds: state.seconds,
        data: origin.data.to_owned(),
        config: origin.config.clone(),
        clock: state.clock.clone(),
        parameters: named_shapes(&tensors.model).into_iter().collect(),
        files,
    };
    let json =
        serde_json::to_vec_pretty(&saved).map_err(|error| broken(&folder, error.to_string()))?;
    staging.write(Path::new(STATE), &json)?;
    staging.commit()?;
    let all = list(root)?;
    for (_, old) in &all[..all.len().saturating_sub(KEPT)] {
        fs::remove_dir_all(old).map_err(TrainError::io("remove", old))?;
    }
    Ok(place)
}

fn write<B: AutodiffBackend, N: Network<B>>(
    folder: &Path,
    tensors: &Tensors<B, N>,
) -> Result<(), RecorderError> {
    let recorder = FileFormat::default();
    recorder.record(tensors.model.clone().into_record(), folder.join("model"))?;
    Recorder::<B::InnerBackend>::record(
        &recorder,
        tensors.ema.clone().into_record(),
        folder.join("ema"),
    )?;
    tensors.optimizers.save(folder, "", &recorder)?;
    if let Some(Auxiliary {
        network,
        optimizers,
    }) = &tensors.auxiliary
    {
        recorder.record(network.clone().into_record(), folder.join("auxiliary"))?;
        optimizers.save(folder, AUXILIARY, &recorder)?;
    }
    Ok(())
}

fn folder_name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// Returns the step and the path of the newest checkpoint under `root`, if there is one.
pub fn latest(root: &Path) -> Result<Option<(u64, PathBuf)>, TrainError> {
    Ok(list(root)?.pop())
}

/// Removes the checkpoints under `root`. Folders with other names stay.
///
/// # Errors
///
/// [`TrainError::Io`] if a folder cannot be read or removed.
pub fn remove_all(root: &Path) -> Result<(), TrainError> {
    for (_, path) in list(root)? {
        fs::remove_dir_all(&path).map_err(TrainError::io("remove", &path))?;
    }
    Ok(())
}

/// Lists the checkpoints under `root` with their steps, oldest first. Folders with other names
/// are ignored.
fn list(root: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(TrainError::io("read", root))? {
        let entry = entry.map_err(TrainError::io("read", root))?;
        let (name, path) = (entry.file_name(), entry.path());
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(step) = digits.and_then(|digits| digits.parse().ok())
            && name == folder_name(step).as_str()
            && path.is_dir()
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Loads `tensors` from a checkpoint of the same run.
pub(crate) fn load<B: AutodiffBackend, N: Network<B>>(
    path: &Path,
    tensors: Tensors<B, N>,
    origin: Origin<'_>,
    device: &B::Device,
) -> Result<(Tensors<B, N>, State), TrainError> {
    let saved = read_state(path)?;
    check_origin(&saved, origin).map_err(|reason| broken(path, reason))?;
    check_parameters(
        &saved.parameters,
        &named_shapes(&tensors.model).into_iter().collect(),
    )
    .map_err(|reason| broken(path, reason))?;
    for (name, expected) in &saved.files {
        if !path.join(name).is_file() {
            return Err(damaged(path, &format!("{name} is missing")));
        }
        if sha256(&path.join(name))? != *expected {
            let reason =
                format!("{name} does not match its SHA-256, it may be truncated or replaced");
            return Err(damaged(path, &reason));
        }
    }
    let tensors = read(path, tensors, device).map_err(|error| broken(path, error.to_string()))?;
    let clock = saved.clock.map(FittedClock::checked).transpose();
    let state = State {
        step: saved.step,
        seconds: saved.seconds,
        clock: clock.map_err(|error| broken(path, error.to_string()))?,
    };
    Ok((tensors, state))
}

fn read_state(path: &Path) -> Result<Saved, TrainError> {
    let json = fs::read(path.join(STATE)).map_err(TrainError::io("read", path.join(STATE)))?;
    let wrong = |error: serde_json::Error| damaged(path, &format!("{STATE}: {error}"));
    // The version comes first, so that changes of a later format are not reported as mistakes.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = serde_json::from_slice(&json).map_err(wrong)?;
    if format != FORMAT {
        return Err(broken(
            path,
            format!("expected format {FORMAT}, found {format}"),
        ));
    }
    serde_json::from_slice(&json).map_err(wrong)
}

/// Checks that a checkpoint belongs to this run.
fn check_origin(saved: &Saved, origin: Origin<'_>) -> Result<(), String> {
    if saved.data != origin.data {
        return Err(format!(
            "its data has the hash {}, found {}: use the data folder that the run was started with",
            saved.data, origin.data
        ));
    }
    let extended = TrainConfig {
        steps: origin.config.steps,
        ..saved.config.clone()
    };
    if extended != *origin.config {
        return Err(
            "its training settings differ from the ones given (only steps may change)".to_owned(),
        );
    }
    Ok(())
}

/// Checks that a checkpoint belongs to this network.
fn check_parameters(
    saved: &BTreeMap<String, Vec<usize>>,
    ours: &BTreeMap<String, Vec<usize>>,
) -> Result<(), String> {
    for (name, shape) in ours {
        match saved.get(name) {
            None => return Err(format!("it has no tensor {name}, which the network needs")),
            Some(found) if found != shape => {
                return Err(format!(
                    "its tensor {name} has shape {found:?}, expected {shape:?}"
                ));
            }
            Some(_) => (),
        }
    }
    match saved.keys().find(|name| !ours.contains_key(*name)) {
        Some(name) => Err(format!("its tensor {name} is not in the network")),
        None => Ok(()),
    }
}

fn read<B: AutodiffBackend, N: Network<B>>(
    path: &Path,
    tensors: Tensors<B, N>,
    device: &B::Device,
) -> Result<Tensors<B, N>, RecorderError> {
    let recorder = FileFormat::default();
    let model = recorder.load(path.join("model"), device)?;
    let ema = Recorder::<B::InnerBackend>::load(&recorder, path.join("ema"), device)?;
    let auxiliary = |fresh: Auxiliary<B, N>| {
        let network = recorder.load(path.join("auxiliary"), device)?;
        Ok::<_, RecorderError>(Auxiliary {
            network: fresh.network.load_record(network),
            optimizers: fresh.optimizers.load(path, AUXILIARY, &recorder, device)?,
        })
    };
    Ok(Tensors {
        auxiliary: tensors.auxiliary.map(auxiliary).transpose()?,
        model: tensors.model.load_record(model),
        ema: tensors.ema.load_record(ema),
        optimizers: tensors.optimizers.load(path, "", &recorder, device)?,
    })
}

/// An error for a damaged checkpoint, which names an older one.
fn damaged(path: &Path, reason: &str) -> TrainError {
    let older = path.parent().and_then(|root| list(root).ok());
    let older = older.and_then(|all| all.into_iter().rfind(|(_, other)| other.as_path() < path));
    let advice = older.map_or_else(
        || "start again".to_owned(),
        |(step, _)| format!("delete this folder to continue from step {step}"),
    );
    broken(path, format!("{reason}: {advice}"))
}

fn broken(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_sorted_by_number_and_other_folders_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "step-00000010",
            "step-100000000",
            "step-00000020-old",
            "step-30",
            "step-",
            "other",
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("step-00000040"), "a file").unwrap();
        let steps: Vec<u64> = list(root.path()).unwrap().iter().map(|(s, _)| *s).collect();
        assert_eq!(steps, [10, 100_000_000]);
    }

    #[test]
    fn another_networks_parameters_are_named() {
        let network = |parameters: &[(&str, [usize; 2])]| {
            let named = parameters
                .iter()
                .map(|(n, s)| ((*n).to_owned(), s.to_vec()));
            named.collect::<BTreeMap<_, _>>()
        };
        let ours = network(&[("a", [2, 3]), ("b", [4, 4])]);
        let reason = |saved: &[(&str, [usize; 2])]| check_parameters(&network(saved), &ours);
        assert_eq!(reason(&[("a", [2, 3]), ("b", [4, 4])]), Ok(()));
        assert_eq!(
            reason(&[("a", [2, 3]), ("b", [4, 5])]).unwrap_err(),
            "its tensor b has shape [4, 5], expected [4, 4]"
        );
        assert_eq!(
            reason(&[("a", [2, 3])]).unwrap_err(),
            "it has no tensor b, which the network needs"
        );
        assert_eq!(
            reason(&[("a", [2, 3]), ("b", [4, 4]), ("c", [1, 1])]).unwrap_err(),
            "its tensor c is not in the network"
        );
    }
}
