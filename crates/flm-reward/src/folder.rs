//! A classifier as a folder: `config.json` and `model.safetensors`.

use crate::classifier::{Classifier, ClassifierConfig};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CONFIG_FILE: &str = "config.json";
const TENSORS_FILE: &str = "model.safetensors";
/// What tells the folder from that of a model.
const KIND: &str = "reward classifier";
const FORMAT_VERSION: u32 = 1;
/// No classifier is larger: a mistyped size is no reason to fill the memory.
const MOST_NUMBERS: usize = 1 << 30;

/// The content of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierFile {
    format_version: u32,
    kind: String,
    /// Of the tokenizer whose tokens it was trained on.
    pub tokenizer_hash: String,
    /// Its sizes.
    pub classifier: ClassifierConfig,
}

impl ClassifierFile {
    /// That of a classifier of these sizes and this tokenizer.
    pub fn new(classifier: ClassifierConfig, tokenizer_hash: &str) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            kind: KIND.to_owned(),
            tokenizer_hash: tokenizer_hash.to_owned(),
            classifier,
        }
    }
}

/// Why the folder of a classifier cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `config.json` is not that of a classifier.
    #[error("{} is not the configuration of a reward classifier: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and how.
        reason: String,
    },
    /// The tensors are not the classifier's.
    #[error("{}: {reason}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Which one, and how.
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

/// Writes a classifier as the folder `dir`, which must not be there: beside its place, then renamed.
///
/// # Errors
///
/// [`RewardError::Io`] if the system refuses; nothing is left behind then.
pub fn save<B: Backend>(
    dir: &Path,
    classifier: &Classifier<B>,
    file: &ClassifierFile,
) -> Result<(), RewardError> {
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    let staged = (tempfile::Builder::new().prefix(".flm-reward-"))
        .tempdir_in(parent)
        .map_err(io_error("create a folder in", parent))?;
    let json = serde_json::to_string_pretty(file).expect("plain numbers and strings") + "\n";
    write(&staged.path().join(CONFIG_FILE), json.as_bytes())?;

    let tensors = named(classifier);
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("as many bytes as the shape has"))
    });
    let path = staged.path().join(TENSORS_FILE);
    let bytes = safetensors::serialize(views, None).map_err(|error| RewardError::Tensors {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    write(&path, &bytes)?;
    fs::rename(staged.path(), dir).map_err(io_error("create", dir))?;
    // It is in its place: what was the staged folder is not to be removed.
    let _ = staged.keep();
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<(), RewardError> {
    let write = || {
        let mut file = fs::File::create(path)?;
        io::Write::write_all(&mut file, content)?;
        file.sync_all()
    };
    write().map_err(io_error("write", path))
}

/// Reads the configuration of a classifier's folder.
///
/// # Errors
///
/// [`RewardError::Io`] if it cannot be read, [`RewardError::Config`] if it is none.
pub fn read_config(dir: &Path) -> Result<ClassifierFile, RewardError> {
    let path = dir.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let refused = |reason: String| RewardError::Config {
        path: path.clone(),
        reason,
    };
    // What it is before what it holds: the configuration of a model should not look like a mistake.
    #[derive(Deserialize)]
    struct What {
        format_version: u32,
        kind: Option<String>,
    }
    let what: What = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    match what.kind.as_deref() {
        Some(KIND) => {}
        Some(kind) => return Err(refused(format!("its kind is {kind:?}"))),
        None => return Err(refused("it names no kind".to_owned())),
    }
    if what.format_version != FORMAT_VERSION {
        return Err(refused(format!(
            "it has format version {}, but only version {FORMAT_VERSION} is known",
            what.format_version
        )));
    }
    let file: ClassifierFile =
        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    let config = &file.classifier;
    let numbers = (2 * config.reach.min(MOST_NUMBERS) + 1)
        .checked_mul(config.layers.max(1))
        .and_then(|windows| windows.checked_mul(config.width))
        .and_then(|rows| rows.checked_add(config.vocab_size))
        .and_then(|rows| rows.checked_mul(config.width));
    if config.vocab_size == 0 || config.width == 0 || numbers.is_none_or(|n| n > MOST_NUMBERS) {
        return Err(refused(format!(
            "no classifier has {} tokens, width {}, {} layers and reach {}",
            config.vocab_size, config.width, config.layers, config.reach
        )));
    }
    Ok(file)
}

/// Reads a classifier and its configuration.
///
/// # Errors
///
/// As [`read_config`], and [`RewardError::Tensors`] if `model.safetensors` does not hold exactly its parameters.
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
        .map_err(|error| refused(format!("no safetensors file, or cut off: {error}")))?;
    // Every parameter is replaced, so the seed does not matter.
    let fresh = (file.classifier).init::<B>(&mut ChaCha8Rng::seed_from_u64(0), device);
    let expected = named(&fresh);
    if let Some(name) = (tensors.names().into_iter())
        .filter(|name| expected.iter().all(|(known, ..)| known != name))
        .min()
    {
        return Err(refused(format!(
            "there is no parameter for the tensor {name}"
        )));
    }
    let mut values = Vec::new();
    for (name, shape, _) in &expected {
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
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(refused(format!(
                "the tensor {name} has a value that is not finite"
            )));
        }
        values.push(TensorData::new(numbers, shape.clone()));
    }
    let mut values = values.into_iter();
    let mut next = || values.next().expect("one for each parameter");
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

/// Names, shapes and little-endian bytes of the parameters, a linear map's weight as `[outputs, inputs]`.
fn named<B: Backend>(classifier: &Classifier<B>) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let entry = |name: String, data: TensorData| {
        let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        (name, data.shape.to_vec(), bytes)
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
