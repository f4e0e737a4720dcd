//! GPT-2's tensors by name, out of one file or several.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData, bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Gpt2Config, Gpt2Error};

/// The one file of a smaller model.
const WHOLE: &str = "model.safetensors";
/// What lists the parts of a larger one.
const INDEX: &str = "model.safetensors.index.json";
/// Before the names of a model with a head.
const PREFIX: &str = "transformer.";

pub(super) struct Weights {
    folder: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    hash: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Reads all tensors of a folder.
    pub(super) fn read(folder: &Path, config: &Gpt2Config) -> Result<Self, Gpt2Error> {
        let mut hash = Sha256::new();
        let mut tensors = BTreeMap::new();
        for file in files(folder)? {
            let path = folder.join(file);
            let bytes = fs::read(&path).map_err(Gpt2Error::io(&path))?;
            hash.update(&bytes);
            let file = SafeTensors::deserialize(&bytes).map_err(|error| Gpt2Error::Corrupt {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            for (name, view) in file.iter() {
                let plain = name.strip_prefix(PREFIX).unwrap_or(name);
                if is_mask(plain) {
                    continue;
                }
                let fault = |reason: String| Gpt2Error::Tensor {
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
        let mut weights = Self {
            folder: folder.to_path_buf(),
            tensors,
            hash: hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        };
        weights.untie(config)?;
        Ok(weights)
    }

    /// Some files hold the head, which is the token embedding, besides.
    fn untie(&mut self, config: &Gpt2Config) -> Result<(), Gpt2Error> {
        let name = "lm_head.weight";
        match self.tensors.remove(name) {
            Some((shape, values))
                if shape != [config.vocab_size, config.n_embd]
                    || self
                        .tensors
                        .get("wte.weight")
                        .is_some_and(|wte| wte.1 != values) =>
            {
                Err(self.fault(
                    name,
                    "differs from wte.weight, which it is tied to".to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Takes a tensor, which must have this shape.
    pub(super) fn take<B: Backend, const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        device: &B::Device,
    ) -> Result<Tensor<B, D>, Gpt2Error> {
        let Some((found, values)) = self.tensors.remove(name) else {
            return Err(self.fault(name, format!("of shape {shape:?} is missing")));
        };
        if found != shape {
            return Err(self.fault(name, format!("must have shape {shape:?}, found {found:?}")));
        }
        let data = TensorData::new(values, shape);
        Ok(Tensor::from_data(data, (device, DType::F32)))
    }

    /// Checks that every tensor was taken.
    pub(super) fn finish(&self) -> Result<(), Gpt2Error> {
        match self.tensors.first_key_value() {
            Some((name, (shape, _))) => Err(self.fault(
                name,
                format!("of shape {shape:?} belongs to no part of this GPT-2"),
            )),
            None => Ok(()),
        }
    }

    /// SHA-256 of the files.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    fn fault(&self, name: &str, reason: String) -> Gpt2Error {
        Gpt2Error::Tensor {
            path: self.folder.clone(),
            name: name.to_owned(),
            reason,
        }
    }
}

/// Names of the files of tensors, in their order.
fn files(folder: &Path) -> Result<BTreeSet<String>, Gpt2Error> {
    let index = folder.join(INDEX);
    if folder.join(WHOLE).is_file() || !index.is_file() {
        return Ok(BTreeSet::from([WHOLE.to_owned()]));
    }
    let text = fs::read_to_string(&index).map_err(Gpt2Error::io(&index))?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(|source| Gpt2Error::Config {
        path: index.clone(),
        source,
    })?;
    let files: BTreeSet<String> = weight_map.into_values().collect();
    match files.iter().find(|name| name.contains(['/', '\\'])) {
        Some(name) => Err(Gpt2Error::Setting {
            path: index,
            key: "weight_map",
            expected: "names of files in the same folder",
            found: name.clone(),
        }),
        None => Ok(files),
    }
}

/// The causal mask, which old files hold as constants of every block.
fn is_mask(name: &str) -> bool {
    name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
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
