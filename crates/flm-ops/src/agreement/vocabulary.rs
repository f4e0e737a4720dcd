//! The head's operations: kernels and compositions against the autodiff graph of the plain loss.

use super::cases::{Input, VIEWS, View};
use super::{assert_close, flat, leaf, values};
use crate::route::AutodiffFlex;
use crate::{Noisy, Target, reference};
use burn::tensor::{Int, Tensor, backend::Backend};
use burn_flex::Flex;

const CAP: f64 = 30.0;

/// Products, bias, weights of the rows, and logits of a target.
struct Case {
    inputs: [Input; 4],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tokens,
    Distributions,
    Points,
}

/// Small and large vocabularies, products up to and beyond the cap, in row order and not.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for view in VIEWS {
        // A standard deviation of 20 puts one logit in eight beyond the cap.
        for ([rows, vocab], scale) in [
            ([1, 2], 1.0),
            ([7, 61], 20.0),
            ([300, 61], 3.0),
            ([5, 20_011], 3.0),
        ] {
            let vector = |count| Input::new(&[count], View::Plain);
            let matrix = Input::new(&[rows, vocab], view).scaled(scale);
            let kinds = [Kind::Tokens, Kind::Distributions, Kind::Points];
            cases.extend(kinds.map(|kind| Case {
                inputs: [matrix.clone(), vector(vocab), vector(rows), matrix.clone()],
                kind,
            }));
        }
    }
    cases
}

impl Case {
    fn values(&self) -> Vec<Vec<f32>> {
        values(&self.inputs)
    }

    fn product<B: Backend>(&self, values: &[Vec<f32>]) -> Tensor<B, 2> {
        self.inputs[0].of(&Tensor::from_floats(
            values[0].as_slice(),
            &Default::default(),
        ))
    }

    fn vector<B: Backend>(&self, values: &[Vec<f32>], i: usize) -> Tensor<B, 1> {
        Tensor::from_floats(values[i].as_slice(), &Default::default())
    }

    fn target<B: Backend>(&self, values: &[Vec<f32>]) -> Target<B> {
        let (rows, vocab) = (self.inputs[0].shape[0], self.inputs[0].shape[1]);
        let logits = || self.inputs[3].of::<B, 2>(&self.vector(values, 3));
        if self.kind == Kind::Points {
            // Off the simplex.
            Target::Points(logits().mul_scalar(0.2))
        } else if self.kind == Kind::Distributions {
            // Of mass ½, so that the code cannot rely on a mass of one.
            Target::Distributions(burn::tensor::activation::softmax(logits(), 1).mul_scalar(0.5))
        } else {
            // Spread over the vocabulary, including its first and last token.
            let id = |row: usize| {
                if row == 0 {
                    vocab - 1
                } else {
                    (row - 1) * 7 % vocab
                }
            };
            let ids: Vec<i32> = (0..rows).map(|row| id(row) as i32).collect();
            Target::Tokens(Tensor::<B, 1, Int>::from_ints(
                ids.as_slice(),
                &Default::default(),
            ))
        }
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_graph() {
    for case in cases() {
        let values = case.values();
        let what = |of: &str| format!("{of} of {:?}, {:?}", case.inputs[0], case.kind);
        let leaves =
            [0, 1].map(|i| Tensor::<AutodiffFlex, 1>::from_inner(leaf(&values[i])).require_grad());
        let expected = reference::capped_loss(
            case.inputs[0].of(&leaves[0]),
            leaves[1].clone(),
            case.target(&values),
            CAP,
        );
        let grads = (expected.clone() * case.vector(&values, 2))
            .sum()
            .backward();
        let [to_product, to_bias] = leaves.map(|leaf| leaf.grad(&grads).unwrap());
        let (expected, to_bias) = (flat(expected.inner()), flat(to_bias));
        let to_product = flat(case.inputs[0].of::<Flex, 2>(&to_product).flatten(0, 1));

        let gradient = |composed: bool| {
            let function = if composed {
                reference::capped_loss_gradient::<Flex>
            } else {
                crate::capped_loss_gradient::<Flex>
            };
            let (product, bias) = (case.product(&values), case.vector(&values, 1));
            function(
                product,
                bias,
                case.target(&values),
                case.vector(&values, 2),
                CAP,
            )
        };
        for composed in [false, true] {
            let found = gradient(composed);
            assert_close(&flat(found.loss), &expected, &what("loss"));
            assert_close(
                &flat(found.product.flatten(0, 1)),
                &to_product,
                &what("to product"),
            );
            assert_close(&flat(found.bias), &to_bias, &what("to bias"));
        }
        let (product, bias) = (case.product::<Flex>(&values), case.vector(&values, 1));
        let alone = crate::capped_loss(product, bias, case.target(&values), CAP);
        assert_close(&flat(alone), &expected, &what("loss alone"));
    }
}

#[test]
fn softmaxes_agree() {
    for case in cases()
        .iter()
        .filter(|case| case.kind == Kind::Distributions)
    {
        let values = case.values();
        for temperature in [1.0, 0.5] {
            let (product, bias) = (case.product::<Flex>(&values), case.vector(&values, 1));
            let found = crate::capped_softmax(product.clone(), bias.clone(), CAP, temperature);
            let expected = reference::capped_softmax(product.clone(), bias, CAP, temperature);
            assert_close(
                &flat(found.flatten(0, 1)),
                &flat(expected.flatten(0, 1)),
                &format!("softmax of {:?} at {temperature}", case.inputs[0]),
            );
            // The product was shared, so it must be unchanged.
            assert_eq!(
                flat(product.flatten(0, 1)),
                flat(case.product::<Flex>(&values).flatten(0, 1))
            );
        }
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
    for case in cases() {
        let values = case.values();
        let result = || {
            let (product, bias) = (case.product::<Flex>(&values), case.vector(&values, 1));
            let weights = case.vector(&values, 2);
            let target = case.target(&values);
            let found = crate::capped_loss_gradient(product, bias, target, weights, CAP);
            [
                flat(found.loss),
                flat(found.bias),
                flat(found.product.flatten(0, 1)),
            ]
        };
        assert_eq!(one.install(result), two.install(result));
    }
}

#[test]
fn extreme_logits_are_scored_as_capped_ones() {
    let logits = Tensor::<Flex, 2>::from_floats(
        [[1e4, -1e4, 0.0], [-1e4, -1e4, f32::MAX]],
        &Default::default(),
    );
    let bias = || Tensor::zeros([3], &Default::default());
    let loss = |id: i32| {
        let ids = Target::Tokens(Tensor::from_ints([id, id], &Default::default()));
        flat(crate::capped_loss(logits.clone(), bias(), ids, CAP))
    };
    // log Σ e^c over the capped logits 30, −30 and 0, or −30, −30 and 30, minus the token's own.
    for (id, expected) in [(0, [0.0, 60.0]), (1, [60.0, 60.0]), (2, [30.0, 0.0])] {
        assert_close(&loss(id), &expected, "loss of extreme logits");
    }
    let certain = crate::capped_softmax(logits, bias(), CAP, 1.0);
    assert_close(
        &flat(certain.flatten(0, 1)),
        &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        "softmax of extreme logits",
    );
}

#[test]
fn what_is_not_a_number_stays_so_in_its_own_row() {
    for soft in [false, true] {
        let product = Tensor::<Flex, 2>::from_floats(
            [[0.0, 1.0, 2.0], [f32::NAN, 1.0, 2.0]],
            &Default::default(),
        );
        let target = if soft {
            Target::Distributions(product.ones_like())
        } else {
            Target::Tokens(Tensor::from_ints([1, 1], &Default::default()))
        };
        let (bias, weights) = (Tensor::zeros([3], &Default::default()), [1.0, 1.0]);
        let weights = Tensor::from_floats(weights, &Default::default());
        let found = crate::capped_loss_gradient(product, bias, target, weights, CAP);
        let is_nan = |x: Vec<f32>| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        assert_eq!(is_nan(flat(found.loss)), [false, true]);
        let gradient = is_nan(flat(found.product.flatten(0, 1)));
        assert_eq!(gradient[..3], [false; 3]);
        assert!(gradient[3..].contains(&true));
    }
}

/// A backend without kernels.
type Composed = burn::backend::Autodiff<
    Flex,
    burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing,
>;

#[test]
fn known_gradients_reach_their_inputs_with_the_upstream_one() {
    fn check<A: burn::tensor::backend::AutodiffBackend<InnerBackend = Flex>>() {
        let (a, b) = (leaf(&[1.0, -2.0]), leaf(&[0.5, 3.0, 4.0]));
        let leaves = [&a, &b].map(|x| Tensor::<A, 1>::from_inner(x.clone()).require_grad());
        // a is used twice, b through another operation.
        let [first, second] = leaves.clone();
        let loss = crate::attach_gradients(
            leaf(&[7.0]),
            [
                (first.clone(), leaf(&[10.0, 20.0])),
                (second.mul_scalar(2.0), leaf(&[1.0, 0.0, -1.0])),
            ],
        );
        assert_eq!(flat(loss.clone().inner()), [7.0]);
        let grads = (loss.mul_scalar(3.0) + first.sum()).backward();
        let [first, second] = leaves.map(|leaf| flat(leaf.grad(&grads).unwrap()));
        assert_eq!(first, [31.0, 61.0]);
        assert_eq!(second, [6.0, 0.0, -6.0]);
    }
    check::<AutodiffFlex>();
    check::<Composed>();
}

#[test]
fn noisy_rows_have_the_gradient_of_the_held_basis() {
    fn outcome<A: burn::tensor::backend::AutodiffBackend<InnerBackend = Flex>>() -> [Vec<f32>; 2] {
        let matrix = |values: &[f32], shape: [usize; 2]| leaf(values).reshape(shape);
        // E = QR with Q of the first two unit vectors.
        let e = [2.0, 1.0, 0.0, 3.0, 0.0, 0.0];
        let z = matrix(&[1.0, -1.0, 0.5, 2.0, 3.0, 0.0], [3, 2]);
        let leaf = Tensor::<A, 2>::from_inner(matrix(&e, [3, 2])).require_grad();
        let out = crate::noisy_rows(Noisy {
            matrix: leaf.clone(),
            // One row twice, one not at all.
            ids: Tensor::from_ints([1, 2, 1], &Default::default()),
            t: self::leaf(&[0.25, 0.5, 1.0]),
            seen: z.clone().matmul(matrix(&e[..4], [2, 2])),
            z,
            inverse: matrix(&[0.5, -1.0 / 6.0, 0.0, 1.0 / 3.0], [2, 2]),
        });
        let weights = matrix(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2]);
        let grads = (out.clone() * Tensor::from_inner(weights)).sum().backward();
        [out.inner(), leaf.grad(&grads).unwrap()].map(|x| flat(x.flatten(0, 1)))
    }
    // (1 − t)·z·R + t·E[ids]; Q·zᵀ·(1 − t)·weights, and t·weights in the rows taken.
    let expected = [1.5, -0.75, 0.5, 3.25, 0.0, 3.0];
    let gradient = [1.5, 2.5, 2.25 + 0.25 + 5.0, 2.5 + 0.5 + 6.0, 1.5, 2.0];
    for (found, route) in [
        (outcome::<AutodiffFlex>(), "kernel"),
        (outcome::<Composed>(), "composition"),
    ] {
        assert_close(&found[0], &expected, route);
        assert_close(&found[1], &gradient, route);
    }
}
