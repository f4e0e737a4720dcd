//! Between flex tensors and slices.

use burn::tensor::{Bytes, DType, Shape, TensorMetadata};
use burn_flex::{FlexTensor, Layout};

/// Values handled by one task of the thread pool: some tens of microseconds of work, so that scheduling costs nothing.
const TASK_VALUES: usize = 16 * 1024;

/// The tensor with its values in row order; no copy when they already are.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The values of a tensor in row order, to be written over: in place if nobody else holds them, in a copy otherwise.
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    *tensor = tensor.to_contiguous();
    tensor.storage_mut()
}

/// The values of a contiguous f32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous f32 tensor")
}

/// A tensor of the given values.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// The sizes of a tensor.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.shape().dims()
}

/// Rows of `row` values that one task handles.
pub(crate) fn rows_per_task(row: usize) -> usize {
    (TASK_VALUES / row.max(1)).max(1)
}
