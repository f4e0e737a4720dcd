//! Finding the native kernel of a backend, where there is one.
//!
//! An operation here is generic over every burn backend, without a trait for callers to carry about. A tensor of one of
//! the backends that have kernels is recognized by its type and moved, unchanged, to the kernel.

use burn::backend::Autodiff;
use burn::tensor::{DType, Tensor, TensorKind, backend::Backend};
use burn_flex::Flex;
use std::any::{Any, TypeId};

/// The differentiated CPU backend that has kernels with backward rules of their own.
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

/// The route for tensors of backend `B` and type `dtype`.
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

/// Whether tensors of `B` live in the host's memory and this crate has kernels for them.
///
/// Elsewhere the host is far away: what can be drawn or made on the device should be.
pub fn on_host<B: Backend>() -> bool {
    route::<B>(DType::F32) != Route::Composed
}

/// Moves a tensor between two names of one backend.
///
/// Panics if the backends differ: [`route`] has been asked before.
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
