//! Backends to compute with, so that a program needs no other dependency: `Flex` on processors, `Wgpu` and `Cuda` on GPUs by the
//! features of these names, and `Autodiff`, which makes one of them take gradients.

pub use burn::backend::Autodiff;
pub use flm_ops::{Flex, FlexDevice};

#[cfg(feature = "cuda")]
pub use burn::backend::{Cuda, cuda::CudaDevice};
#[cfg(feature = "wgpu")]
pub use burn::backend::{Wgpu, wgpu::WgpuDevice};
