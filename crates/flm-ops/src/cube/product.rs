//! Matrix products with a fixed algorithm, instead of one found by autotuning.

use burn_cubecl::kernel::matmul::{init_matmul_output, matmul as any};
use burn_cubecl::ops::permute;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::features::Tma;
use cubecl::std::tensor::into_contiguous_pitched;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy::Inferred;
use cubek::std::InputBinding;

/// Products with fewer rows, columns or terms are too small for tiles.
const SMALLEST: usize = 32;

/// Alignment of rows in bytes that the GPU's hardware copy of tiles (TMA) requires.
const ALIGNED: usize = 16;

/// a·b over the last two dimensions, in the factors' number type; `a` and `b` may be transposed.
///
/// GPUs with hardware copies of tiles (TMA, from Hopper on) use an algorithm with separate units
/// for copies and for products. Of 21 algorithms it was the fastest, or close to it, for every
/// product of a training step on an H200. On other devices, and for small products, burn chooses by
/// the device's features.
pub(super) fn matmul<R: CubeRuntime>(a: CubeTensor<R>, b: CubeTensor<R>) -> CubeTensor<R> {
    let dtype = a.dtype;
    let out = init_matmul_output(&a, &b, dtype);
    if large(&a, &b) && a.client.properties().features.tma.contains(Tma::Base) {
        let (a, b) = (aligned(a.clone()), aligned(b.clone()));
        if is_aligned(&a) && is_aligned(&b) {
            let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
                lhs: dtype.into(),
                rhs: dtype.into(),
                out: dtype.into(),
            });
            let launched = launch_ref(
                &Strategy::SpecializedTmaMma(Inferred(().into())),
                &out.client,
                InputBinding::new(a.binding(), dtype.into()),
                InputBinding::new(b.binding(), dtype.into()),
                out.clone().binding(),
                &mut elements,
            );
            if launched.is_ok() {
                return out;
            }
        }
    }
    any(a, b, Some(out), Default::default(), dtype).expect("an algorithm for every shape")
}

fn large<R: CubeRuntime>(a: &CubeTensor<R>, b: &CubeTensor<R>) -> bool {
    let last = |x: &CubeTensor<R>| {
        let shape = x.meta.shape();
        [shape[shape.num_dims() - 2], shape[shape.num_dims() - 1]]
    };
    let ([m, k], [_, n]) = (last(a), last(b));
    m.min(n).min(k) >= SMALLEST
}

/// Returns whether one of the last two dimensions has no gaps, and every row starts at a multiple
/// of [`ALIGNED`] bytes.
fn is_aligned<R: CubeRuntime>(x: &CubeTensor<R>) -> bool {
    let (strides, size) = (x.meta.strides(), x.dtype.size());
    let ones = strides[strides.len() - 2..]
        .iter()
        .filter(|&&s| s == 1)
        .count();
    ones == 1
        && strides
            .iter()
            .all(|&stride| stride == 1 || stride * size % ALIGNED == 0)
}

fn aligned<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    if is_aligned(&x) {
        return x;
    }
    let (client, device, dtype) = (x.client.clone(), x.device.clone(), x.dtype);
    let copy = into_contiguous_pitched(&client, x.binding(), dtype.into());
    CubeTensor::new(client, copy.handle, *copy.metadata, device, dtype)
}

/// Exchanges the last two dimensions.
pub(super) fn transposed<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let rank = x.meta.num_dims();
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    permute(x, &axes)
}
