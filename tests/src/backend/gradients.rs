//! Gradients of operations, compared with those of the CPU kernels in f32.

use super::{Bounds, Operation, drawn, ids, line, products, single};
use crate::fixture::{flat, relative_error};
use crate::parity::Line;
use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_denoiser::Rope;
use flm_ops::{Attention, Modulated, Noisy, Precision};

/// Sequences, positions and width.
///
/// The 70 positions are more than one kernel unit adds up, and not a multiple of that.
const SHAPE: [usize; 3] = [2, 70, 128];
const ROW: [usize; 3] = [2, 1, 128];

/// Gradients of Σ y·(random numbers) with respect to the inputs.
macro_rules! gradients {
    ($y:expr, $($input:expr),+) => {{
        let y = $y;
        let upstream = Tensor::from_inner(drawn(y.dims(), 50));
        let grads = (flm_ops::widen(y) * upstream).sum().backward();
        vec![$(flat($input.grad(&grads).expect("every input has a gradient"))),+]
    }};
}

fn tracked<A: AutodiffBackend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<A, D> {
    Tensor::from_inner(drawn(shape, seed)).require_grad()
}

fn attention<A: AutodiffBackend>(precision: Precision, causal: bool) -> Vec<Vec<f32>> {
    let rope = Rope::new(70, 32, 1e4, &Default::default());
    let qkv = tracked::<A, 3>([2, 70, 3 * 128], 45);
    let attention = Attention {
        heads: 4,
        softcap: 50.0,
        causal,
    };
    gradients!(
        flm_ops::attention(precision.narrow(qkv.clone()), &rope, attention),
        qkv
    )
}

/// The gradient of `noisy_rows`, and its value, which the gradient does not depend on.
fn noisy_rows<A: AutodiffBackend>(width: usize) -> Vec<Vec<f32>> {
    let matrix = tracked::<A, 2>([300, width], 41);
    let plain = matrix.clone().inner();
    let [root, inverse] = flm_ops::cholesky(plain.clone().transpose().matmul(plain));
    let z = drawn::<A::InnerBackend, 2>([140, width], 51);
    let input = Noisy {
        matrix: matrix.clone(),
        ids: ids(140, 300),
        t: drawn::<A::InnerBackend, 1>([140], 52).abs().clamp(0.0, 1.0),
        seen: flm_ops::matmul(z.clone(), root),
        z,
        inverse,
    };
    let y = flm_ops::noisy_rows(input);
    let value = flat(y.clone().inner());
    let mut all = gradients!(y, matrix);
    all.push(value);
    all
}

/// The operations, each giving its gradients with respect to all inputs.
fn list<A: AutodiffBackend>() -> Vec<Operation<Vec<Vec<f32>>>> {
    vec![
        single("norm_modulate", || {
            let input = Modulated::<A> {
                x: tracked(SHAPE, 41),
                weight: tracked([128], 42),
                shift: tracked(ROW, 43),
                scale: tracked(ROW, 44),
                epsilon: 1e-5,
            };
            gradients!(
                flm_ops::norm_modulate(input.clone()),
                input.x,
                input.weight,
                input.shift,
                input.scale
            )
        }),
        products("gelu_tanh", |p| {
            let x = tracked::<A, 3>(SHAPE, 41);
            gradients!(flm_ops::gelu_tanh(p.narrow(x.clone())), x)
        }),
        products("attention", |p| attention::<A>(p, false)),
        products("attention with a causal mask", |p| attention::<A>(p, true)),
        products("linear", |p| {
            let x = tracked::<A, 3>(SHAPE, 41);
            let (weight, bias) = (tracked([128, 90], 46), tracked([90], 47));
            let y = flm_ops::linear(p.narrow(x.clone()), weight.clone(), Some(bias.clone()));
            gradients!(y, x, weight, bias)
        }),
        products("linear without a bias", |p| {
            let (x, weight) = (tracked::<A, 3>(SHAPE, 41), tracked([128, 90], 46));
            let y = flm_ops::linear(p.narrow(x.clone()), weight.clone(), None);
            gradients!(y, x, weight)
        }),
        products("gelu_linear", |p| {
            let x = tracked::<A, 3>(SHAPE, 41);
            let (weight, bias) = (tracked([128, 90], 46), tracked([90], 47));
            let y = flm_ops::gelu_linear(p.narrow(x.clone()), weight.clone(), bias.clone());
            gradients!(y, x, weight, bias)
        }),
        products("gated_residual", |p| {
            let [x, branch] = [41, 48].map(|seed| tracked::<A, 3>(SHAPE, seed));
            let gate = tracked(ROW, 49);
            let narrowed = p.narrow(branch.clone());
            let y = flm_ops::gated_residual(x.clone(), narrowed, gate.clone(), None);
            gradients!(y, x, branch, gate)
        }),
        single("rows", || {
            let matrix = tracked::<A, 2>([30, 128], 41);
            let tokens = ids::<A>(140, 30).reshape([2, 70]);
            gradients!(flm_ops::rows(matrix.clone(), tokens), matrix)
        }),
        single("noisy_rows", || noisy_rows::<A>(75)),
        single("noisy_rows in whole blocks", || noisy_rows::<A>(128)),
        single("matmul", || {
            let [a, b] = [41, 48].map(|seed| tracked::<A, 3>(SHAPE, seed));
            let y = flm_ops::matmul(a.clone(), b.clone().swap_dims(1, 2));
            gradients!(y, a, b)
        }),
    ]
}

/// Compares each operation's gradients: the largest error over its inputs.
pub(super) fn lines<A: AutodiffBackend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    let on_cpu = list::<Autodiff<Flex>>();
    for (here, on_cpu) in list::<A>().into_iter().zip(on_cpu) {
        let expected = on_cpu.make(Precision::F32);
        for (precision, bound) in here.bounds(bounds) {
            let found = here.make(precision);
            let error = std::iter::zip(&found, &expected)
                .map(|(found, expected)| relative_error(found, expected))
                .fold(0.0, f64::max);
            let name = format!("{precision}: gradients of {}", here.name);
            line(lines, name, error, bound);
        }
    }
}
