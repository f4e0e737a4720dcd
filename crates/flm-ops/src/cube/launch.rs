//! Launch configurations and shared parts of the kernels.

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// Units of a cube.
pub(super) const UNITS: usize = 256;

/// Largest number of cubes along one axis; WGPU allows at most 65,535.
const ALONG: usize = 32_768;

/// Returns at least `count` cubes.
pub(super) fn cubes(count: usize) -> CubeCount {
    let along = count.clamp(1, ALONG);
    CubeCount::Static(along as u32, count.div_ceil(along).max(1) as u32, 1)
}

/// Returns cubes with a unit for each of `count` items.
pub(super) fn cubes_for(count: usize) -> CubeCount {
    cubes(count.div_ceil(UNITS))
}

pub(super) fn units() -> CubeDim {
    CubeDim {
        x: UNITS as u32,
        y: 1,
        z: 1,
    }
}

/// Returns the tensor's entries as a kernel argument.
pub(super) fn array<R: CubeRuntime>(x: &CubeTensor<R>) -> ArrayArg<R> {
    x.clone().into_array_arg()
}

pub(super) fn contiguous<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(x)
}

/// Allocates a tensor on the device of `like`, without gaps between its rows.
pub(super) fn empty<R: CubeRuntime, const D: usize>(
    like: &CubeTensor<R>,
    dims: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    shaped(like, Shape::from(dims.to_vec()), dtype)
}

/// Allocates a tensor of the shape of `like`, without gaps between its rows.
pub(super) fn empty_like<R: CubeRuntime>(like: &CubeTensor<R>, dtype: DType) -> CubeTensor<R> {
    shaped(like, like.meta.shape().clone(), dtype)
}

fn shaped<R: CubeRuntime>(like: &CubeTensor<R>, shape: Shape, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// Returns the tensor's dimensions.
pub(super) fn dims<R: CubeRuntime, const D: usize>(x: &CubeTensor<R>) -> [usize; D] {
    std::array::from_fn(|i| x.meta.shape()[i])
}

/// Returns tensors of one shape with the same layout, so that a kernel can run over their memory,
/// including gaps between rows.
pub(super) fn alike<R: CubeRuntime, const N: usize>(
    tensors: [CubeTensor<R>; N],
) -> [CubeTensor<R>; N] {
    let strides = tensors[0].meta.strides();
    let in_order = strides.windows(2).all(|pair| pair[0] >= pair[1]) && strides.last() == Some(&1);
    if in_order && tensors.iter().all(|x| x.meta.strides() == strides) {
        tensors
    } else {
        tensors.map(contiguous)
    }
}

/// Returns how many numbers a tensor's memory spans, including gaps between rows.
pub(super) fn span<R: CubeRuntime>(x: &CubeTensor<R>) -> usize {
    let last = std::iter::zip(x.meta.shape().iter(), x.meta.strides().iter());
    1 + last
        .map(|(count, stride)| (count - 1) * stride)
        .sum::<usize>()
}

/// Returns the numbers that a tensor's memory spans as a kernel argument.
pub(super) fn spanned<R: CubeRuntime>(x: &CubeTensor<R>) -> ArrayArg<R> {
    CubeTensor::new_contiguous(
        x.client.clone(),
        x.device.clone(),
        Shape::from(vec![span(x)]),
        x.handle.clone(),
        x.dtype,
    )
    .into_array_arg()
}

/// Returns the tensor if it is not shared, or else a copy with the same layout, for a kernel to
/// write into.
pub(super) fn owned<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    if x.can_mut() { x } else { x.copy() }
}

/// The operation that reduces two values to one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Fold {
    Sum,
    Largest,
}

/// Reduces the values of a cube's units; every unit gets the result.
#[cube]
fn folded(value: f32, #[comptime] fold: Fold) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS));
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            let (a, b) = (shared[unit], shared[unit + half]);
            shared[unit] = match comptime!(fold) {
                Fold::Sum => a + b,
                Fold::Largest => max(a, b),
            };
        }
        sync_cube();
        half /= 2;
    }
    let found = shared[0];
    sync_cube();
    found
}

/// Σ over a cube's units; every unit gets the result.
#[cube]
pub(super) fn total(value: f32) -> f32 {
    folded(value, Fold::Sum)
}

/// The maximum over a cube's units; every unit gets the result.
#[cube]
pub(super) fn largest(value: f32) -> f32 {
    folded(value, Fold::Largest)
}
