//! Every operation as a composition of burn's operations, for backends without native kernels and
//! as the reference in tests.

use crate::cube;
use crate::precision::{to, widen};
use crate::{AdamW, Attention, CappedLoss, Mask, Modulated, Noisy, Rope, SoftRows, Target};
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::module::embedding;
use burn::tensor::{Bool, IndexingUpdateOp, Int, Tensor};

pub(crate) fn rows<B: Backend>(matrix: Tensor<B, 2>, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    embedding(matrix, ids)
}

pub(crate) fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let (dtype, x) = (x.dtype(), widen(x));
    let slope = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let square = x.clone() * x.clone();
    let argument = square.mul_scalar(0.044715 * slope).add_scalar(slope) * x.clone();
    to(x * sigmoid(argument), dtype)
}

pub(crate) fn norm_modulate<B: Backend>(input: Modulated<B>) -> Tensor<B, 3> {
    let Modulated {
        x,
        weight,
        shift,
        scale,
        epsilon,
    } = input;
    let centred = x.clone() - x.mean_dim(2);
    let variance = (centred.clone() * centred.clone()).mean_dim(2);
    let normal = centred / variance.add_scalar(epsilon).sqrt();
    normal * (weight.unsqueeze::<3>() * scale.add_scalar(1.0)) + shift
}

pub(crate) fn attention<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    attention: Attention,
) -> Tensor<B, 3> {
    mixed(heads(qkv, rope, attention), attention)
}

/// Returns rotated queries and rotated keys, in f32, and values, each
/// `[batch, heads, length, head_width]`.
pub(crate) fn heads<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    attention: Attention,
) -> [Tensor<B, 4>; 3] {
    let ([batch, length, triple], heads) = (qkv.dims(), attention.heads);
    let qkv = qkv.reshape([batch, length, 3 * heads, triple / 3 / heads]);
    let turned = rope
        .turn(widen(qkv.clone().narrow(2, 0, 2 * heads)))
        .swap_dims(1, 2);
    [
        turned.clone().narrow(1, 0, heads),
        turned.narrow(1, heads, heads),
        qkv.narrow(2, 2 * heads, heads).swap_dims(1, 2),
    ]
}

/// Returns the mixed values of the keys that each query sees, `[batch, queries, width]`. The
/// products have the values' precision.
pub(crate) fn mixed<B: Backend>(
    [query, key, value]: [Tensor<B, 4>; 3],
    attention: Attention,
) -> Tensor<B, 3> {
    let ([batch, heads, queries, head_width], dtype) = (query.dims(), value.dtype());
    let softcap = attention.softcap;
    // c·tanh(q·k/(c·√head_width)): the scale is applied to the query, which is smaller than the
    // scores.
    let query = query.mul_scalar(1.0 / ((head_width as f64).sqrt() * softcap));
    let products = widen(cube::matmul(
        to(query, dtype),
        to(key, dtype).swap_dims(2, 3),
    ));
    let scores = unseen(products.tanh().mul_scalar(softcap), attention);
    let mixed = cube::matmul(to(softmax(scores, 3), dtype), value);
    mixed
        .swap_dims(1, 2)
        .reshape([batch, queries, heads * head_width])
}

/// A score that a softmax turns into zero. It is not −∞, which some devices lack.
const UNSEEN: f32 = -1e30;

/// Masks the scores `[batch, heads, queries, keys]` of later keys if the attention is causal. The
/// queries are the last ones among the keys.
pub(crate) fn unseen<B: Backend>(scores: Tensor<B, 4>, attention: Attention) -> Tensor<B, 4> {
    if !attention.causal {
        return scores;
    }
    let ([_, _, queries, keys], device) = (scores.dims(), scores.device());
    let later = Tensor::<B, 2, Bool>::tril_mask([queries, keys], (keys - queries) as i64, &device);
    scores.mask_fill(later.unsqueeze(), UNSEEN)
}

pub(crate) fn linear<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    let ([batch, length, inputs], [_, outputs]) = (x.dims(), weight.dims());
    let dtype = x.dtype();
    let y = cube::matmul(x.reshape([batch * length, inputs]), to(weight, dtype));
    let y = y.reshape([batch, length, outputs]);
    match bias {
        // A copy per sequence, so that its gradient is summed in two steps: see `column_sums`.
        Some(bias) => y + to(bias.expand([batch, 1, outputs]), dtype),
        None => y,
    }
}

/// Σ over the rows of `[rows, columns]`, `[columns]`.
///
/// A GPU gives each sum to one thread, so a few long sums leave most of it idle. The rows are
/// therefore first summed in about √rows groups.
fn column_sums<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 1> {
    let [rows, columns] = x.dims();
    let groups = rows.isqrt().max(1);
    let (each, left) = (rows / groups, rows % groups);
    let grouped = x.clone().narrow(0, 0, groups * each);
    let sums = grouped.reshape([groups, each, columns]).sum_dim(1);
    let sum = sums.sum_dim(0).reshape([columns]);
    if left == 0 {
        return sum;
    }
    sum + x.narrow(0, groups * each, left).sum_dim(0).squeeze_dim(0)
}

#[cfg(not(feature = "cube"))]
pub(crate) fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    a.matmul(b)
}

pub(crate) fn product<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = a.dtype();
    widen(cube::matmul(a, to(b, dtype)))
}

pub(crate) fn gated_residual<B: Backend>(
    x: Tensor<B, 3>,
    branch: Tensor<B, 3>,
    gate: Tensor<B, 3>,
    mask: Option<Mask>,
) -> Tensor<B, 3> {
    let branch = widen(branch);
    let branch = match mask {
        Some(mask) => branch.clone() * mask.dense(branch.dims(), &branch.device()),
        None => branch,
    };
    x + branch * gate
}

/// tanh((product + bias)/cap).
fn squashed<B: Backend>(product: Tensor<B, 2>, bias: Tensor<B, 1>, cap: f64) -> Tensor<B, 2> {
    (product + bias.unsqueeze_dim(0))
        .mul_scalar(1.0 / cap)
        .tanh()
}

pub(crate) fn capped_softmax<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    cap: f64,
    temperature: f64,
) -> Tensor<B, 2> {
    softmax(
        squashed(product, bias, cap).mul_scalar(cap / temperature),
        1,
    )
}

pub(crate) fn capped_loss<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    cap: f64,
) -> Tensor<B, 1> {
    let log_probs = log_softmax(squashed(product, bias, cap).mul_scalar(cap), 1);
    match target {
        Target::Tokens(ids) => log_probs.gather(1, ids.unsqueeze_dim(1)).neg(),
        Target::Distributions(p) => (log_probs * p).sum_dim(1).neg(),
        Target::Points(q) => (log_probs.exp() - q).square().sum_dim(1),
    }
    .squeeze_dim::<1>(1)
}

pub(crate) fn capped_loss_gradient<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    weights: Tensor<B, 1>,
    cap: f64,
) -> CappedLoss<B> {
    let t = squashed(product, bias, cap);
    let log_probs = log_softmax(t.clone().mul_scalar(cap), 1);
    // Σ target·(mass·softmax − target), whatever the target's mass.
    let (loss, to_capped) = match target {
        Target::Tokens(ids) => {
            let ids = ids.unsqueeze_dim::<2>(1);
            let minus_one = log_probs.clone().narrow(1, 0, 1).ones_like().neg();
            let to_capped =
                log_probs
                    .clone()
                    .exp()
                    .scatter(1, ids.clone(), minus_one, IndexingUpdateOp::Add);
            (log_probs.gather(1, ids).neg(), to_capped)
        }
        Target::Distributions(p) => {
            let mass = p.clone().sum_dim(1);
            let to_capped = log_probs.clone().exp() * mass - p.clone();
            ((log_probs * p).sum_dim(1).neg(), to_capped)
        }
        Target::Points(q) => {
            let p = log_probs.exp();
            let error = p.clone() - q;
            let mean = (p.clone() * error.clone()).sum_dim(1);
            let to_capped = (p * (error.clone() - mean)).mul_scalar(2.0);
            (error.square().sum_dim(1), to_capped)
        }
    };
    let slope = (t.clone() * t).neg().add_scalar(1.0);
    let gradient = to_capped * slope * weights.unsqueeze_dim(1);
    CappedLoss {
        loss: loss.squeeze_dim::<1>(1),
        bias: column_sums(gradient.clone()),
        product: gradient,
    }
}

pub(crate) fn attach_gradients<A: AutodiffBackend, const N: usize>(
    value: Tensor<A::InnerBackend, 1>,
    inputs: [(Tensor<A, 1>, Tensor<A::InnerBackend, 1>); N],
) -> Tensor<A, 1> {
    inputs
        .into_iter()
        .fold(Tensor::from_inner(value), |total, (input, gradient)| {
            // Zero, with the gradient of the product.
            let product = (input.clone() - input.detach()) * Tensor::from_inner(gradient);
            total + product.sum()
        })
}

pub(crate) fn cholesky<B: Backend>(matrix: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
    crate::cholesky::on_host(matrix)
}

pub(crate) fn soft_rows<B: Backend>(input: SoftRows<B>) -> Tensor<B, 2> {
    input.value()
}

pub(crate) fn noisy_rows<A: AutodiffBackend>(input: Noisy<A>) -> Tensor<A, 2> {
    let plain = input.matrix.clone().inner();
    let basis = Tensor::from_inner(cube::matmul(plain, input.inverse));
    let noise = cube::matmul(
        Tensor::from_inner(input.z),
        cube::matmul(basis.transpose(), input.matrix.clone()),
    );
    let rows = input.matrix.select(0, Tensor::from_inner(input.ids));
    let t = Tensor::from_inner(input.t.unsqueeze_dim::<2>(1));
    noise * t.clone().neg().add_scalar(1.0) + rows * t
}

pub(crate) fn adamw<B: Backend, const D: usize>(
    rule: &AdamW,
    param: Tensor<B, D>,
    grad: Tensor<B, D>,
    first: Tensor<B, D>,
    second: Tensor<B, D>,
) -> [Tensor<B, D>; 3] {
    let time = rule.time as f64;
    let first = first.mul_scalar(rule.beta1) + grad.clone().mul_scalar(1.0 - rule.beta1);
    let square = grad.clone() * grad;
    let second = second.mul_scalar(rule.beta2) + square.mul_scalar(1.0 - rule.beta2);
    let root = second
        .clone()
        .sqrt()
        .mul_scalar(1.0 / (1.0 - rule.beta2.powf(time)).sqrt())
        .add_scalar(rule.epsilon);
    let step = (first.clone() / root).mul_scalar(rule.lr / (1.0 - rule.beta1.powf(time)));
    let param = param.mul_scalar(1.0 - rule.lr * rule.weight_decay) - step;
    [param, first, second]
}

pub(crate) fn blend<B: Backend, const D: usize>(
    average: Tensor<B, D>,
    live: Tensor<B, D>,
    decay: f64,
) -> Tensor<B, D> {
    average.mul_scalar(decay) + live.mul_scalar(1.0 - decay)
}

pub(crate) fn sum_of_squares<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 1> {
    (x.clone() * x).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;

    #[test]
    fn every_row_is_in_the_sum_of_its_column_once() {
        for rows in [1, 2, 3, 4, 5, 16, 24, 97] {
            let [count, columns] = [rows * 3, 3];
            let values: Vec<f32> = (0..count).map(|i| (i * i % 13) as f32).collect();
            let x = Tensor::<Flex, 1>::from_floats(values.as_slice(), &Default::default());
            let found: Vec<f32> = column_sums(x.reshape([rows, columns]))
                .into_data()
                .to_vec()
                .unwrap();
            let expected: Vec<f32> = (0..columns)
                .map(|column| values.iter().skip(column).step_by(columns).sum())
                .collect();
            assert_eq!(found, expected, "{rows} rows");
        }
    }
}
