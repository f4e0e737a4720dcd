//! Classifier folders with `config.json` and `model.safetensors`.

use crate::classifier::{Classifier, ClassifierConfig};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use flm_denoiser::folder::{Existing, FolderError, staging};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CONFIG_FILE: &str = "config.json";
const TENSORS_FILE: &str = "model.safetensors";
/// Distinguishes the folder from a model folder.
const KIND: &str = "reward classifier";
const FORMAT_VERSION: u32 = 1;

/// The content of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierFile {
    format_version: u32,
    kind: String,
    /// Hash of the tokenizer that the classifier was trained with.
    pub tokenizer_hash: String,
    /// The sizes of the classifier.
    pub classifier: ClassifierConfig,
}

impl ClassifierFile {
    /// Creates the content for a classifier of these sizes and the hash of its tokenizer.
    pub fn new(classifier: ClassifierConfig, tokenizer_hash: &str) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            kind: KIND.to_owned(),
            tokenizer_hash: tokenizer_hash.to_owned(),
            classifier,
        }
    }
}

/// An error from writing or reading a classifier's folder.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// An I/O error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The source error.
        source: io::Error,
    },
    /// `config.json` is not the configuration of a classifier.
    #[error("{} is not the configuration of a reward classifier: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The folder to replace holds more than a classifier.
    #[error("{} holds {name}, which is not part of a reward classifier, so it is not replaced", path.display())]
    ReferenceCheckpoint {
        /// The folder.
        path: PathBuf,
        /// The name of an entry that does not belong to a classifier.
        name: String,
    },
    /// The folder cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The tensors do not match the classifier.
    #[error("{}: {reason}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The tensor and the reason.
        reason: String,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RewardError {
    let path = path.to_path_buf();
    move |source| RewardError::Io {
        action,
        path,
        source,
    }
}

/// Checks that the folder `dir` may be replaced: it holds only a classifier, or nothing.
///
/// # Errors
///
/// The errors of [`read_config`], and [`RewardError::ReferenceCheckpoint`] if the folder holds
/// other entries.
pub fn check_replaced(dir: &Path) -> Result<(), RewardError> {
    let names = |entries: fs::ReadDir| {
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<io::Result<Vec<String>>>()
    };
    let names = (fs::read_dir(dir).and_then(names)).map_err(io_error("read", dir))?;
    if names.is_empty() {
        return Ok(());
    }
    read_config(dir)?;
    let ours = [CONFIG_FILE, TENSORS_FILE];
    match names
        .into_iter()
        .filter(|name| !ours.contains(&name.as_str()))
        .min()
    {
        None => Ok(()),
        Some(name) => Err(RewardError::ReferenceCheckpoint {
            path: dir.to_path_buf(),
            name,
        }),
    }
}

/// Writes a classifier as the folder `dir`, which appears complete or not at all.
///
/// An existing classifier is replaced with [`Existing::Replace`].
///
/// # Errors
///
/// [`RewardError::Folder`] if the folder exists or on an I/O error, the errors of
/// [`check_replaced`], and [`RewardError::Config`] or [`RewardError::Tensors`] if [`load`] would
/// reject the classifier. In all cases an existing folder is unchanged.
pub fn save<B: Backend>(
    dir: &Path,
    classifier: &Classifier<B>,
    file: &ClassifierFile,
    existing: Existing,
) -> Result<(), RewardError> {
    (file.classifier.validate()).map_err(|error| RewardError::Config {
        path: dir.join(CONFIG_FILE),
        reason: error.to_string(),
    })?;
    let path = dir.join(TENSORS_FILE);
    let refused = |reason: String| RewardError::Tensors {
        path: path.clone(),
        reason,
    };
    let tensors = named(classifier);
    let found: Vec<_> = tensors
        .iter()
        .map(|tensor| (&tensor.0, &tensor.1))
        .collect();
    let expected = expected(&file.classifier);
    if !(expected.iter().map(|(name, shape)| (name, shape))).eq(found) {
        return Err(refused(
            "the sizes differ from the configuration".to_owned(),
        ));
    }
    for (name, _, values) in &tensors {
        check_finite(name, values).map_err(refused)?;
    }
    let bytes: Vec<Vec<u8>> = (tensors.iter())
        .map(|(_, _, values)| values.iter().copied().flat_map(f32::to_le_bytes).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (
            name.as_str(),
            view.expect("the number of bytes matches the shape"),
        )
    });
    let bytes = safetensors::serialize(views, None).map_err(|error| refused(error.to_string()))?;
    let json = serde_json::to_string_pretty(file).expect("plain numbers and strings") + "\n";

    if existing == Existing::Replace && dir.exists() {
        check_replaced(dir)?;
    }
    let staging = staging(dir, existing)?;
    staging
        .write(Path::new(CONFIG_FILE), json.as_bytes())
        .map_err(FolderError::from)?;
    staging
        .write(Path::new(TENSORS_FILE), &bytes)
        .map_err(FolderError::from)?;
    Ok(staging.commit().map_err(FolderError::from)?)
}

/// Reads the configuration of a classifier's folder.
///
/// # Errors
///
/// [`RewardError::Io`] if it cannot be read, [`RewardError::Config`] if it is invalid.
pub fn read_config(dir: &Path) -> Result<ClassifierFile, RewardError> {
    let path = dir.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let refused = |reason: String| RewardError::Config {
        path: path.clone(),
        reason,
    };
    // Check the kind first, so that unknown keys of a model's configuration are not reported.
    #[derive(Deserialize)]
    struct What {
        format_version: u32,
        kind: Option<String>,
    }
    let what: What = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    match what.kind.as_deref() {
        Some(KIND) => {}
        Some(kind) => return Err(refused(format!("its kind is {kind:?}"))),
        None => return Err(refused("it has no key `kind`".to_owned())),
    }
    if what.format_version != FORMAT_VERSION {
        return Err(refused(format!(
            "it has format version {}, but only version {FORMAT_VERSION} is supported",
            what.format_version
        )));
    }
    let file: ClassifierFile =
        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    (file.classifier.validate()).map_err(|error| refused(error.to_string()))?;
    Ok(file)
}

/// Reads a classifier and its configuration.
///
/// # Errors
///
/// The errors of [`read_config`], and [`RewardError::Tensors`] if `model.safetensors` does not hold
/// exactly the parameters.
pub fn load<B: Backend>(
    dir: &Path,
    device: &B::Device,
) -> Result<(Classifier<B>, ClassifierFile), RewardError> {
    let file = read_config(dir)?;
    let path = dir.join(TENSORS_FILE);
    let bytes = fs::read(&path).map_err(io_error("read", &path))?;
    let refused = |reason: String| RewardError::Tensors {
        path: path.clone(),
        reason,
    };
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| refused(format!("truncated, or not a safetensors file: {error}")))?;
    let expected = expected(&file.classifier);
    if let Some(name) = (tensors.names().into_iter())
        .filter(|name| expected.iter().all(|(known, _)| known != name))
        .min()
    {
        return Err(refused(format!(
            "the tensor {name} is not a parameter of the classifier"
        )));
    }
    let mut values = Vec::new();
    for (name, shape) in &expected {
        let view =
            (tensors.tensor(name)).map_err(|_| refused(format!("the tensor {name} is missing")))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(refused(format!(
                "the tensor {name} is {} {:?}, expected F32 {shape:?}",
                view.dtype(),
                view.shape()
            )));
        }
        let numbers = view.data().as_chunks::<4>().0.iter();
        let numbers: Vec<f32> = numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        check_finite(name, &numbers).map_err(refused)?;
        values.push(TensorData::new(numbers, shape.clone()));
    }
    let mut values = values.into_iter();
    let mut next = || values.next().expect("one value per parameter");
    let classifier = Classifier {
        embedding: parameter(next(), device),
        layers: (0..file.classifier.layers)
            .map(|_| linear(&mut next, device))
            .collect(),
        output: linear(&mut next, device),
    };
    Ok((classifier, file))
}

fn parameter<B: Backend, const D: usize>(
    data: TensorData,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(Tensor::from_data(data, device))
}

fn linear<B: Backend>(next: &mut impl FnMut() -> TensorData, device: &B::Device) -> Linear<B> {
    let weight = Tensor::<B, 2>::from_data(next(), device).transpose();
    Linear {
        weight: Param::from_tensor(weight),
        bias: Some(parameter(next(), device)),
    }
}

/// Returns names and shapes of the parameters of a classifier of these sizes, in order.
///
/// The weight of a linear map is `[outputs, inputs]`.
fn expected(config: &ClassifierConfig) -> Vec<(String, Vec<usize>)> {
    let map = |name: &str, inputs: usize, outputs: usize| {
        [
            (format!("{name}.weight"), vec![outputs, inputs]),
            (format!("{name}.bias"), vec![outputs]),
        ]
    };
    let (width, window) = (config.width, (2 * config.reach + 1) * config.width);
    let embedding = ("embedding".to_owned(), vec![config.vocab_size, width]);
    let mut tensors = vec![embedding];
    for number in 0..config.layers {
        tensors.extend(map(&format!("layers.{number}"), window, width));
    }
    tensors.extend(map("output", width, 1));
    tensors
}

/// Returns names, shapes and values of the parameters, in the order of [`expected`].
fn named<B: Backend>(classifier: &Classifier<B>) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let entry = |name: String, data: TensorData| {
        let values = data.iter::<f32>().collect();
        (name, data.shape.to_vec(), values)
    };
    let of_map = |name: &str, map: &Linear<B>| {
        let weight = map.weight.val().transpose().into_data();
        let bias = map.bias.as_ref().expect("a map with a bias").val();
        [
            entry(format!("{name}.weight"), weight),
            entry(format!("{name}.bias"), bias.into_data()),
        ]
    };
    let embedding = classifier.embedding.val().into_data();
    let mut tensors = vec![entry("embedding".to_owned(), embedding)];
    for (number, layer) in classifier.layers.iter().enumerate() {
        tensors.extend(of_map(&format!("layers.{number}"), layer));
    }
    tensors.extend(of_map("output", &classifier.output));
    tensors
}

fn check_finite(name: &str, values: &[f32]) -> Result<(), String> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(format!("the tensor {name} has a value that is not finite"))
}
