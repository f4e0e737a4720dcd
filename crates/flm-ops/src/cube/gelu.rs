//! GELU in its tanh form, of f32 or bf16, computed in f32.

use super::launch::{array, contiguous, cubes_for, empty_like, units};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// sigmoid(x·(s + c·x²)) with s = 2·√(2/π) and c = 0.044715·s. e^80 is still finite in f32.
#[cube]
fn gate(x: f32) -> f32 {
    1.0 / (1.0 + min(-x * (1.595_769 + 0.071_354_814 * x * x), 80.0).exp())
}

#[cube(launch)]
fn forward_kernel<F: Float>(x: &Array<F>, out: &mut Array<F>, #[define(F)] _dtype: StorageType) {
    if ABSOLUTE_POS < out.len() {
        let x = f32::cast_from(x[ABSOLUTE_POS]);
        out[ABSOLUTE_POS] = F::cast_from(x * gate(x));
    }
}

#[cube(launch)]
fn backward_kernel<F: Float>(
    x: &Array<F>,
    grad: &Array<F>,
    out: &mut Array<F>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let x = f32::cast_from(x[ABSOLUTE_POS]);
        let s = gate(x);
        let inner = 1.595_769 + 0.214_064_45 * x * x;
        let slope = s + x * s * (1.0 - s) * inner;
        out[ABSOLUTE_POS] = F::cast_from(f32::cast_from(grad[ABSOLUTE_POS]) * slope);
    }
}

pub(super) fn forward<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = contiguous(x);
    let out = empty_like(&x, x.dtype);
    forward_kernel::launch::<R>(
        &x.client,
        cubes_for(x.meta.num_elements()),
        units(),
        array(&x),
        array(&out),
        x.dtype.into(),
    );
    out
}

pub(super) fn backward<R: CubeRuntime>(x: CubeTensor<R>, grad: CubeTensor<R>) -> CubeTensor<R> {
    let (x, grad) = (contiguous(x), contiguous(grad));
    let out = empty_like(&x, x.dtype);
    backward_kernel::launch::<R>(
        &x.client,
        cubes_for(x.meta.num_elements()),
        units(),
        array(&x),
        array(&grad),
        array(&out),
        x.dtype.into(),
    );
    out
}
