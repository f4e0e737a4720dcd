//! Products, alone and added to a sum, against the composition.

use super::assert_close;
use burn::tensor::{Distribution, Tensor};
use burn_flex::Flex;

fn matrix(shape: [usize; 2]) -> Tensor<Flex, 2> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

fn numbers(x: Tensor<Flex, 2>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn a_product_is_made_and_added_in_any_layout() {
    for [m, k, n] in [[1, 1, 1], [3, 5, 7], [64, 33, 130], [65, 200, 257]] {
        let (a, b) = (matrix([m, k]), matrix([k, n]));
        let turned = |x: &Tensor<Flex, 2>| {
            let [rows, columns] = x.dims();
            let copy = x.clone().transpose().into_data();
            let copy = Tensor::<Flex, 2>::from_data(copy, &Default::default()).transpose();
            assert_eq!(copy.dims(), [rows, columns]);
            copy
        };
        let part = |x: &Tensor<Flex, 2>| {
            let padded = Tensor::cat(vec![matrix(x.dims()), x.clone(), matrix(x.dims())], 1);
            padded.narrow(1, x.dims()[1], x.dims()[1])
        };
        for (a, b) in [
            (a.clone(), b.clone()),
            (turned(&a), b.clone()),
            (a.clone(), turned(&b)),
            (part(&a), part(&b)),
            (a.clone().flip([0]), b.clone().flip([1])),
            (a.clone().flip([0, 1]), b.clone().flip([0])),
        ] {
            let sum = turned(&matrix([m, n]));
            let expected = numbers(sum.clone() + a.clone().matmul(b.clone()));
            let alone = numbers(a.clone().matmul(b.clone()));
            assert_close(
                &numbers(crate::product(a.clone(), b.clone())),
                &alone,
                "product",
            );
            assert_close(&numbers(crate::add_product(sum, a, b)), &expected, "sum");
        }
    }
}

#[test]
fn a_product_over_nothing_is_zero() {
    let empty = |shape| Tensor::<Flex, 2>::zeros(shape, &Default::default());
    let made = crate::product(empty([3, 0]), empty([0, 4]));
    assert_eq!(made.dims(), [3, 4]);
    assert_eq!(numbers(made), vec![0.0; 12]);
}

#[test]
fn a_sum_that_somebody_else_holds_is_not_written_over() {
    let sum = matrix([4, 6]);
    let before = numbers(sum.clone());
    let after = crate::add_product(sum.clone(), matrix([4, 3]), matrix([3, 6]));
    assert_eq!(numbers(sum), before);
    assert_ne!(numbers(after), before);
}

#[test]
#[should_panic(expected = "add_product")]
fn a_product_of_another_size_is_refused() {
    let _ = crate::add_product(matrix([4, 6]), matrix([4, 3]), matrix([2, 6]));
}
