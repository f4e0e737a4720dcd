//! Sampling with some positions known: they are held on the line from their noise to their value.
//!
//! A known position with value x and initial noise ε is in the state (1 − t)·ε + t·x at every time
//! t. [`Pinned`] wraps a denoiser and puts the known positions of each state back on this line. The
//! sampler needs no change and moves the other positions as usual.
//!
//! This is a rough approximation of the conditional distribution. The flow has the velocity
//! (D_t(x_t) − x_t)/(1 − t), where D sees the known positions as *noisily* as all others. While the
//! unknown positions are decided, the known ones reveal little of their values. Wrong decisions
//! made by then stay, and more steps do not correct them. For a distribution over four sequences of
//! two tokens (`tests/pinned.rs`), the infilled marginals are 0.2 to 0.3 away from the conditional
//! ones in total variation. The unconditional marginals are 0.4 to 0.7 away. Pinning is exact for
//! independent positions. A network that was trained with clean positions among noisy ones has no
//! such gap and needs no pinning.

use burn::tensor::{Bool, Tensor, backend::Backend};

use crate::{Denoiser, Schedule};

/// A [`Denoiser`] that holds some positions on their line from noise to data.
///
/// Noise that a sampler adds back (γ > 0 of a [flow map](crate::sampler::flow_map)) affects only
/// the other positions: a known position keeps its initial noise. Everything is affine, so states
/// may use any linear coordinates. At known positions the result is the denoiser's own
/// distribution; the caller overwrites it with the known tokens.
///
/// ```
/// use burn::tensor::Tensor;
/// use burn_flex::Flex;
/// use flm_simplex::{Pinned, Schedule, distribution::DiscreteDistribution, noise::gaussian, sampler};
/// use rand::SeedableRng;
///
/// // Two equal letters: "aa" three times in four, else "bb". The first is known to be "b".
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
    /// Wraps `denoiser` so that it holds the known positions.
    ///
    /// `known` `[batch, length]` marks the positions to hold. `noise` `[batch, length, width]`
    /// is the sampler's initial state. `clean` `[batch, length, width]` is the data at known
    /// positions; other entries are ignored. A batch of one in `known` and `clean` applies to
    /// all rows.
    ///
    /// # Panics
    ///
    /// If the shapes do not match, as for burn's own operations.
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

    /// Returns the state with its known positions on their line at time `t`, not τ.
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

    /// Holds the known positions before the inner denoiser steers the state.
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        let state = self.held(state, self.schedule.t_of_tau(tau));
        self.denoiser.steer(state, tau)
    }
}
