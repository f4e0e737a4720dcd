//! Finds the native kernels of a backend, if any.
//!
//! The operations are generic over every burn backend, without an extra trait bound for callers. A
//! tensor of a backend with kernels is recognized by its type and passed, unchanged, to the kernel.

use burn::backend::Autodiff;
use burn::tensor::{DType, Tensor, TensorKind, backend::Backend};
use burn_flex::Flex;
use std::any::{Any, TypeId};

/// The CPU backend with autodiff, whose kernels have their own backward rules.
pub(crate) type AutodiffFlex = Autodiff<Flex>;

/// Where an operation runs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Route {
    /// The CPU backend's kernels.
    Flex,
    /// The CPU backend's kernels, with their backward rules.
    AutodiffFlex,
    /// A composition of burn's operations.
    Composed,
}

/// Returns the route for tensors of backend `B` and type `dtype`.
pub(crate) fn route<B: Backend>(dtype: DType) -> Route {
    if dtype != DType::F32 {
        Route::Composed
    } else if TypeId::of::<B>() == TypeId::of::<Flex>() {
        Route::Flex
    } else if TypeId::of::<B>() == TypeId::of::<AutodiffFlex>() {
        Route::AutodiffFlex
    } else {
        Route::Composed
    }
}

/// Returns whether tensors of `B` live in the host's memory and this crate has kernels for them.
///
/// For other backends transfers from the host are slow, so data should be drawn or computed on the
/// device if possible.
pub fn on_host<B: Backend>() -> bool {
    route::<B>(DType::F32) != Route::Composed
}

/// Converts a tensor between two names of the same backend.
///
/// Panics if the backends differ; callers check with [`route`] first.
pub(crate) fn same<A: Backend, B: Backend, const D: usize, K>(
    tensor: Tensor<A, D, K>,
) -> Tensor<B, D, K>
where
    K: TensorKind<A> + TensorKind<B> + 'static,
    Tensor<A, D, K>: 'static,
    Tensor<B, D, K>: 'static,
{
    let mut slot = Some(tensor);
    let slot: &mut dyn Any = &mut slot;
    slot.downcast_mut::<Option<Tensor<B, D, K>>>()
        .and_then(Option::take)
        .expect("a route is only taken for tensors of its backend")
}
