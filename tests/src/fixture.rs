//! Files of pinned tensors.

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use flm_denoiser::DitConfig;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder with the full fixtures, or nothing if there is none, which is then said.
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
            "skipped: {} is not there",
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

/// A tensor of a fixture: its type, sizes and bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pinned {
    /// Type of the values.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values in row order, little-endian.
    pub bytes: Vec<u8>,
}

impl Pinned {
    /// A pinned tensor of f32 values.
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
    /// If there is no such file or it is not of this kind.
    pub fn open(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A sentence, if there is no such file or it is not of this kind.
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

    /// The tensors whose names begin with `prefix`, without it.
    pub fn within(&self, prefix: &str) -> Self {
        let inside = self.0.iter().filter_map(|(name, pinned)| {
            Some((name.strip_prefix(prefix)?.to_owned(), pinned.clone()))
        });
        Self(inside.collect())
    }

    /// A tensor as it is stored.
    ///
    /// # Panics
    ///
    /// If there is none of this name.
    pub fn pinned(&self, name: &str) -> &Pinned {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no tensor {name} in the fixture"))
    }

    /// The values of an f32 tensor in row order.
    ///
    /// # Panics
    ///
    /// If there is none of this name and type.
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

    /// The values of an f64 tensor in row order.
    ///
    /// # Panics
    ///
    /// If there is none of this name and type.
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

    /// The values of an i64 tensor in row order.
    ///
    /// # Panics
    ///
    /// If there is none of this name and type.
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

    /// An f32 tensor.
    ///
    /// # Panics
    ///
    /// If there is none of this name, type and rank.
    pub fn float<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D> {
        let data = TensorData::new(self.values(name), self.pinned(name).shape.clone());
        Tensor::from_data(data, (&B::Device::default(), DType::F32))
    }

    /// An integer tensor.
    ///
    /// # Panics
    ///
    /// If there is none of this name, type and rank.
    pub fn int<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D, Int> {
        let data = TensorData::new(self.integers(name), self.pinned(name).shape.clone());
        Tensor::from_data(data, &B::Device::default())
    }
}

/// The largest difference relative to the largest expected value, max|a − b| / max|b|.
///
/// Not entry by entry: an entry that is a small difference of large terms, as most of a gradient's are, is only known to the
/// rounding of those terms.
///
/// Infinite if the numbers of values differ, or if a value on either side is not finite.
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

/// The values of a tensor in row order.
pub fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The values of an integer tensor in row order.
pub fn flat_int<B: Backend, const D: usize>(tensor: Tensor<B, D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}
