//! The numbers that matrix products are made of.

use burn::tensor::{DType, FloatDType, Tensor, backend::Backend};
use std::fmt;
use std::str::FromStr;

/// What matrix products of a network are made of. Everything between them, and every parameter, is f32 in either case.
///
/// A product's factors are rounded, and so is its result; sums inside it are a backend's own and at least f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32. A backend may still make such products of fewer digits: CUDA of 10 bits behind the point (TF32).
    #[default]
    F32,
    /// bf16, of 7 bits behind the point: half the memory of what products leave behind, and made by tensor cores.
    Bf16,
}

impl Precision {
    /// `x` as a factor of a product.
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

/// `x` in f32, if it has been narrowed.
pub fn widen<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match x.dtype() {
        DType::BF16 | DType::F16 => to(x, DType::F32),
        _ => x,
    }
}

/// `x` in numbers of this kind.
pub(crate) fn to<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if x.dtype() == dtype {
        x
    } else {
        x.cast(FloatDType::from(dtype))
    }
}
