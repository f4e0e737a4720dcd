//! Tangents against gradients, and kernels against their compositions.

use super::cases::{Case, Input, VIEWS, View};
use super::{assert_close, cases, flat, leaf, run, values};
use crate::dual::{self, Dual};
use crate::reference;
use crate::route::AutodiffFlex;
use burn::tensor::Tensor;
use burn_flex::Flex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Returns random tangents of the leaves, zero for parameters of products and norms.
fn directions(case: &Case, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    case.inputs
        .iter()
        .enumerate()
        .map(|(i, input)| {
            let scale = if case.is_parameter(i) { 0.0 } else { 1.0 };
            (0..input.count())
                .map(|_| scale * rng.random_range(-1.0..1.0))
                .collect()
        })
        .collect()
}

fn duals(values: &[Vec<f32>], directions: &[Vec<f32>]) -> Vec<Dual<Flex, 1>> {
    values
        .iter()
        .zip(directions)
        .map(|(value, direction)| Dual {
            value: leaf(value),
            tangent: leaf(direction),
        })
        .collect()
}

/// Returns Σ a·b, and Σ |a·b| as its scale.
fn dot(pairs: impl Iterator<Item = (f32, f32)>) -> (f64, f64) {
    pairs.fold((0.0, 0.0), |(sum, size), (a, b)| {
        let product = f64::from(a) * f64::from(b);
        (sum + product, size + product.abs())
    })
}

/// ⟨w, J·ẋ⟩ = ⟨Jᵀ·w, ẋ⟩, with the reverse-mode gradient of the operation itself.
#[test]
fn tangents_are_what_gradients_are_the_transpose_of() {
    for case in cases::all() {
        let (values, directions) = (values(&case.inputs), directions(&case, 2));
        let (out, grads) = run(&values, &vec![true; values.len()], |leaves| {
            case.offered(leaves)
        });
        let moved = case.dual(&duals(&values, &directions));
        assert_eq!(flat(moved.value), out, "{case:?}");
        let weights = (0..out.len()).map(|i| ((i * 37 % 101) as f32 - 40.0) / 50.0);
        let (forward, size) = dot(flat(moved.tangent).into_iter().zip(weights));
        let grads = grads.into_iter().flat_map(Option::unwrap);
        let (reverse, other) = dot(grads.zip(directions.into_iter().flatten()));
        let bound = 1e-5 * size.max(other).max(1e-2);
        assert!(
            (forward - reverse).abs() <= bound,
            "{case:?}: {forward} forward, {reverse} in reverse, of terms of {size} and {other}"
        );
    }
}

#[test]
fn tangent_kernels_agree_with_their_compositions() {
    for case in cases::all() {
        let (values, directions) = (values(&case.inputs), directions(&case, 3));
        let found = case.dual(&duals(&values, &directions));
        let leaves: Vec<_> = duals(&values, &directions)
            .into_iter()
            .map(|x| Dual {
                value: Tensor::<AutodiffFlex, 1>::from_inner(x.value),
                tangent: Tensor::from_inner(x.tangent),
            })
            .collect();
        let expected = case.dual(&leaves);
        let what = format!("tangent of {case:?}");
        assert_close(&flat(found.tangent), &flat(expected.tangent.inner()), &what);
    }
}

#[test]
fn tangents_are_linear_in_the_direction() {
    for case in cases::all() {
        let values = values(&case.inputs);
        let (one, two) = (directions(&case, 4), directions(&case, 5));
        let mixed: Vec<Vec<f32>> = one
            .iter()
            .zip(&two)
            .map(|(one, two)| {
                one.iter()
                    .zip(two)
                    .map(|(a, b)| 2.0 * a - 0.5 * b)
                    .collect()
            })
            .collect();
        let tangent = |directions: &[Vec<f32>]| case.dual(&duals(&values, directions)).tangent;
        let expected = tangent(&one).mul_scalar(2.0) - tangent(&two).mul_scalar(0.5);
        assert_close(
            &flat(tangent(&mixed)),
            &flat(expected),
            &format!("{case:?}"),
        );
    }
}

#[test]
fn a_softmax_moves_within_the_simplex_as_its_gradient_says() {
    for view in VIEWS {
        for ([rows, vocab], scale, temperature) in [
            ([1, 2], 1.0, 1.0),
            ([7, 61], 20.0, 0.5),
            ([300, 61], 3.0, 1.0),
            ([5, 20_011], 3.0, 2.0),
        ] {
            let inputs = [
                Input::new(&[rows, vocab], view).scaled(scale),
                Input::new(&[vocab], View::Plain),
                Input::new(&[rows, vocab], view),
            ];
            let values = values(&inputs);
            let moved = {
                let product = Dual {
                    value: inputs[0].of::<Flex, 2>(&leaf(&values[0])),
                    tangent: inputs[2].of(&leaf(&values[2])),
                };
                dual::capped_softmax(product, leaf(&values[1]), 30.0, temperature)
            };
            let sums = flat(moved.tangent.clone().sum_dim(1).flatten(0, 1));
            let sizes = flat(moved.tangent.clone().abs().sum_dim(1).flatten(0, 1));
            for (sum, size) in sums.iter().zip(sizes) {
                // Tangents of order one times probabilities that sum to one, up to rounding.
                assert!(sum.abs() <= 1e-6 + 1e-5 * size, "{sum} of {size}");
            }
            let (out, grads) = run(&values[..2], &[true, false], |leaves| {
                let product = inputs[0].of::<AutodiffFlex, 2>(&leaves[0]);
                reference::capped_softmax(product, leaves[1].clone(), 30.0, temperature)
                    .flatten(0, 1)
            });
            assert_close(&flat(moved.value.flatten(0, 1)), &out, "softmax");
            let weights = (0..out.len()).map(|i| ((i * 37 % 101) as f32 - 40.0) / 50.0);
            let tangent = flat(moved.tangent.flatten(0, 1));
            let (forward, size) = dot(tangent.into_iter().zip(weights));
            let grad = grads[0].clone().unwrap();
            let (reverse, other) = dot(grad.into_iter().zip(values[2].iter().copied()));
            let bound = 1e-5 * size.max(other).max(1e-2);
            assert!((forward - reverse).abs() <= bound, "{forward} {reverse}");
        }
    }
}

#[test]
#[should_panic(expected = "linear: the tangent of x must have shape [1, 2, 3]")]
fn a_tangent_of_another_shape_is_refused() {
    let x = Dual {
        value: Tensor::<Flex, 3>::zeros([1, 2, 3], &Default::default()),
        tangent: Tensor::zeros([1, 3, 2], &Default::default()),
    };
    drop(dual::linear(
        x,
        Tensor::zeros([3, 4], &Default::default()),
        None,
    ));
}
