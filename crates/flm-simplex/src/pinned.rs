//! Sampling with some positions known: theirs is the line from their own noise to what they are.
//!
//! Where a position is known to end at x, the state's part there is no question: with the noise ε that it started from, it is
//! (1 − t)·ε + t·x at every time t. [`Pinned`] is a denoiser that is asked about states with these positions put right; the sampler around it
//! knows nothing of it, and moves the others as ever.
//!
//! This is an approximation of the conditional distribution, and a rough one. The flow that it follows is that of (D_t(x_t) − x_t)/(1 − t) with D told the
//! known positions as *noisily* as all others: while the open ones decide, the known ones say no more than they do of themselves, and what is
//! decided against them by then stays. More steps do not mend that. Of a distribution of four sequences of two tokens (`tests/pinned.rs`) the infilled marginals are 0.2 to 0.3 away
//! from the conditional ones, in total variation, where those of no condition are 0.4 to 0.7 away. It is exact where positions have nothing to do with each
//! other. A network that was trained with clean positions among noisy ones has no such gap: it is told what is known, and needs no pinning.

use burn::tensor::{Bool, Tensor, backend::Backend};

use crate::{Denoiser, Schedule};

/// A [`Denoiser`] of which some positions are held to their line from noise to data.
///
/// Noise that a sampler puts back (γ > 0 of a [flow map](crate::sampler::flow_map)) is for the others alone: a known position keeps the noise that it
/// has. Everything is affine, so the states may be in any linear coordinates, as everywhere in this crate. What it answers about known
/// positions is the denoiser's own distribution: the caller, who has the tokens there, writes them over it.
///
/// ```
/// use burn::tensor::Tensor;
/// use burn_flex::Flex;
/// use flm_simplex::{Pinned, Schedule, distribution::DiscreteDistribution, noise::gaussian, sampler};
/// use rand::SeedableRng;
///
/// // Two letters that agree, and are the first of the alphabet three times in four; here the first is known to be the second.
/// let distribution = DiscreteDistribution::new(2, vec![vec![0, 0], vec![1, 1]], &[3.0, 1.0])?;
/// let schedule = Schedule::new(2)?;
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let noise = gaussian::<Flex, _, 3>(distribution.state_shape(200), &mut rng, &Default::default());
/// let known = Tensor::<Flex, 2>::from_floats([[1.0, 0.0]], &Default::default()).bool();
/// let clean = Tensor::from_floats([[[0.0, 1.0], [0.0, 0.0]]], &Default::default());
///
/// let denoiser = distribution.denoiser(&schedule);
/// let pinned = Pinned::new(&denoiser, &schedule, known, noise.clone(), clean);
/// let found = distribution.decode(sampler::euler(&pinned, &schedule, noise, 32, |_| ())?);
/// let agreeing = found.iter().filter(|sample| **sample == Some(1)).count();
/// assert!(agreeing > 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pinned<'a, B: Backend, D> {
    denoiser: &'a D,
    schedule: &'a Schedule,
    known: Tensor<B, 3, Bool>,
    noise: Tensor<B, 3>,
    clean: Tensor<B, 3>,
}

impl<'a, B: Backend, D> Pinned<'a, B, D> {
    /// `known` `[batch, length]` says which positions are held, `noise` `[batch, length, width]` is the state that the sampler starts from, and `clean`
    /// `[batch, length, width]` the data at known positions; what it holds elsewhere does not matter. A batch of one in `known` and `clean`
    /// stands for all rows.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit, as burn's own operations do.
    pub fn new(
        denoiser: &'a D,
        schedule: &'a Schedule,
        known: Tensor<B, 2, Bool>,
        noise: Tensor<B, 3>,
        clean: Tensor<B, 3>,
    ) -> Self {
        let shape = noise.dims();
        Self {
            denoiser,
            schedule,
            known: known.unsqueeze_dim::<3>(2).expand(shape),
            noise,
            clean: clean.expand(shape),
        }
    }

    /// The state with its known positions where they are at time `t`, not τ.
    fn held(&self, state: Tensor<B, 3>, t: f64) -> Tensor<B, 3> {
        let line = self.noise.clone() * (1.0 - t) + self.clean.clone() * t;
        state.mask_where(self.known.clone(), line)
    }
}

impl<B: Backend, D: Denoiser<B>> Denoiser<B> for Pinned<'_, B, D> {
    type TokenDistribution = D::TokenDistribution;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> D::TokenDistribution {
        self.denoise_after(None, state, tau_s, tau_t)
    }

    fn denoise_after(
        &self,
        earlier: Option<&D::TokenDistribution>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> D::TokenDistribution {
        let state = self.held(state, self.schedule.t_of_tau(tau_s));
        self.denoiser.denoise_after(earlier, state, tau_s, tau_t)
    }

    fn mean(&self, denoised: &D::TokenDistribution) -> Tensor<B, 3> {
        self.denoiser.mean(denoised)
    }

    /// What moves states looks ahead from where known positions are.
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        let state = self.held(state, self.schedule.t_of_tau(tau));
        self.denoiser.steer(state, tau)
    }
}
