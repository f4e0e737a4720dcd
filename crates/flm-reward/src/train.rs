//! Training of classifiers.

use crate::classifier::{Classifier, ClassifierConfig};
use crate::corrupt::corrupt;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::module::embedding;
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The largest share of the mean vector in softened rows.
const MOST_SOFTENED: f32 = 0.5;

/// Number of rows per batch in [`recognized`].
const TOGETHER: usize = 64;

/// Settings for training a classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierTraining {
    /// Number of optimizer steps.
    pub steps: u64,
    /// Number of real rows in a step; each is also used corrupted.
    pub batch: usize,
    /// Initial learning rate; it decays linearly to 0.
    pub lr: f64,
    /// Seed of parameters, rows and corruption.
    pub seed: u64,
    /// The padding token.
    pub pad: u32,
}

/// Trains a classifier to distinguish real rows from [corrupted](corrupt) ones.
///
/// `rows` draws the given number of real rows with the given generator. Half of the rows, each
/// together with its corrupted version, are softened: every position is mixed with the mean vector.
/// This trains the classifier to score undecided texts by their decided parts. `observe` gets the
/// index and the loss in nats of each step before the step is taken.
///
/// # Errors
///
/// The errors of `rows` and `observe`.
pub fn train<A: AutodiffBackend, E>(
    config: &ClassifierConfig,
    training: ClassifierTraining,
    device: &A::Device,
    mut rows: impl FnMut(usize, &mut ChaCha8Rng) -> Result<Vec<Vec<u32>>, E>,
    mut observe: impl FnMut(u64, f64) -> Result<(), E>,
) -> Result<Classifier<A::InnerBackend>, E> {
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let mut classifier = config.init::<A>(&mut rng, device);
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(0.01)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    for step in 0..training.steps {
        let real = rows(training.batch, &mut rng)?;
        let both = with_corrupted(&real, training.pad, &mut rng);
        let means = softened(&classifier, &both, &mut rng, device);
        let loss = loss(classifier.log_odds(means));
        observe(step, loss.clone().into_scalar().elem::<f64>())?;
        let gradients = GradientsParams::from_grads(loss.backward(), &classifier);
        let left = 1.0 - step as f64 / training.steps as f64;
        classifier = optimizer.step(training.lr * left, classifier, gradients);
    }
    Ok(classifier.valid())
}

/// Returns the shares of real rows classified as real and of corrupted rows classified
/// as corrupted.
pub fn recognized<B: Backend, R: Rng + ?Sized>(
    classifier: &Classifier<B>,
    real: &[Vec<u32>],
    pad: u32,
    rng: &mut R,
    device: &B::Device,
) -> [f64; 2] {
    let both = with_corrupted(real, pad, rng);
    let odds = |rows: &[Vec<u32>]| {
        let odds = classifier.log_odds(embedded(classifier, rows, device));
        odds.into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let odds: Vec<f64> = both.chunks(TOGETHER).flat_map(odds).collect();
    let (of_real, of_corrupted) = odds.split_at(real.len());
    let share = |right: usize| right as f64 / real.len() as f64;
    [
        share(of_real.iter().filter(|odds| **odds > 0.0).count()),
        share(of_corrupted.iter().filter(|odds| **odds <= 0.0).count()),
    ]
}

/// Returns the rows, followed by a corrupted version of each.
fn with_corrupted<R: Rng + ?Sized>(real: &[Vec<u32>], pad: u32, rng: &mut R) -> Vec<Vec<u32>> {
    let rows: Vec<&[u32]> = real.iter().map(Vec::as_slice).collect();
    let corrupted: Vec<_> = (0..rows.len())
        .map(|number| corrupt(&rows, number, pad, rng))
        .collect();
    [real, &corrupted].concat()
}

/// Returns the classifier's embeddings of tokens, `[rows, length, width]`.
fn embedded<B: Backend>(
    classifier: &Classifier<B>,
    rows: &[Vec<u32>],
    device: &B::Device,
) -> Tensor<B, 3> {
    let ids: Vec<i32> = rows.iter().flatten().map(|&id| id as i32).collect();
    let shape = [rows.len(), rows[0].len()];
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, shape), device);
    embedding(classifier.embedding.val(), ids)
}

/// Returns the embeddings with half of the rows mixed with the mean vector. A real row and its
/// corrupted version get the same share.
fn softened<B: Backend>(
    classifier: &Classifier<B>,
    both: &[Vec<u32>],
    rng: &mut ChaCha8Rng,
    device: &B::Device,
) -> Tensor<B, 3> {
    let means = embedded(classifier, both, device);
    let [rows, length, width] = means.dims();
    let flat = means.clone().reshape([1, rows * length, width]);
    let mean = flat.mean_dim(1);
    let shares: Vec<f32> = (0..rows / 2)
        .map(|_| match rng.random_bool(0.5) {
            true => rng.random_range(0.0..MOST_SOFTENED),
            false => 0.0,
        })
        .collect();
    let shares = TensorData::new([&shares[..], &shares].concat(), [rows, 1, 1]);
    let share = Tensor::from_data(shares, device);
    means.clone() + (mean - means) * share
}

/// Returns the mean of −log p, where p is the probability of real for the first half and of
/// corrupted for the second.
fn loss<B: Backend>(log_odds: Tensor<B, 1>) -> Tensor<B, 1> {
    let [rows] = log_odds.dims();
    let real = log_odds.clone().narrow(0, 0, rows / 2);
    let corrupted = log_odds.narrow(0, rows / 2, rows / 2);
    Tensor::cat(vec![log_sigmoid(real), log_sigmoid(corrupted.neg())], 0)
        .mean()
        .neg()
}
