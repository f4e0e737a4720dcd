//! Operations, compared with the CPU kernels in f32.

use super::{Bounds, Operation, VOCAB, WIDTH, drawn, ids, line, products, single};
use crate::fixture::{flat, relative_error};
use crate::parity::Line;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn_flex::Flex;
use flm_denoiser::{Precision, Rope};
use flm_ops::{AdamW, Mask, Modulated, Target};

const ROWS: usize = 24;

fn flat2<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 2> {
    let last = x.dims()[D - 1];
    let rows = x.shape().num_elements() / last;
    flm_ops::widen(x.reshape([rows, last]))
}

fn modulated<B: Backend>() -> Modulated<B> {
    Modulated {
        x: drawn([2, ROWS, WIDTH], 1),
        weight: drawn([WIDTH], 2),
        shift: drawn([2, 1, WIDTH], 3),
        scale: drawn([2, 1, WIDTH], 4),
        epsilon: 1e-5,
    }
}

/// Attention with four heads.
fn attention<B: Backend>(
    precision: Precision,
    [length, width]: [usize; 2],
    causal: bool,
) -> Tensor<B, 2> {
    let rope = Rope::new(length, width / 4, 1e4, &Default::default());
    let qkv = precision.narrow(drawn([2, length, 3 * width], 6));
    let attention = flm_ops::Attention {
        heads: 4,
        softcap: 50.0,
        causal,
    };
    flat2(flm_ops::attention(qkv, &rope, attention))
}

/// A Gram matrix of half its full rank.
fn repeated<B: Backend>() -> Tensor<B, 2> {
    let half = drawn::<B, 2>([300, 40], 31);
    let x = Tensor::cat(vec![half.clone(), half], 1);
    x.clone().transpose().matmul(x)
}

fn list<B: Backend>() -> Vec<Operation<Tensor<B, 2>>> {
    vec![
        single("norm_modulate", || {
            flat2(flm_ops::norm_modulate(modulated()))
        }),
        products("gelu_tanh", |p| {
            flat2(flm_ops::gelu_tanh(
                p.narrow(drawn::<B, 2>([ROWS, WIDTH], 5)),
            ))
        }),
        products("attention", |p| attention(p, [ROWS, WIDTH], false)),
        products("attention with a causal mask", |p| {
            attention(p, [70, 128], true)
        }),
        products("linear", |p| {
            let x = p.narrow(drawn([2, ROWS, WIDTH], 7));
            flat2(flm_ops::linear(
                x,
                drawn([WIDTH, 90], 8),
                Some(drawn([90], 9)),
            ))
        }),
        single("norm_linear", || {
            flat2(flm_ops::norm_linear(
                modulated(),
                drawn([WIDTH, 90], 8),
                None,
            ))
        }),
        products("gelu_linear", |p| {
            let x = p.narrow(drawn([2, ROWS, WIDTH], 7));
            flat2(flm_ops::gelu_linear(
                x,
                drawn([WIDTH, 90], 8),
                drawn([90], 9),
            ))
        }),
        products("gated_residual, with a mask", |p| {
            let branch = p.narrow(drawn([2, ROWS, WIDTH], 10));
            let mask = Some(Mask::new(0.3, 0x1234_5678_9abc_def0));
            let (x, gate) = (drawn([2, ROWS, WIDTH], 11), drawn([2, 1, WIDTH], 12));
            flat2(flm_ops::gated_residual(x, branch, gate, mask))
        }),
        products("product", |p| {
            flm_ops::product(
                p.narrow(drawn([ROWS, WIDTH], 13)),
                drawn([WIDTH, VOCAB], 14),
            )
        }),
        // Large enough for tiles, in every layout, with row starts that are not aligned.
        products("product of tiles", |p| {
            flm_ops::product(p.narrow(drawn([200, 150], 27)), drawn([150, VOCAB], 28))
        }),
        products("product of tiles, the first transposed", |p| {
            let a = p.narrow(drawn([150, 200], 27)).transpose();
            flm_ops::product(a, drawn([150, VOCAB], 28))
        }),
        products("product of tiles, the second transposed", |p| {
            let b = drawn([VOCAB, 150], 28).transpose();
            flm_ops::product(p.narrow(drawn([200, 150], 27)), b)
        }),
        products("product of tiles, one for each head", |p| {
            let [a, b] = [29, 30].map(|seed| p.narrow(drawn::<B, 4>([2, 3, 70, 40], seed)));
            flat2(flm_ops::matmul(a, b.swap_dims(2, 3)))
        }),
        products("add_product", |p| {
            let sum = drawn([ROWS, VOCAB], 15);
            let a = p.narrow(drawn([ROWS, WIDTH], 13));
            flm_ops::add_product(sum, a, drawn([WIDTH, VOCAB], 14))
        }),
        single("capped_softmax", || {
            flm_ops::capped_softmax(drawn([ROWS, VOCAB], 16), drawn([VOCAB], 17), 30.0, 0.8)
        }),
        single("capped_loss of tokens", || {
            let target = Target::Tokens(ids(ROWS, VOCAB as i32));
            let product = drawn([ROWS, VOCAB], 16);
            flm_ops::capped_loss(product, drawn([VOCAB], 17), target, 30.0).unsqueeze()
        }),
        single("capped_loss_gradient of tokens", || {
            let target = Target::Tokens(ids(ROWS, VOCAB as i32));
            let (product, bias) = (drawn([ROWS, VOCAB], 16), drawn([VOCAB], 17));
            flm_ops::capped_loss_gradient(product, bias, target, drawn([ROWS], 18), 30.0).product
        }),
        single("capped_loss_gradient of distributions", || {
            let p = burn::tensor::activation::softmax(drawn([ROWS, VOCAB], 19), 1);
            let (product, bias) = (drawn([ROWS, VOCAB], 16), drawn([VOCAB], 17));
            let target = Target::Distributions(p);
            flm_ops::capped_loss_gradient(product, bias, target, drawn([ROWS], 18), 30.0).product
        }),
        single("capped_loss_gradient of tokens, for the bias", || {
            let target = Target::Tokens(ids(300, VOCAB as i32));
            let (product, bias) = (drawn([300, VOCAB], 16), drawn([VOCAB], 17));
            flm_ops::capped_loss_gradient(product, bias, target, drawn([300], 18), 30.0)
                .bias
                .unsqueeze()
        }),
        // 75 and 80 columns: more than one block of 32, and not a multiple. The second has rank 40.
        single("cholesky", || {
            // A Gram matrix near the identity, so that its root and inverse are near it too.
            let x = drawn::<B, 2>([300, 75], 31).mul_scalar(0.06);
            let gram = x.clone().transpose().matmul(x);
            Tensor::cat(flm_ops::cholesky(gram).to_vec(), 1)
        }),
        single("cholesky of a rank-deficient matrix", || {
            let [root, _] = flm_ops::cholesky(repeated());
            root
        }),
        single("cholesky of a rank-deficient matrix, inverse", || {
            let [_, inverse] = flm_ops::cholesky(repeated());
            inverse
        }),
        // The parts are blocks of 128 × 128, read in place from the root and the inverse.
        single("cholesky of a pair, products with its blocks", || {
            let x = drawn::<B, 2>([600, 256], 31).mul_scalar(0.04);
            let [root, inverse] = flm_ops::cholesky(x.clone().transpose().matmul(x));
            let z = drawn::<B, 2>([70, 128], 32);
            let parts = [
                root.clone().slice([0..128, 0..128]),
                root.clone().slice([0..128, 128..256]),
                root.slice([128..256, 128..256]),
                inverse.clone().slice([0..128, 0..128]),
                inverse.slice([0..128, 0..128]).transpose(),
            ];
            let products = parts.map(|part| flm_ops::matmul(z.clone(), part));
            Tensor::cat(products.to_vec(), 0)
        }),
        single("blend", || {
            let [average, live] = [20, 21].map(|seed| drawn::<B, 2>([ROWS, WIDTH], seed));
            flm_ops::blend(average, live, 0.9)
        }),
        single("adamw", || {
            let rule = AdamW {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
                time: 3,
            };
            let [param, grad, first] = [20, 21, 22].map(|seed| drawn([ROWS, WIDTH], seed));
            let second = drawn([ROWS, WIDTH], 23).abs();
            Tensor::cat(
                flm_ops::adamw(&rule, param, grad, first, second).to_vec(),
                0,
            )
        }),
        single("orthogonal, of wide matrices", || {
            flat2(flm_ops::orthogonal(drawn::<B, 3>([3, 40, 70], 33), 3))
        }),
        single("orthogonal, of tall matrices", || {
            flat2(flm_ops::orthogonal(drawn::<B, 3>([3, 70, 40], 33), 3))
        }),
        single("sum_of_squares", || {
            flm_ops::sum_of_squares(drawn::<B, 2>([700, 900], 24)).unsqueeze()
        }),
        single("argmax and gather", || {
            let x = drawn::<B, 2>([ROWS, VOCAB], 25);
            let best = x.clone().argmax(1);
            Tensor::cat(vec![x.gather(1, best.clone()), best.float()], 1)
        }),
        single("sort of a row", || {
            drawn::<B, 2>([ROWS, VOCAB], 26).sort_descending(1)
        }),
    ]
}

/// Compares each operation with the CPU kernels in f32.
pub(super) fn lines<B: Backend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    for (here, on_cpu) in list::<B>().into_iter().zip(list::<Flex>()) {
        let expected = flat(on_cpu.make(Precision::F32));
        for (precision, bound) in here.bounds(bounds) {
            let error = relative_error(&flat(here.make(precision)), &expected);
            line(lines, format!("{precision}: {}", here.name), error, bound);
        }
    }
}
