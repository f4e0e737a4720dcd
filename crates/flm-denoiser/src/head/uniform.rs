//! The likelihood bound of a uniform-state diffusion.

use super::per_position;
use burn::tensor::{Int, Tensor, backend::Backend};

/// Clean tokens, their noisy versions and the noise level: the inputs of the likelihood bound of a
/// uniform-state diffusion.
///
/// A token is kept with probability α, and replaced by a uniform one of V otherwise. Let p be a
/// denoiser's prediction of the clean token x given z, and x̄(q) = V·α·q + 1 − α. The negative
/// log-likelihood then grows with time by at most
///
/// −α′/(V·α) · \[ V/x̄_z(p) − V/x̄_z(e_x) + Σ_j r_j·log( r_j·x̄_z(p)/x̄_j(p) ) \]
///
/// nats per unit of time, with r_j = x̄_j(e_x)/x̄_z(e_x) (Duo, equation 12; `mathematics.md`,
/// section 7).
#[derive(Clone, Debug)]
pub struct UniformNoise<B: Backend> {
    clean: Tensor<B, 1, Int>,
    noisy: Tensor<B, 1, Int>,
    /// `[rows, 1]` each.
    alpha: Tensor<B, 2>,
    slope: Tensor<B, 2>,
}

impl<B: Backend> UniformNoise<B> {
    /// Clean and noisy tokens, each `[batch, length]`; α, inside (0, 1), and its derivative α′ by
    /// time, each `[batch]`.
    pub fn new(
        clean: Tensor<B, 2, Int>,
        noisy: Tensor<B, 2, Int>,
        alpha: Tensor<B, 1>,
        slope: Tensor<B, 1>,
    ) -> Self {
        let dims = clean.dims();
        Self {
            clean: clean.flatten(0, 1),
            noisy: noisy.flatten(0, 1),
            alpha: per_position(alpha, dims),
            slope: per_position(slope, dims),
        }
    }

    /// `count` positions from `first` on, indexed through the batch.
    pub(super) fn rows(&self, first: usize, count: usize) -> Self {
        Self {
            clean: self.clean.clone().narrow(0, first, count),
            noisy: self.noisy.clone().narrow(0, first, count),
            alpha: self.alpha.clone().narrow(0, first, count),
            slope: self.slope.clone().narrow(0, first, count),
        }
    }

    /// The bound's rate at each position, `[rows]`, for probabilities `[rows, vocabulary]`, and its
    /// derivative with respect to them.
    pub(super) fn loss(&self, p: Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 2>) {
        let [rows, vocab] = p.dims();
        let v = vocab as f64;
        let column = |ids: &Tensor<B, 1, Int>| ids.clone().unsqueeze_dim::<2>(1);
        let (clean, noisy) = (column(&self.clean), column(&self.noisy));
        let one_hot = |ids: Tensor<B, 2, Int>| {
            let zeros = Tensor::<B, 2>::zeros([rows, vocab], &p.device());
            let ones = Tensor::ones([rows, 1], &p.device());
            zeros.scatter(1, ids, ones, burn::tensor::IndexingUpdateOp::Add)
        };
        let rest = self.alpha.clone().neg().add_scalar(1.0);
        let signal = self.alpha.clone().mul_scalar(v);
        // x̄(e_x) is `high` at x and `low` elsewhere.
        let (low, high) = (rest.clone(), signal.clone() + rest.clone());
        let same = clean.clone().equal(noisy.clone()).float();
        let at_noisy = low.clone() + signal.clone() * same.clone();
        // For z = x, r is low/high, and 1 at x. Otherwise r is 1, and high/low at x.
        let elsewhere = low.clone() / at_noisy.clone();
        let at_clean = high.clone() / at_noisy.clone();
        let sum = elsewhere.clone().mul_scalar(v - 1.0) + at_clean.clone();
        let own = elsewhere.clone() * elsewhere.clone().log().mul_scalar(v - 1.0)
            + at_clean.clone() * at_clean.clone().log();
        let r = elsewhere.clone() + one_hot(clean) * (at_clean - elsewhere);

        let mean = p.clone() * signal.clone() + rest;
        let mean_noisy = mean.clone().gather(1, noisy.clone());
        let inverse = mean_noisy.clone().recip();
        let crossed = (r.clone() * mean.clone().log()).sum_dim(1);
        let gap = (inverse.clone() - at_noisy.recip()).mul_scalar(v);
        let scale = self.slope.clone().neg() / signal.clone();
        let loss = scale.clone() * (gap + own + sum.clone() * mean_noisy.log() - crossed);
        // Derivative with respect to x̄_j: −r_j/x̄_j, plus Σr/x̄_z − V/x̄_z² at z.
        let at = sum * inverse.clone() - (inverse.clone() * inverse).mul_scalar(v);
        let along = one_hot(noisy) * at - r / mean;
        (loss.squeeze_dim(1), along * (scale * signal))
    }
}
