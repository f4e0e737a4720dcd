//! Loads tensors by name from one or several safetensors files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData, bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::JudgeError;

/// The weight file of an unsharded model.
const WHOLE: &str = "model.safetensors";
/// The index of the weight files of a sharded model.
const INDEX: &str = "model.safetensors.index.json";

/// Tensors by name, each with its shape (outermost dimension first) and values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(super) struct Weights {
    folder: PathBuf,
    tensors: Tensors,
    hash: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Wraps tensors that were read from a file with this hash.
    pub(super) fn new(path: &Path, tensors: Tensors, hash: String) -> Self {
        Self {
            folder: path.to_path_buf(),
            tensors,
            hash,
        }
    }

    /// Reads all tensors of a folder except those to `skip`. Strips `prefix` from their names.
    pub(super) fn read(
        folder: &Path,
        prefix: &str,
        skip: impl Fn(&str) -> bool,
    ) -> Result<Self, JudgeError> {
        let mut hash = Sha256::new();
        let mut tensors = BTreeMap::new();
        for file in files(folder)? {
            let path = folder.join(file);
            let bytes = fs::read(&path).map_err(JudgeError::io(&path))?;
            hash.update(&bytes);
            let file = SafeTensors::deserialize(&bytes).map_err(|error| JudgeError::Corrupt {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            for (name, view) in file.iter() {
                let plain = name.strip_prefix(prefix).unwrap_or(name);
                if skip(plain) {
                    continue;
                }
                let fault = |reason: String| JudgeError::Tensor {
                    path: path.clone(),
                    name: name.to_owned(),
                    reason,
                };
                let values = floats(view.dtype(), view.data()).ok_or_else(|| {
                    fault(format!(
                        "has type {}, expected F32, F16 or BF16",
                        view.dtype()
                    ))
                })?;
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    return Err(fault(format!("holds {value}; every value must be finite")));
                }
                if tensors
                    .insert(plain.to_owned(), (view.shape().to_vec(), values))
                    .is_some()
                {
                    return Err(fault("occurs twice".to_owned()));
                }
            }
        }
        Ok(Self::new(folder, tensors, hex(hash)))
    }

    /// Removes the output head that some files contain in addition to the tied token embedding. The
    /// two must be equal.
    pub(super) fn untie(&mut self, head: &str, embedding: &str) -> Result<(), JudgeError> {
        match self.tensors.remove(head) {
            Some(found) if self.tensors.get(embedding) != Some(&found) => Err(self.fault(
                head,
                format!("differs from {embedding}, which it is tied to"),
            )),
            _ => Ok(()),
        }
    }

    /// Removes and returns a tensor, which must have this shape.
    pub(super) fn take<B: Backend, const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        device: &B::Device,
    ) -> Result<Tensor<B, D>, JudgeError> {
        let Some((found, values)) = self.tensors.remove(name) else {
            return Err(self.fault(name, format!("of shape {shape:?} is missing")));
        };
        if found != shape {
            return Err(self.fault(name, format!("must have shape {shape:?}, found {found:?}")));
        }
        let data = TensorData::new(values, shape);
        Ok(Tensor::from_data(data, (device, DType::F32)))
    }

    /// Checks that no tensor is left.
    pub(super) fn finish(&self, whole: &str) -> Result<(), JudgeError> {
        match self.tensors.first_key_value() {
            Some((name, (shape, _))) => Err(self.fault(
                name,
                format!("of shape {shape:?} does not belong to this {whole} model"),
            )),
            None => Ok(()),
        }
    }

    /// Returns the SHA-256 of the files.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn fault(&self, name: &str, reason: String) -> JudgeError {
        JudgeError::Tensor {
            path: self.folder.clone(),
            name: name.to_owned(),
            reason,
        }
    }
}

/// Returns the names of the weight files in sorted order.
fn files(folder: &Path) -> Result<BTreeSet<String>, JudgeError> {
    let index = folder.join(INDEX);
    if folder.join(WHOLE).is_file() || !index.is_file() {
        return Ok(BTreeSet::from([WHOLE.to_owned()]));
    }
    let text = fs::read_to_string(&index).map_err(JudgeError::io(&index))?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|source| JudgeError::Config {
            path: index.clone(),
            source,
        })?;
    let files: BTreeSet<String> = weight_map.into_values().collect();
    match files.iter().find(|name| name.contains(['/', '\\'])) {
        Some(name) => Err(JudgeError::Setting {
            path: index,
            key: "weight_map".to_owned(),
            expected: "names of files in the same folder",
            found: name.clone(),
        }),
        None => Ok(files),
    }
}

/// Formats a hash in hexadecimal.
pub(super) fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    Some(match dtype {
        Dtype::F32 => (bytes.as_chunks::<4>().0.iter())
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
        Dtype::F16 => halves()
            .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
            .collect(),
        Dtype::BF16 => halves()
            .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
            .collect(),
        _ => return None,
    })
}
