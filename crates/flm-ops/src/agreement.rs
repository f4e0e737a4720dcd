//! Tests that the kernels agree with the compositions.

mod cases;
mod dual;
mod linear;
mod update;
mod vocabulary;

use crate::route::AutodiffFlex;
use burn::tensor::Tensor;
use burn_flex::Flex;
use cases::{Input, Operation};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Largest difference between a kernel and its composition, relative to the largest value of the
/// tensor.
///
/// Sums of up to 20,000 terms in different orders differ by about 1e-6. An exponential turns the
/// absolute error of its argument into a relative one, and a capped logit over a temperature of ½
/// is 60 times a tanh with an error of 4e-7. A missing term shows at 1e-3 and above.
const TOLERANCE: f32 = 3e-5;

/// Values of the leaves: roughly normal (a sum of twelve uniforms), times each input's scale.
fn values(inputs: &[Input]) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    inputs
        .iter()
        .map(|input| (0..input.count()).map(|_| input.scale * normal()).collect())
        .collect()
}

fn leaf(values: &[f32]) -> Tensor<Flex, 1> {
    Tensor::from_floats(values, &Default::default())
}

fn flat(tensor: Tensor<Flex, 1>) -> Vec<f32> {
    tensor.into_data().to_vec().unwrap()
}

/// Returns the values of `function` and the gradient to each leaf, `None` for leaves that are not
/// tracked.
///
/// Each output has its own weight, so that a gradient in the wrong row is detected.
fn run(
    values: &[Vec<f32>],
    tracked: &[bool],
    function: impl Fn(&[Tensor<AutodiffFlex, 1>]) -> Tensor<AutodiffFlex, 1>,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let leaves: Vec<_> = values
        .iter()
        .zip(tracked)
        .map(|(values, tracked)| Tensor::from_inner(leaf(values)).set_require_grad(*tracked))
        .collect();
    let out = function(&leaves);
    let weights: Vec<f32> = (0..out.dims()[0])
        .map(|i| ((i * 37 % 101) as f32 - 40.0) / 50.0)
        .collect();
    let loss = (out.clone() * Tensor::from_inner(leaf(&weights))).sum();
    if !tracked.contains(&true) {
        return (flat(out.inner()), vec![None; values.len()]);
    }
    let grads = loss.backward();
    (
        flat(out.inner()),
        leaves
            .iter()
            .map(|leaf| leaf.grad(&grads).map(flat))
            .collect(),
    )
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |max, b| max.max(b.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        // Gradients that cancel to zero (a softmax of one entry, a norm of two) are compared with
        // one, the size of their terms.
        let bound = TOLERANCE * if largest > 1e-3 { largest } else { 1.0 };
        assert!(
            (a - b).abs() <= bound,
            "{what}: {a} and {b} at {i}, the largest is {largest}"
        );
    }
}

#[test]
fn values_and_gradients_agree_with_the_compositions() {
    for case in cases::all().into_iter().chain(cases::by_position()) {
        let values = values(&case.inputs);
        let tracked = vec![true; values.len()];
        let (found, grads) = run(&values, &tracked, |leaves| case.offered(leaves));
        let (expected, expected_grads) = run(&values, &tracked, |leaves| case.composed(leaves));
        assert_close(&found, &expected, &format!("{case:?}"));
        for (i, (found, expected)) in grads.into_iter().zip(expected_grads).enumerate() {
            let what = format!("gradient to input {i} of {case:?}");
            assert_close(&found.unwrap(), &expected.unwrap(), &what);
        }
    }
}

#[test]
fn gradients_do_not_depend_on_who_else_asks_for_one() {
    for case in cases::all() {
        let values = values(&case.inputs);
        let all = run(&values, &vec![true; values.len()], |leaves| {
            case.offered(leaves)
        });
        for subset in 0..1 << values.len() {
            let tracked: Vec<bool> = (0..values.len()).map(|i| subset >> i & 1 == 1).collect();
            let (found, grads) = run(&values, &tracked, |leaves| case.offered(leaves));
            assert_eq!(found, all.0, "{case:?}");
            for (i, grad) in grads.iter().enumerate() {
                let expected = all.1[i].as_ref().filter(|_| tracked[i]);
                assert_eq!(
                    grad.as_ref(),
                    expected,
                    "gradient to input {i} of {case:?}, asked for by {tracked:?}"
                );
            }
        }
    }
}

#[test]
fn the_plain_backend_gives_the_same_values() {
    for case in cases::all().into_iter().chain(cases::by_position()) {
        let values = values(&case.inputs);
        let leaves: Vec<_> = values.iter().map(|values| leaf(values)).collect();
        let (expected, _) = run(&values, &vec![false; values.len()], |leaves| {
            case.offered(leaves)
        });
        assert_eq!(flat(case.offered(&leaves)), expected, "{case:?}");
        assert_close(
            &flat(case.offered(&leaves)),
            &flat(case.composed(&leaves)),
            &format!("{case:?}"),
        );
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    };
    let (one, two) = (pool(1), pool(2));
    for case in cases::all() {
        let values = values(&case.inputs);
        let tracked = vec![true; values.len()];
        let result = || run(&values, &tracked, |leaves| case.offered(leaves));
        assert_eq!(one.install(result), two.install(result), "{case:?}");
        let plain =
            || flat(case.offered(&values.iter().map(|values| leaf(values)).collect::<Vec<_>>()));
        assert_eq!(one.install(plain), two.install(plain), "{case:?}");
    }
}

#[test]
fn what_is_not_a_number_stays_so_in_its_own_row() {
    for case in cases::all() {
        // No other position sees the last one: a kernel does not read it for them, and a
        // composition multiplies it by zero.
        if matches!(case.operation, Operation::Attention(attention) if attention.causal) {
            continue;
        }
        let mut values = values(&case.inputs);
        let last = values[0].len() - 1;
        values[0][last] = f32::NAN;
        let (found, grads) = run(&values, &vec![true; values.len()], |leaves| {
            case.offered(leaves)
        });
        let (expected, _) = run(&values, &vec![true; values.len()], |leaves| {
            case.composed(leaves)
        });
        let pattern = |values: &[f32]| {
            values
                .iter()
                .map(|value| value.is_nan())
                .collect::<Vec<bool>>()
        };
        assert!(found.iter().any(|value| value.is_nan()), "{case:?}");
        assert_eq!(pattern(&found), pattern(&expected), "{case:?}");
        // The gradients of a residual and a product depend on the other inputs only.
        if !matches!(
            case.operation,
            Operation::Residual { .. } | Operation::Linear
        ) {
            assert!(
                grads[0]
                    .as_ref()
                    .unwrap()
                    .iter()
                    .any(|value| value.is_nan()),
                "gradient of {case:?}"
            );
        }
    }
}

#[test]
fn wrong_shapes_are_named() {
    type T<const D: usize> = Tensor<AutodiffFlex, D>;
    let message = |call: fn()| {
        let panic = std::panic::catch_unwind(call).unwrap_err();
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    fn zeros<const D: usize>(shape: [usize; D]) -> T<D> {
        Tensor::zeros(shape, &Default::default())
    }
    assert_eq!(
        message(|| drop(crate::gated_residual(
            zeros([2, 3, 8]),
            zeros([2, 3, 8]),
            zeros([2, 2, 8]),
            None
        ))),
        "gated_residual: gate must have shape [2, 1, 8] to match x of shape [2, 3, 8], found [2, 2, 8]"
    );
    assert_eq!(
        message(|| drop(crate::norm_modulate(crate::Modulated {
            x: zeros([2, 3, 8]),
            weight: zeros([4]),
            shift: zeros([2, 1, 8]),
            scale: zeros([2, 1, 8]),
            epsilon: 1e-5,
        }))),
        "norm_modulate: weight must have shape [8] to match x of shape [2, 3, 8], found [4]"
    );
    fn attention(heads: usize) -> crate::Attention {
        crate::Attention {
            heads,
            softcap: 50.0,
            causal: false,
        }
    }
    assert_eq!(
        message(|| {
            let rope = crate::Rope::new(3, 4, 10_000.0, &Default::default());
            drop(crate::attention(zeros([2, 5, 24]), &rope, attention(2)));
        }),
        "attention: a table of rope must have shape [5, 2] to match qkv of shape [2, 5, 24], found [3, 2]"
    );
    assert_eq!(
        message(|| {
            let rope = crate::Rope::new(5, 4, 10_000.0, &Default::default());
            drop(crate::attention(zeros([2, 5, 24]), &rope, attention(3)));
        }),
        "attention: the last dimension of qkv must be queries, keys and values of 3 heads of even width, \
         found shape [2, 5, 24]"
    );
    assert_eq!(
        message(|| {
            let target = crate::Target::Distributions(zeros([4, 6]));
            drop(crate::capped_loss(zeros([4, 5]), zeros([5]), target, 30.0));
        }),
        "capped_loss: target must have shape [4, 5] to match product of shape [4, 5], found [4, 6]"
    );
    assert_eq!(
        message(|| {
            let ids = crate::Target::Tokens(Tensor::from_ints([0, 5], &Default::default()));
            let product = Tensor::<Flex, 2>::zeros([2, 5], &Default::default());
            let bias = Tensor::zeros([5], &Default::default());
            drop(crate::capped_loss(product, bias, ids, 30.0));
        }),
        "capped_loss: ids must be below the vocabulary size 5, found 5"
    );
    assert_eq!(
        message(|| drop(crate::capped_softmax(zeros([4, 5]), zeros([4]), 30.0, 1.0))),
        "capped_softmax: bias must have shape [5] to match product of shape [4, 5], found [4]"
    );
    assert_eq!(
        message(|| drop(crate::linear(zeros([2, 3, 8]), zeros([4, 8]), None))),
        "linear: weight must have shape [8, 8] to match x of shape [2, 3, 8], found [4, 8]"
    );
    assert_eq!(
        message(|| drop(crate::gated_residual(
            zeros([2, 0, 8]),
            zeros([2, 0, 8]),
            zeros([2, 1, 8]),
            None
        ))),
        "gated_residual: x must not be empty, found shape [2, 0, 8]"
    );
}
