//! Guidance: denoisers made of others, for any sampler (`mathematics.md`, section 5).
//!
//! *Autoguidance* extrapolates from a weaker denoiser through a stronger one, b = b_weak + η·(b_strong − b_weak), away from what the weaker
//! one gets wrong ([`Autoguidance`]). The velocity b = (D − x)/(1 − t) is affine in D, with coefficients that sum to one, so that is
//! D = D_weak + η·(D_strong − D_weak); the same holds of the average velocity of a flow map and its δ. Where η > 1, D sums to one
//! at each position but need not be positive: a point off the simplex, whose largest entry is still the answer.
//!
//! *Reward guidance* moves the state itself before each evaluation, z ← z + λ·∇_z r(X_{t,1}(z)) ([`RewardGuidance`]). Whose gradient that
//! is, and how it is had, is the business of a [`Steer`].

use burn::tensor::{Tensor, backend::Backend};

use crate::sampler::Denoiser;

/// Distributions of which affine combinations are made.
pub trait Blend {
    /// `weight`·self + (1 − `weight`)·other; self to the bit where `weight` is 1.
    fn blend(self, other: Self, weight: f64) -> Self;
}

impl<B: Backend, const D: usize> Blend for Tensor<B, D> {
    fn blend(self, other: Self, weight: f64) -> Self {
        // As two products, so that at 1 nothing is rounded.
        self * weight + other * (1.0 - weight)
    }
}

/// Autoguidance: D_weak + η·(D_strong − D_weak), of two denoisers that see the same state and answer in its coordinates.
///
/// At η = 0 it is the weak one, at 1 the strong one to the bit, and beyond 1 it leads away from the weak one. An evaluation takes one of
/// each. The distribution, and so a sampler's answer, is the guided one.
///
/// ```
/// use burn_flex::Flex;
/// use flm_simplex::{Schedule, guidance::Autoguidance, distribution::DiscreteDistribution, noise::gaussian, sampler};
/// use rand::SeedableRng;
///
/// // Letters should agree. The strong distribution says so four times in five, the weak one not at all.
/// let words = vec![vec![0, 0], vec![1, 1], vec![0, 1], vec![1, 0]];
/// let strong = DiscreteDistribution::new(2, words.clone(), &[0.4, 0.4, 0.1, 0.1])?;
/// let weak = DiscreteDistribution::new(2, words, &[0.25; 4])?;
/// let schedule = Schedule::new(2)?;
/// let guided = Autoguidance {
///     strong: strong.denoiser(&schedule),
///     weak: weak.denoiser(&schedule),
///     eta: 3.0,
/// };
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let noise = gaussian::<Flex, _, 3>([200, 2, 2], &mut rng, &Default::default());
/// let wrong = |distribution| strong.decode(distribution).iter().filter(|word| **word >= Some(2)).count();
/// let alone = sampler::euler(&guided.strong, &schedule, noise.clone(), 16, |_| ())?;
/// let guided = sampler::euler(&guided, &schedule, noise, 16, |_| ())?;
/// assert!(wrong(guided) < wrong(alone));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Autoguidance<S, W> {
    /// What is led away from the weak one.
    pub strong: S,
    /// What knows less.
    pub weak: W,
    /// η.
    pub eta: f64,
}

impl<B, S, W> Denoiser<B> for Autoguidance<S, W>
where
    B: Backend,
    S: Denoiser<B, TokenDistribution: Blend>,
    W: Denoiser<B, TokenDistribution = S::TokenDistribution>,
{
    type TokenDistribution = S::TokenDistribution;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> S::TokenDistribution {
        self.denoise_after(None, state, tau_s, tau_t)
    }

    fn denoise_after(
        &self,
        earlier: Option<&S::TokenDistribution>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> S::TokenDistribution {
        let weak = (self.weak).denoise_after(earlier, state.clone(), tau_s, tau_t);
        let strong = self.strong.denoise_after(earlier, state, tau_s, tau_t);
        strong.blend(weak, self.eta)
    }

    fn mean(&self, denoised: &S::TokenDistribution) -> Tensor<B, 3> {
        self.strong.mean(denoised)
    }

    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        self.strong.steer(state, tau)
    }
}

/// What moves states before they are evaluated.
pub trait Steer<B: Backend> {
    /// The state `[batch, length, width]` of network time `tau`, moved.
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3>;
}

impl<B: Backend, S: Steer<B> + ?Sized> Steer<B> for &S {
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        (**self).steer(state, tau)
    }
}

/// Where there is nothing, states stay.
impl<B: Backend, S: Steer<B>> Steer<B> for Option<S> {
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        match self {
            Some(by) => by.steer(state, tau),
            None => state,
        }
    }
}

/// A denoiser whose states are moved before each evaluation, the first and the last as well.
#[derive(Clone, Copy, Debug)]
pub struct RewardGuidance<D, S> {
    /// What is evaluated then.
    pub denoiser: D,
    /// What moves them.
    pub by: S,
}

impl<B: Backend, D: Denoiser<B>, S: Steer<B>> Denoiser<B> for RewardGuidance<D, S> {
    type TokenDistribution = D::TokenDistribution;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> D::TokenDistribution {
        self.denoiser.denoise(state, tau_s, tau_t)
    }

    fn denoise_after(
        &self,
        earlier: Option<&D::TokenDistribution>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> D::TokenDistribution {
        self.denoiser.denoise_after(earlier, state, tau_s, tau_t)
    }

    fn mean(&self, denoised: &D::TokenDistribution) -> Tensor<B, 3> {
        self.denoiser.mean(denoised)
    }

    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        self.by.steer(self.denoiser.steer(state, tau), tau)
    }
}
