//! Soft targets: the posterior over reference rows, instead of the one row that a noisy state was
//! made from.
//!
//! At an early time a state says little about its row. Many rows of the corpus could have produced
//! it, and the true row is one draw from a wide posterior. With reference rows y_j, the true row
//! among them, the target is Σ w_j·y_j with w_j ∝ p(I_t | y_j) ([stable target
//! field](https://arxiv.org/abs/2302.00670)). The minimum stays the same as n grows, and the
//! gradients vary less.

use burn::tensor::{Int, Tensor, backend::Backend};
use flm_denoiser::{Dit, Noise, TokenDistribution};
use flm_objective::References;

/// Smaller shares are left out.
const LEAST_SHARE: f32 = 1e-5;

/// Returns the targets of the rows `tokens` `[batch, length]`, seen with `noise` at the times `t`.
/// A row with `soft` set gets the posterior over the references and itself; any other row is its
/// own target.
pub(crate) fn soft_targets<B: Backend>(
    references: References<'_>,
    model: &Dit<B>,
    tokens: Tensor<B, 2, Int>,
    noise: &Noise<B>,
    t: Tensor<B, 1>,
    soft: &[bool],
) -> TokenDistribution<B> {
    let ([batch, length], device) = (tokens.dims(), tokens.device());
    let [vocab, _] = model.embed().embedding.dims();
    let count = references.ids.len() / references.length;
    let mut ids = references.ids.to_vec();
    ids.extend(tokens.clone().into_data().iter::<u32>());
    let likelihoods = noise.likelihoods(model.embed());
    let shares = (0..batch).map(|row| {
        if !soft[row] {
            return vec![(count + row, 1.0)];
        }
        let (tokens, t) = (
            tokens.clone().narrow(0, row, 1),
            t.clone().narrow(0, row, 1),
        );
        let likelihoods = likelihoods.log_likelihoods(row, tokens, t);
        let likelihoods: Vec<f32> = likelihoods.into_data().iter::<f32>().collect();
        let own = &ids[(count + row) * length..][..length];
        let candidates = references.ids.chunks_exact(length).chain([own]);
        let mut shares: Vec<(usize, f32)> = (0..count)
            .chain([count + row])
            .zip(candidates.map(|candidate| sum(&likelihoods, candidate, vocab)))
            .collect();
        normalize(&mut shares);
        shares
    });
    let shares = shares.collect();
    TokenDistribution::of_sequences(shares, ids, [length, vocab], &device)
}

/// Returns log p of a row: the sum over its positions.
fn sum(likelihoods: &[f32], row: &[u32], vocab: usize) -> f32 {
    let at = likelihoods.chunks_exact(vocab).zip(row);
    at.map(|(likelihoods, &id)| likelihoods[id as usize]).sum()
}

/// Turns logarithms of weights into shares that sum to one, and drops small shares.
fn normalize(shares: &mut Vec<(usize, f32)>) {
    let total = |shares: &[(usize, f32)]| shares.iter().map(|(_, share)| share).sum::<f32>();
    let largest = shares
        .iter()
        .map(|(_, log)| *log)
        .fold(f32::NEG_INFINITY, f32::max);
    shares
        .iter_mut()
        .for_each(|(_, log)| *log = (*log - largest).exp());
    let all = total(shares);
    shares.retain(|(_, share)| share / all >= LEAST_SHARE);
    let kept = total(shares);
    shares.iter_mut().for_each(|(_, share)| *share /= kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;
    use flm_denoiser::{DitConfig, NoiseWidth, Prior};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const T: [f32; 2] = [0.05, 0.6];

    fn model() -> Dit<Flex> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let config = DitConfig::new(5, 3, 4, 1, 2);
        config.init(&mut rng, &Default::default()).unwrap()
    }

    fn tokens() -> Tensor<Flex, 2, Int> {
        Tensor::from_ints([[1, 2, 3], [4, 0, 1]], &Default::default())
    }

    fn targets(soft: [bool; 2]) -> (Vec<f32>, Noise<Flex>) {
        let model = model();
        let prior = Prior::of_width(model.embed(), None, NoiseWidth::Network);
        let noise = prior.draw(2, 3, &mut ChaCha8Rng::seed_from_u64(2));
        let references = References {
            ids: &[1, 2, 0, 4, 4, 4, 1, 2, 3],
            length: 3,
        };
        let t = Tensor::from_floats(T, &Default::default());
        let found = soft_targets(references, &model, tokens(), &noise, t, &soft);
        (found.dense().into_data().to_vec().unwrap(), noise)
    }

    #[test]
    fn a_row_that_is_not_soft_is_its_own_target() {
        let (found, _) = targets([false, false]);
        let ids = [1, 2, 3, 4, 0, 1];
        for (row, id) in found.chunks_exact(5).zip(ids) {
            assert!((0..5).all(|v| row[v] == f32::from(v == id)), "{row:?}");
        }
    }

    #[test]
    fn a_soft_target_is_the_posterior_given_what_the_network_sees() {
        let (found, noise) = targets([true, true]);
        let (model, width) = (model(), 4);
        let values: Vec<f64> = model.embed().embedding.val().into_data().iter().collect();
        let e = nalgebra::DMatrix::from_row_slice(5, width, &values);
        let precision = (e.transpose() * &e).try_inverse().unwrap();
        let seen: Vec<f64> = noise.seen(model.embed()).into_data().iter().collect();
        for (row, (t, own)) in T.into_iter().zip([[1, 2, 3], [4, 0, 1]]).enumerate() {
            let t = f64::from(t);
            let candidates = [[1, 2, 0], [4, 4, 4], [1, 2, 3], own];
            let log_p = |candidate: &[usize; 3]| -> f64 {
                (0..3)
                    .map(|position| {
                        let first = (row * 3 + position) * width;
                        let x0 = nalgebra::RowDVector::from_row_slice(&seen[first..first + width]);
                        let h = x0 * (1.0 - t) + e.row(own[position]) * t;
                        let d = h - e.row(candidate[position]) * t;
                        let square = (&d * &precision * d.transpose())[(0, 0)];
                        -square / (2.0 * (1.0 - t).powi(2))
                    })
                    .sum()
            };
            let weights: Vec<f64> = candidates.iter().map(|c| log_p(c).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut expected = [[0.0; 5]; 3];
            for (candidate, weight) in candidates.iter().zip(&weights) {
                for (position, &id) in candidate.iter().enumerate() {
                    expected[position][id] += weight / total;
                }
            }
            for (position, expected) in expected.iter().enumerate() {
                for (v, expected) in expected.iter().enumerate() {
                    let found = f64::from(found[(row * 3 + position) * 5 + v]);
                    // Shares below 1e-5 are left out, and logarithms of order ten are in f32.
                    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
                }
            }
        }
    }
}
