//! The soft-capped cross-entropy of a vocabulary head against tokens, with its gradient.

use super::launch::{contiguous, cubes, dims, empty, owned, total, units};
use super::{launch::array, sums::by_rows};
use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// One cube per row: computes its loss, and the gradient of `weight`·loss in place of the row.
///
/// e^(logit − cap) is summed without a pass for the maximum, so the cap must be small.
#[cube(launch)]
fn loss_kernel<I: Int>(
    product: &mut Tensor<f32>,
    bias: &Array<f32>,
    ids: &Array<I>,
    weights: &Array<f32>,
    loss: &mut Array<f32>,
    vocab: usize,
    cap: f32,
    #[comptime] gradient: bool,
    #[define(I)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < loss.len() {
        let first = row * product.stride(0);
        let unit = UNIT_POS as usize;
        let inverse_cap = 1.0 / cap;
        let id = usize::cast_from(ids[row]);
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < vocab {
            let t = ((product[first + i] + bias[i]) * inverse_cap).tanh();
            sum += (t * cap - cap).exp();
            i += CUBE_DIM as usize;
        }
        let sum = total(sum);
        if unit == 0 {
            let t = ((product[first + id] + bias[id]) * inverse_cap).tanh();
            loss[row] = sum.ln() + cap - t * cap;
        }
        if comptime!(gradient) {
            sync_cube();
            let weight = weights[row];
            let inverse = 1.0 / sum;
            let mut i = unit;
            while i < vocab {
                let t = ((product[first + i] + bias[i]) * inverse_cap).tanh();
                let mut to_logit = (t * cap - cap).exp() * inverse;
                if i == id {
                    to_logit -= 1.0;
                }
                product[first + i] = to_logit * (1.0 - t * t) * weight;
                i += CUBE_DIM as usize;
            }
        }
    }
}

/// Returns the loss of each row, `[rows]`, and, if there are weights, the gradient to the product,
/// in place if the product is not shared.
pub(super) fn of_tokens<R: CubeRuntime>(
    product: CubeTensor<R>,
    bias: CubeTensor<R>,
    ids: CubeTensor<R>,
    weights: Option<CubeTensor<R>>,
    cap: f32,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let [rows, vocab] = dims(&product);
    let product = by_rows(product);
    let gradient = weights.is_some();
    let product = if gradient { owned(product) } else { product };
    let (bias, ids) = (contiguous(bias), contiguous(ids));
    let loss = empty(&product, [rows], DType::F32);
    let weights = weights.map_or_else(|| bias.clone(), contiguous);
    loss_kernel::launch::<R>(
        &product.client,
        cubes(rows),
        units(),
        product.clone().into_tensor_arg(),
        array(&bias),
        array(&ids),
        array(&weights),
        array(&loss),
        vocab,
        cap,
        gradient,
        ids.dtype.into(),
    );
    (loss, product)
}
