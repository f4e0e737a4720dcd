//! Re-exports of burn backends, so that a program needs no other dependency.
//!
//! `Flex` runs on CPUs. `Wgpu` and `Cuda` run on GPUs and need the features `wgpu` and `cuda`.
//! `Autodiff` wraps a backend to compute gradients.

pub use burn::backend::Autodiff;
pub use flm_ops::{Flex, FlexDevice};

#[cfg(feature = "cuda")]
pub use burn::backend::{Cuda, cuda::CudaDevice};
#[cfg(feature = "wgpu")]
pub use burn::backend::{Wgpu, wgpu::WgpuDevice};
