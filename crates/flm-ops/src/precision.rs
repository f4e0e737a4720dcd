//! The number formats of matrix products.

use burn::tensor::{DType, FloatDType, Tensor, backend::Backend};
use std::fmt;
use std::str::FromStr;

/// The number format of a network's matrix products. Everything between the products, and every
/// parameter, is f32 in either case.
///
/// The factors of a product are rounded, and so is its result. The sums inside it have the
/// backend's own precision, at least f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32. A backend may still use fewer digits in such products: CUDA uses a mantissa of 10 bits
    /// (TF32).
    #[default]
    F32,
    /// bf16, with a mantissa of 7 bits. It halves the memory of the products' results and uses
    /// tensor cores.
    Bf16,
}

impl Precision {
    /// Returns `x` as a factor of a product.
    pub fn narrow<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::F32 => x,
            Self::Bf16 => to(x, DType::BF16),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err("expected f32 or bf16".to_owned()),
        }
    }
}

/// Returns `x` in f32, if it has been narrowed.
pub fn widen<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match x.dtype() {
        DType::BF16 | DType::F16 => to(x, DType::F32),
        _ => x,
    }
}

/// Returns `x` with numbers of type `dtype`.
pub(crate) fn to<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if x.dtype() == dtype {
        x
    } else {
        x.cast(FloatDType::from(dtype))
    }
}
