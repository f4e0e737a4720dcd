//! Safetensors files of pinned tensors.

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use flm_denoiser::DitConfig;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Returns the folder with the full fixtures: `FLM_SHARED`, or `../shared` beside the repository.
///
/// Prints a note to standard error if the fixtures are missing.
pub fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("FLM_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    if folder.join("parity/model").is_dir() {
        return Some(folder);
    }
    #[expect(
        clippy::print_stderr,
        reason = "a test that checks nothing must say so"
    )]
    {
        eprintln!(
            "skipped: {} does not exist",
            folder.join("parity/model").display()
        );
    }
    None
}

/// The sizes of the networks of the fixtures.
pub fn config(two_time: bool) -> DitConfig {
    DitConfig {
        cond_dim: 32,
        ..DitConfig::new(61, 16, 64, 2, 4)
    }
    .with_two_time(two_time)
}

/// A tensor of a fixture: element type, shape and bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pinned {
    /// The element type.
    pub dtype: Dtype,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The values in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

impl Pinned {
    /// Creates a tensor of f32 values.
    pub fn floats(shape: Vec<usize>, values: &[f32]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape,
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }
}

/// The tensors of a safetensors file by name.
#[derive(Clone, Debug, Default)]
pub struct Fixture(pub BTreeMap<String, Pinned>);

impl Fixture {
    /// Reads a file.
    ///
    /// # Panics
    ///
    /// If the file cannot be read or is not a safetensors file.
    pub fn open(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A message if the file cannot be read or is not a safetensors file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = std::fs::read(path).map_err(|error| fault(&error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| fault(&error))?;
        let pinned = |view: safetensors::tensor::TensorView<'_>| Pinned {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        Ok(Self(
            file.iter()
                .map(|(name, view)| (name.to_owned(), pinned(view)))
                .collect(),
        ))
    }

    /// Returns the tensors whose names begin with `prefix`, with the prefix removed.
    pub fn within(&self, prefix: &str) -> Self {
        let inside = self.0.iter().filter_map(|(name, pinned)| {
            Some((name.strip_prefix(prefix)?.to_owned(), pinned.clone()))
        });
        Self(inside.collect())
    }

    /// Returns a tensor as it is stored.
    ///
    /// # Panics
    ///
    /// If no tensor has this name.
    pub fn pinned(&self, name: &str) -> &Pinned {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no tensor {name} in the fixture"))
    }

    /// Returns the values of an f32 tensor in row-major order.
    ///
    /// # Panics
    ///
    /// If no tensor has this name and type.
    pub fn values(&self, name: &str) -> Vec<f32> {
        let pinned = self.pinned(name);
        assert_eq!(pinned.dtype, Dtype::F32, "{name}");
        pinned
            .bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    }

    /// Returns the values of an f64 tensor in row-major order.
    ///
    /// # Panics
    ///
    /// If no tensor has this name and type.
    pub fn doubles(&self, name: &str) -> Vec<f64> {
        let pinned = self.pinned(name);
        assert_eq!(pinned.dtype, Dtype::F64, "{name}");
        pinned
            .bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect()
    }

    /// Returns the values of an i64 tensor in row-major order.
    ///
    /// # Panics
    ///
    /// If no tensor has this name and type.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        let pinned = self.pinned(name);
        assert_eq!(pinned.dtype, Dtype::I64, "{name}");
        pinned
            .bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes))
            .collect()
    }

    /// Returns an f32 tensor.
    ///
    /// # Panics
    ///
    /// If no tensor has this name, type and rank.
    pub fn float<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D> {
        let data = TensorData::new(self.values(name), self.pinned(name).shape.clone());
        Tensor::from_data(data, (&B::Device::default(), DType::F32))
    }

    /// Returns an integer tensor.
    ///
    /// # Panics
    ///
    /// If no tensor has this name, type and rank.
    pub fn int<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D, Int> {
        let data = TensorData::new(self.integers(name), self.pinned(name).shape.clone());
        Tensor::from_data(data, &B::Device::default())
    }
}

/// Returns the largest difference relative to the largest expected value, max|a − b| / max|b|.
///
/// The error is not relative to each entry: many entries, most of a gradient's among them, are
/// small differences of large terms, known only to the rounding of those terms.
///
/// Returns infinity if the lengths differ, or if a value on either side is not finite.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    if found.len() != expected.len() || !finite(found) || !finite(expected) {
        return f64::INFINITY;
    }
    let largest = expected
        .iter()
        .fold(0.0_f64, |max, b| max.max(f64::from(b.abs())));
    let difference = found.iter().zip(expected).fold(0.0_f64, |max, (a, b)| {
        max.max((f64::from(*a) - f64::from(*b)).abs())
    });
    difference / largest
}

/// Returns the values of a tensor in row-major order.
pub fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Returns the values of an integer tensor in row-major order.
pub fn flat_int<B: Backend, const D: usize>(tensor: Tensor<B, D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}
