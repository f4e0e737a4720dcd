//! A gated residual: x + gate·branch, with one gate for each sequence.

use super::buffer::{contiguous, dims, tensor, values};
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// `x` and `branch` `[batch, length, width]`, `gate` `[batch, 1, width]`.
pub(crate) fn forward(x: FlexTensor, branch: &FlexTensor, gate: &FlexTensor) -> FlexTensor {
    let [batch, length, width] = dims(&x);
    let x = contiguous(x);
    let (x, branch, gate) = (values(&x), values(branch), values(gate));
    let block = length * width;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(block).enumerate().for_each(|(b, out)| {
        let gate = &gate[b * width..(b + 1) * width];
        let rows = b * block..(b + 1) * block;
        let rows = x[rows.clone()]
            .chunks_exact(width)
            .zip(branch[rows].chunks_exact(width));
        for (out, (x, branch)) in out.chunks_exact_mut(width).zip(rows) {
            for (((out, x), branch), gate) in out.iter_mut().zip(x).zip(branch).zip(gate) {
                *out = x + gate * branch;
            }
        }
    });
    tensor(out, [batch, length, width])
}

/// Gradients with respect to branch and gate; that of x is the upstream gradient itself.
pub(crate) fn backward(
    branch: &FlexTensor,
    gate: &FlexTensor,
    grad: &FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let [batch, length, width] = dims(branch);
    let (branch, gate, grad) = (values(branch), values(gate), values(grad));
    let block = length * width;
    let mut dbranch = vec![0.0; branch.len()];
    let mut dgate = vec![0.0; batch * width];
    dbranch
        .par_chunks_mut(block)
        .zip(dgate.par_chunks_mut(width))
        .enumerate()
        .for_each(|(b, (dbranch, dgate))| {
            let gate = &gate[b * width..(b + 1) * width];
            let rows = b * block..(b + 1) * block;
            let rows = grad[rows.clone()]
                .chunks_exact(width)
                .zip(branch[rows].chunks_exact(width));
            for (dbranch, (grad, branch)) in dbranch.chunks_exact_mut(width).zip(rows) {
                let inputs = grad.iter().zip(branch).zip(gate);
                for ((dbranch, dgate), ((grad, branch), gate)) in
                    dbranch.iter_mut().zip(dgate.iter_mut()).zip(inputs)
                {
                    *dbranch = gate * grad;
                    *dgate += branch * grad;
                }
            }
        });
    (
        tensor(dbranch, [batch, length, width]),
        tensor(dgate, [batch, 1, width]),
    )
}
