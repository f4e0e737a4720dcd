//! Native kernels for the CPU backend: plain slices, vectorized, in parallel over rows.
//!
//! They run in the calling thread's pool. In a pool of one thread they are deterministic to the
//! bit, and no result depends on how rows are spread over tasks.

pub(crate) mod attention;
pub(crate) mod buffer;
pub(crate) mod gelu;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod noisy;
pub(crate) mod norm;
pub(crate) mod residual;
pub(crate) mod softmax;
pub(crate) mod update;
