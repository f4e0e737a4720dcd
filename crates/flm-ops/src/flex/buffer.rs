//! Conversions between flex tensors and slices.

use burn::tensor::{Bytes, DType, Shape, TensorMetadata};
use burn_flex::{FlexTensor, Layout};

/// Values per task of the thread pool: some tens of microseconds of work, so that the cost of
/// scheduling is negligible.
const TASK_VALUES: usize = 16 * 1024;

/// Returns the tensor with its values in row order, without a copy if they already are.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Returns the values of a tensor in row order for writing: in place if the tensor is not shared,
/// otherwise in a copy.
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    *tensor = tensor.to_contiguous();
    tensor.storage_mut()
}

/// Returns the values of a contiguous f32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous f32 tensor")
}

/// Creates a tensor from values.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// Returns the dimensions of a tensor.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.shape().dims()
}

/// Returns the number of rows of `row` values per task.
pub(crate) fn rows_per_task(row: usize) -> usize {
    (TASK_VALUES / row.max(1)).max(1)
}
