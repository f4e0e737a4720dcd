//! Tensor files (`.safetensors`).

use crate::NamedTensor;
use burn::tensor::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// An error in a tensor file.
pub(crate) enum Fault {
    /// The file is truncated or not a safetensors file.
    Corrupt(String),
    /// A tensor has an unsupported type.
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
}

/// Reads the tensors of a file and widens 16-bit ones.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<NamedTensor>, Fault> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|error| Fault::Corrupt(error.to_string()))?;
    file.iter()
        .map(|(name, view)| {
            let values = match view.dtype() {
                // Our files contain none, and the error message lists the supported types.
                Dtype::F64 => None,
                dtype => widened(dtype, view.data()),
            };
            let values = values.ok_or_else(|| Fault::Type {
                name: name.to_owned(),
                found: view.dtype().to_string(),
            })?;
            Ok(NamedTensor {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                values,
            })
        })
        .collect()
}

/// Converts little-endian floating-point numbers to f32. Returns `None` for other types.
pub(crate) fn widened(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    Some(match dtype {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
        Dtype::F64 => (bytes.as_chunks::<8>().0.iter())
            .map(|bytes| f64::from_le_bytes(*bytes) as f32)
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

/// Writes tensors in f32.
pub(crate) fn write(path: &Path, tensors: &[NamedTensor]) -> io::Result<()> {
    // PyTorch's loaders read the layout convention from this key.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let named = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), F32View(tensor)));
    safetensors::serialize_to_file(named, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => source,
        other => io::Error::other(other),
    })
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
