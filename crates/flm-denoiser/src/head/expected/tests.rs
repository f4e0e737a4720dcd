//! Scores of means against the dense composition, for several chunk sizes.

use super::*;
use crate::head::Head;
use burn::backend::Autodiff;
use burn::tensor::Tolerance;
use burn::tensor::activation::softmax;
use burn_flex::Flex;
use flm_simplex::noise::gaussian;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type Train = Autodiff<Flex>;

const VOCAB: usize = 37;
const SHAPE: [usize; 3] = [3, 5, 8];
const SOFTCAP: f64 = 3.0;

fn drawn<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    gaussian(
        shape,
        &mut ChaCha8Rng::seed_from_u64(seed),
        &Default::default(),
    )
}

/// Squares and a product of two positions: nonlinear, and different between positions.
fn score(means: Tensor<Train, 3>) -> Tensor<Train, 1> {
    let at = |position| means.clone().narrow(1, position, 1).narrow(2, 0, 1);
    let product: Tensor<Train, 3> = at(1) * at(3);
    let squares = means.clone().powi_scalar(2).sum_dim(2).sum_dim(1);
    (product.mul_scalar(20.0) + squares).reshape([SHAPE[0]])
}

#[test]
fn values_and_gradients_are_those_of_dense_probabilities() {
    let features = || drawn::<Train, 3>(SHAPE, 1).require_grad();
    let weight: Tensor<Flex, 2> = drawn([SHAPE[2], VOCAB], 2);
    let bias: Tensor<Flex, 1> = drawn([VOCAB], 3);
    let vectors: Tensor<Flex, 2> = drawn([VOCAB, 4], 4);
    for temperature in [1.0, 0.6] {
        let x = features();
        let logits = x
            .clone()
            .reshape([15, SHAPE[2]])
            .matmul(Tensor::from_inner(weight.clone()))
            + Tensor::from_inner(bias.clone()).unsqueeze();
        let capped = (logits / SOFTCAP).tanh() * SOFTCAP;
        let means = softmax(capped / temperature, 1).matmul(Tensor::from_inner(vectors.clone()));
        let dense = score(means.reshape([SHAPE[0], SHAPE[1], 4]));
        let expected = (
            dense.clone().inner(),
            x.grad(&dense.sum().backward()).unwrap(),
        );
        // One position at a time, two with a remainder, and all at once.
        for head_numbers in [1, 2 * VOCAB, 1 << 24] {
            let x = features();
            let prediction = Prediction {
                features: x.clone(),
                head: Head {
                    weight: Tensor::from_inner(weight.clone()),
                    bias: Tensor::from_inner(bias.clone()),
                    softcap: SOFTCAP,
                    execution: crate::Execution {
                        head_numbers,
                        ..Default::default()
                    },
                },
            };
            let found = prediction.expected(&vectors, temperature, score);
            // f32 sums of 37 products, in other orders.
            let tolerance = Tolerance::relative(1e-4).set_absolute(1e-5);
            let total: f32 = found.total.clone().into_scalar();
            let sum: f32 = expected.0.clone().sum().into_scalar();
            assert!((total - sum).abs() < 1e-4 * sum.abs(), "{total}, {sum}");
            (found.of_each.into_data())
                .assert_approx_eq::<f32>(&expected.0.clone().into_data(), tolerance);
            let gradient = x.grad(&found.total.backward()).unwrap();
            (gradient.into_data())
                .assert_approx_eq::<f32>(&expected.1.clone().into_data(), tolerance);
        }
    }
}
