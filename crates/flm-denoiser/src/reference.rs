//! Import and export of the reference implementation's weights.
//!
//! [`ReferenceCheckpoint::open`] reads these files:
//!
//! | file | content |
//! | --- | --- |
//! | `.ckpt`, `.pt`, `.pth`, `.bin` | output of `torch.save`: a Lightning checkpoint with parameters and their averages, or a dictionary of tensors |
//! | `.safetensors` | tensors |
//! | a folder with `config.json` and `model.safetensors` | a Hugging Face hub model, as the reference publishes it |
//!
//! Names may start with `backbone.` and contain the `_orig_mod.` of compiled modules. Sizes are
//! inferred from the tensors. The sequence length is not among them, and neither is the number of
//! heads unless the file has rotary frequencies. These come from the file's own settings or from
//! [`Hints`]. Every tensor must have its place in the network, except the teacher tensors that some
//! checkpoints contain ([`ReferenceCheckpoint::left_out`]).
//!
//! A checkpoint is a pickle, which is a program. It is parsed but never run.
//!
//! [`export`] is the opposite direction.

mod archive;
mod checkpoint;
mod error;
mod export;
mod names;
mod pickle;
mod settings;
mod sizes;

pub use error::ReferenceError;
pub use export::{ExportFormat, export};
pub use settings::Settings;

use crate::{
    Dit, DitConfig, NamedTensor, TensorError, apply_tensors, folder, named_shapes, tensor_file,
};
use burn::tensor::backend::Backend;
use checkpoint::Checkpoint;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The choice of weights in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// The averages over training, from which the reference samples. A file with one set of weights
    /// is read as these.
    Averaged,
    /// The parameters after the last training step.
    Live,
}

/// The role of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A one-time network: the denoiser of a flow.
    Flow,
    /// A two-time network.
    FlowMap,
    /// The second network of a residual flow map ([`Residual`](crate::Residual)), whose denoiser is
    /// in another file.
    Residual,
}

/// Information about a network that its file may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Sequence length in tokens.
    pub length: Option<usize>,
    /// Number of attention heads.
    pub heads: Option<usize>,
    /// Role of the network, if the file does not tell.
    pub kind: Option<Kind>,
}

/// A weights file of the reference implementation.
///
/// ```no_run
/// use burn_flex::Flex;
/// use flm_denoiser::reference::{ReferenceCheckpoint, Hints, Weights};
///
/// let foreign = ReferenceCheckpoint::open("lm1b_fmlm.ckpt".as_ref())?;
/// let (dit, config) = foreign.load::<Flex>(Weights::Averaged, &Hints::default(), &Default::default())?;
/// # Ok::<(), flm_denoiser::reference::ReferenceError>(())
/// ```
pub struct ReferenceCheckpoint {
    path: PathBuf,
    /// Size of the file of weights.
    bytes: u64,
    source: Source,
    settings: Settings,
    /// Names and shapes of the network's tensors, by the reference's names.
    shapes: Vec<(String, Vec<usize>)>,
    left_out: Vec<String>,
}

enum Source {
    Checkpoint(Box<Checkpoint>),
    Tensors(Vec<NamedTensor>),
}

impl ReferenceCheckpoint {
    /// Opens a file or folder and lists its content.
    ///
    /// # Errors
    ///
    /// [`ReferenceError`] if it cannot be read or is not a supported file.
    pub fn open(path: &Path) -> Result<Self, ReferenceError> {
        if path.is_dir() {
            return Self::open_folder(path);
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("safetensors") => Self::of_tensors(path, path, Settings::default()),
            Some("ckpt" | "pt" | "pth" | "bin") => Self::open_checkpoint(path),
            _ => Err(ReferenceError::Unknown {
                path: path.to_path_buf(),
                expected: "a checkpoint (.ckpt, .pt, .pth, .bin), a .safetensors file or a folder with config.json and model.safetensors",
            }),
        }
    }

    fn open_folder(folder: &Path) -> Result<Self, ReferenceError> {
        let path = folder.join(folder::CONFIG_FILE);
        let text = fs::read_to_string(&path).map_err(ReferenceError::io("read", &path))?;
        let json = serde_json::from_str(&text).map_err(|source| ReferenceError::Json {
            path: path.clone(),
            source,
        })?;
        Self::of_tensors(
            folder,
            &folder.join(folder::TENSORS_FILE),
            Settings::of_json(&json),
        )
    }

    fn of_tensors(path: &Path, file: &Path, settings: Settings) -> Result<Self, ReferenceError> {
        let bytes = fs::read(file).map_err(ReferenceError::io("read", file))?;
        let tensors =
            tensor_file::parse(&bytes).map_err(|fault| ReferenceError::of(fault, file))?;
        let listed = tensors.into_iter().map(|tensor| {
            let shape = tensor.shape.clone();
            (tensor.name.clone(), shape, tensor)
        });
        let sorted = names::sort(file, listed.collect())?;
        let tensors = (sorted.network.into_iter())
            .map(|(name, _, tensor)| NamedTensor { name, ..tensor })
            .collect::<Vec<_>>();
        Ok(Self {
            path: path.to_path_buf(),
            bytes: bytes.len() as u64,
            settings,
            shapes: (tensors.iter())
                .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
                .collect(),
            source: Source::Tensors(tensors),
            left_out: sorted.left_out,
        })
    }

    fn open_checkpoint(path: &Path) -> Result<Self, ReferenceError> {
        let (checkpoint, left_out) = Checkpoint::open(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            bytes: (fs::metadata(path).map_err(ReferenceError::io("read", path))?).len(),
            settings: checkpoint.settings(),
            shapes: checkpoint.shapes(),
            source: Source::Checkpoint(Box::new(checkpoint)),
            left_out,
        })
    }

    /// Returns the settings stored in the file.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns names and shapes of the network's tensors, by the reference's names.
    pub fn shapes(&self) -> &[(String, Vec<usize>)] {
        &self.shapes
    }

    /// Returns the names of a teacher's tensors, which are not read.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Returns whether the file has averages in addition to the parameters.
    pub fn has_averages(&self) -> bool {
        matches!(&self.source, Source::Checkpoint(checkpoint) if checkpoint.has_averages())
    }

    /// Returns the role of the network.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Family`] if the file names another family of models, whose tensors may
    /// have the same names.
    pub fn kind(&self) -> Result<Kind, ReferenceError> {
        let two_time = (self.shapes.iter()).any(|(name, _)| name.starts_with(sizes::SECOND_TIME));
        match self.settings.algorithm.as_deref() {
            Some("fmlm_twomodel") if two_time => Ok(Kind::Residual),
            // The paper's first published model uses an older name.
            None | Some("flm" | "fmlm" | "fmlm_twomodel" | "fmlm_twostage" | "dos") => {
                Ok(if two_time { Kind::FlowMap } else { Kind::Flow })
            }
            Some(other) => Err(ReferenceError::Family {
                path: self.path.clone(),
                algorithm: other.to_owned(),
            }),
        }
    }

    /// Returns the configuration of the network.
    ///
    /// # Errors
    ///
    /// [`ReferenceError`] if the tensors do not form a network, or if a required size is neither in
    /// the file nor in `hints`.
    pub fn config(&self, hints: &Hints) -> Result<DitConfig, ReferenceError> {
        let kind = match hints.kind {
            Some(kind) => kind,
            None => self.kind()?,
        };
        let config = sizes::infer(&self.path, &self.shapes, &self.settings, hints, kind)?;
        config.validate().map_err(|source| ReferenceError::Sizes {
            path: self.path.clone(),
            source,
        })?;
        Ok(config)
    }

    /// Reads the network.
    ///
    /// # Errors
    ///
    /// [`ReferenceError`] if the file lacks the requested weights, or they are not exactly the
    /// network's parameters.
    pub fn load<B: Backend>(
        &self,
        weights: Weights,
        hints: &Hints,
        device: &B::Device,
    ) -> Result<(Dit<B>, DitConfig), ReferenceError> {
        let config = self.config(hints)?;
        self.check_size(&config)?;
        // All parameters are replaced, so the seed does not matter.
        let fresh = config
            .init::<B>(&mut ChaCha8Rng::seed_from_u64(0), device)
            .map_err(|source| ReferenceError::Sizes {
                path: self.path.clone(),
                source,
            })?;
        self.check_shapes(&fresh)?;
        let mut tensors = match (&self.source, weights) {
            (Source::Checkpoint(checkpoint), weights) => checkpoint.tensors(weights)?,
            (Source::Tensors(tensors), Weights::Averaged) => tensors.clone(),
            (Source::Tensors(_), Weights::Live) => {
                return Err(ReferenceError::OneSet {
                    path: self.path.clone(),
                });
            }
        };
        sizes::check_rotary(&self.path, &mut tensors, &config)?;
        Ok((apply_tensors(fresh, &self.path, tensors)?, config))
    }

    /// Rejects a network far larger than the file before allocating it.
    fn check_size(&self, config: &DitConfig) -> Result<(), ReferenceError> {
        let described = config.parameter_count();
        if described <= 8 * u128::from(self.bytes) {
            return Ok(());
        }
        Err(TensorError::Far {
            file: self.path.clone(),
            described,
            held: self.bytes,
        }
        .into())
    }

    /// Compares names and shapes with the network's before reading values, because any number of
    /// tensors can share one storage in a file.
    fn check_shapes<B: Backend>(&self, network: &Dit<B>) -> Result<(), ReferenceError> {
        let file = || self.path.clone();
        let mut found: BTreeMap<&str, &Vec<usize>> = BTreeMap::new();
        for (name, shape) in &self.shapes {
            if name != sizes::ROTARY && found.insert(name, shape).is_some() {
                let (file, name) = (file(), name.clone());
                return Err(TensorError::Repeated { file, name }.into());
            }
        }
        for (name, expected) in named_shapes(network) {
            let fault = match found.remove(name.as_str()) {
                Some(shape) if *shape == expected => continue,
                Some(shape) => TensorError::Shape {
                    file: file(),
                    name,
                    expected,
                    found: shape.clone(),
                },
                None => TensorError::Missing {
                    file: file(),
                    name,
                    expected,
                },
            };
            return Err(fault.into());
        }
        match found.pop_first() {
            Some((name, shape)) => Err(TensorError::Extra {
                file: file(),
                name: name.to_owned(),
                found: shape.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
